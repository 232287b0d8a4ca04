//! A source on a network: sshfs from a real sshd over a line that is slow, goes away and comes to a server that fills up.

use super::disk::SmallDisk;
use super::support::{Mounted, drop_pages, python};
use crate::support::{TempDir, eventually, tests_file, tool};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const BOUND: Duration = Duration::from_secs(20);

/// Round trips take twice as long.
const DELAY_MILLISECONDS: &str = "5";

/// A directory of this machine that is at `source` by sshfs.
pub(super) struct Remote {
    server: Child,
    line: Child,
    there: PathBuf,
    at: PathBuf,
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("its number").port()
}

impl Remote {
    /// Serves `there` of a directory.
    pub(super) fn new(files: &TempDir) -> Remote {
        let (there, at) = (files.file("there"), files.file("source"));
        let _ = std::fs::create_dir(&there);
        let there = there.canonicalize().expect("a directory");
        std::fs::create_dir(&at).expect("a directory");
        let key = |name: &str| {
            let mut command = Command::new("ssh-keygen");
            command.args(["-q", "-t", "ed25519", "-N", "", "-f"]);
            tool("openssh-client", command.arg(files.file(name)));
        };
        key("host");
        key("user");
        let (port, near) = (free_port(), free_port());
        let _ = std::fs::create_dir("/run/sshd");
        let mut command = Command::new("/usr/sbin/sshd");
        command.args(["-D", "-e", "-f", "/dev/null", "-p", &port.to_string(), "-h"]);
        command.arg(files.file("host"));
        for option in [
            format!("AuthorizedKeysFile={}", files.file("user.pub").display()),
            "ListenAddress=127.0.0.1".into(),
            "StrictModes=no".into(),
            "PermitRootLogin=yes".into(),
            "Subsystem=sftp internal-sftp".into(),
            "PidFile=none".into(),
        ] {
            command.args(["-o", &option]);
        }
        let log = std::fs::File::create(files.file("sshd.log")).expect("a log");
        let server = command.stderr(log).spawn();
        let server = server.expect("sshd runs (openssh-server)");
        let mut command = Command::new("python3");
        command.arg(tests_file("mount/slow_line.py"));
        command.args([
            near.to_string(),
            port.to_string(),
            DELAY_MILLISECONDS.into(),
        ]);
        command.env("SLOW_LINE_CUT", files.file("cut"));
        let mut line = command
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 runs");
        let mut ready = String::new();
        BufReader::new(line.stdout.take().expect("a pipe"))
            .read_line(&mut ready)
            .expect("a line");
        let remote = Remote {
            server,
            line,
            there,
            at,
        };
        remote.connect(files, near);
        remote
    }

    fn connect(&self, files: &TempDir, port: u16) {
        let mut command = Command::new("sshfs");
        command
            .arg(format!("root@127.0.0.1:{}", self.there.display()))
            .arg(&self.at);
        for option in [
            format!("port={port}"),
            format!("IdentityFile={}", files.file("user").display()),
            "StrictHostKeyChecking=no,UserKnownHostsFile=/dev/null,LogLevel=ERROR".into(),
            "allow_other,dcache_timeout=1".into(),
        ] {
            command.args(["-o", &option]);
        }
        assert!(
            eventually(BOUND, || command
                .output()
                .expect("sshfs runs (sshfs)")
                .status
                .success()),
            "sshfs: {}",
            std::fs::read_to_string(files.file("sshd.log")).unwrap_or_default()
        );
    }

    fn hang_up(&mut self) {
        let _ = self.line.kill();
        let _ = self.line.wait();
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.hang_up();
        let _ = Command::new("umount").arg("--lazy").arg(&self.at).output();
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// What a call on a path ends with.
fn errno_of(path: &Path, call: &str) -> String {
    let script = format!(
        "import errno, os, sys\npath = sys.argv[1]\ntry:\n    {call}\n    print('done')\n\
         except OSError as error:\n    print(errno.errorcode[error.errno])"
    );
    python(&script, &[path.to_str().expect("a path")])
        .trim()
        .to_owned()
}

#[test]
fn what_was_read_over_a_slow_line_comes_from_ram() {
    let files = TempDir::new("slow");
    let remote = Remote::new(&files);
    let bytes: Vec<u8> = (0..1_000_003u32)
        .map(|n| ((n / 9) ^ (n >> 11)) as u8)
        .collect();
    std::fs::write(remote.there.join("file"), &bytes).expect("written");
    let mounted = Mounted::over(files, &["--ram", "32M"]);
    let path = mounted.target().join("file");
    let mut took = Vec::new();
    // Times in seconds: it takes some until they are trusted, then one read to be remembered and one to be kept.
    for _ in 0..7 {
        let start = Instant::now();
        assert!(std::fs::read(&path).expect("read") == bytes);
        took.push(start.elapsed());
        drop_pages(&path);
        drop_pages(&remote.at.join("file"));
        std::thread::sleep(Duration::from_millis(1100));
    }
    // Changed on the server, where nobody can watch.
    let changed = vec![9; bytes.len()];
    std::fs::write(remote.there.join("file"), &changed).expect("written");
    // As late as sshfs itself believes what it knows.
    std::thread::sleep(Duration::from_millis(1100));
    assert!(std::fs::read(remote.at.join("file")).expect("read") == changed);
    assert!(std::fs::read(&path).expect("read") == changed);
    let stats = mounted.finish();
    assert_eq!(stats["watched"], false, "{stats}");
    assert!(stats["hit_pages"].as_u64() >= Some(244), "{stats}");
    assert!(took[6] * 2 < took[0], "{took:?}");
}

#[test]
fn a_network_that_goes_away_is_an_errno_and_not_a_hang() {
    let files = TempDir::new("gone");
    let mut remote = Remote::new(&files);
    std::fs::write(remote.there.join("file"), vec![3; 4 << 20]).expect("written");
    std::fs::write(remote.there.join("other"), "other").expect("written");
    let mounted = Mounted::over(files, &["--ram", "32M", "--admit", "all"]);
    let path = mounted.target().join("file");
    let file = std::fs::File::open(&path).expect("open");
    let mut page = [0; 4096];
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut page, 0).expect("read");
    remote.hang_up();
    assert!(eventually(BOUND, || std::fs::metadata(
        remote.at.join("other")
    )
    .is_err()));
    for call in [
        "os.stat(path)",
        "os.listdir(os.path.dirname(path))",
        "open(path, 'a').close()",
        "os.mkdir(path + '.d')",
    ] {
        // sshfs has taken its own mount away, whose files this mount still has.
        let here = errno_of(&mounted.target().join("other"), call);
        assert!(matches!(&here[..], "ENOTCONN" | "EIO"), "{call}: {here}");
    }
    let error = std::os::unix::fs::FileExt::read_exact_at(&file, &mut page, 3 << 20);
    let error = error.expect_err("nobody can have read it").raw_os_error();
    assert!(matches!(error, Some(5 | 107)), "{error:?}");
    // And the mount can be taken away.
    drop(file);
    assert!(mounted.unmount().status.success());
}

#[test]
fn a_server_that_fills_up_is_the_errno_of_the_source() {
    let files = TempDir::new("filled");
    let disk = SmallDisk::ext4(&files, 8 << 20, 0);
    std::os::unix::fs::symlink(disk.at(), files.file("there")).expect("a link");
    let there = TempDir::new("filled-mount");
    std::os::unix::fs::symlink(files.file("there"), there.file("there")).expect("a link");
    let remote = Remote::new(&there);
    let at = remote.at.clone();
    let mounted = Mounted::over(there, &["--ram", "32M"]);
    let fill = "fd = os.open(path, os.O_WRONLY | os.O_CREAT)\n    \
                for at in range(0, 64 << 20, 1 << 18): os.pwrite(fd, b'x' * (1 << 18), at)\n    os.fsync(fd)";
    let here = errno_of(&mounted.target().join("file"), fill);
    std::fs::remove_file(disk.at().join("file")).expect("removed");
    std::thread::sleep(Duration::from_millis(1100));
    let beside = errno_of(&at.join("file"), fill);
    assert_eq!(here, beside);
    assert_ne!(here, "done");
}
