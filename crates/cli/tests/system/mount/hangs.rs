//! What waits holds up nobody else, and ends when zcache does.

use super::disk::SmallDisk;
use super::support::{Mounted, by_rings, python};
use crate::support::{TempDir, eventually, tool, zcache};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// What a request that waits for nobody may take, on a machine that is busy with other things.
const BOUND: &str = "10";

fn path(path: &Path) -> &str {
    path.to_str().expect("a path of the tests")
}

/// Runs a script that is expected to wait.
fn start(script: &str, arguments: &[&str]) -> Child {
    let mut command = Command::new("timeout");
    command.args(["-s", "KILL", "60", "python3", "-c", script]);
    command.args(arguments).stdout(Stdio::piped());
    command.spawn().expect("python3 runs")
}

fn freeze(source: &Path, flag: &str) {
    tool("util-linux", Command::new("fsfreeze").arg(flag).arg(source));
}

/// Names become fifos and go again beside the mount, and are opened through it to be made or written.
const FIFOS: &str = "
import os, signal, subprocess, sys, time
outer, inner = sys.argv[1:]
open(inner + '/f', 'w').close()

def forever(work):
    child = os.fork()
    if child:
        return child
    while True:
        for number in range(8):
            try:
                work(number)
            except OSError:
                pass

def make(number):
    os.mkfifo(f'{inner}/n{number}')
    os.unlink(f'{inner}/n{number}')

def create(number):
    # Who meets the fifo in its own filesystem waits for a reader, as on the source.
    signal.signal(signal.SIGALRM, lambda *_: None), signal.setitimer(signal.ITIMER_REAL, 0.2)
    os.close(os.open(f'{outer}/n{number}', os.O_CREAT | os.O_WRONLY))
    os.unlink(f'{inner}/n{number}')

children = [forever(make)] + [forever(create) for _ in range(4)]
end = time.time() + 8
while time.time() < end:
    time.sleep(0.5)
    subprocess.run(['timeout', '-s', 'KILL', '10', 'stat', outer + '/f'], stdout=subprocess.DEVNULL, check=True)
for child in children:
    os.kill(child, signal.SIGKILL)
";

#[test]
fn a_name_that_becomes_a_fifo_stops_nobody() {
    let mounted = Mounted::new("fifos", &["--ram", "32M", "--threads", "1"]);
    python(FIFOS, &[path(&mounted.target()), path(&mounted.source())]);
}

/// Forty threads that each write to a file of their own.
const WRITERS: &str = "
import os, sys, threading
files = [os.open(f'{sys.argv[1]}/w{number}', os.O_WRONLY) for number in range(40)]
threads = [threading.Thread(target=os.write, args=(fd, b'more')) for fd in files]
for thread in threads:
    thread.start()
print('begun', flush=True)
for thread in threads:
    thread.join()
";

#[test]
fn who_waits_for_a_frozen_source_holds_up_nobody_else() {
    let files = TempDir::new("frozen");
    let _disk = SmallDisk::ext4(&files, 64 << 20, 0);
    std::fs::write(files.file("source/f"), vec![7; 1 << 20]).expect("written");
    for number in 0..40 {
        std::fs::write(files.file(&format!("source/w{number}")), "").expect("written");
    }
    // By io_uring each spare ring has room of its own.
    let mounted = Mounted::over(files, &["--ram", "64M"]);
    let target = mounted.target();
    std::fs::read(target.join("f")).expect("read");
    freeze(&mounted.source(), "-f");
    let mut writers = start(WRITERS, &[path(&target)]);
    let mut lines = BufReader::new(writers.stdout.take().expect("a pipe")).lines();
    assert_eq!(lines.next().expect("they run").expect("a line"), "begun");
    std::thread::sleep(Duration::from_secs(1));
    let bounded = |words: &[&str]| {
        let mut command = Command::new("timeout");
        command.args(["-s", "KILL", BOUND]).args(words);
        command.output().expect("it runs")
    };
    let file = target.join("f");
    let outputs = [
        bounded(&["cat", path(&file)]),
        bounded(&["stat", path(&target.join("w7"))]),
        bounded(&["ls", "-l", path(&target)]),
        // Past the page cache of the mount.
        bounded(&[
            "dd",
            "iflag=direct",
            "bs=1M",
            &format!("if={}", path(&file)),
        ]),
    ];
    freeze(&mounted.source(), "-u");
    assert!(writers.wait().expect("they end").success());
    for output in outputs {
        assert!(output.status.success(), "{output:?}");
    }
    for number in 0..40 {
        let file = mounted.source().join(format!("w{number}"));
        assert_eq!(std::fs::read(file).expect("read"), b"more");
    }
    let stats = mounted.finish();
    let (peak, budget) = (&stats["ram_bytes_peak"], &stats["ram_bytes_budget"]);
    assert!(peak.as_u64() <= budget.as_u64(), "{stats}");
}

/// Stores into a hole, has the store written back, and asks how much room the file takes.
const WAITING: &str = "
import mmap, os, sys, threading, time
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
view = mmap.mmap(fd, 1 << 20)
view[5000] = 1
print('stored', flush=True)

def tried(call):
    try:
        call()
    except OSError as error:
        print(error.strerror, flush=True)

flusher = threading.Thread(target=tried, args=[view.flush])
flusher.start()
time.sleep(1)
tried(lambda: os.stat(sys.argv[1]))
flusher.join()
os._exit(0)
";

/// The process that guards a mount.
fn guard_of(server: u32) -> String {
    let children = format!("/proc/{server}/task/{server}/children");
    std::fs::read_to_string(children)
        .expect("its children")
        .trim()
        .to_owned()
}

/// zcache is killed while it waits for the kernel and the kernel for it; then also the guard, so that `zcache umount` has to end it.
fn killed_while_waiting(guard_too: bool) {
    let files = TempDir::new("killed-waiting");
    let _disk = SmallDisk::ext4(&files, 64 << 20, 0);
    let sparse = std::fs::File::create(files.file("source/sparse")).expect("made");
    sparse.set_len(1 << 20).expect("its size");
    drop(sparse);
    let mounted = Mounted::over(files, &["--ram", "32M"]);
    let server = mounted.server();
    let guard = guard_of(server);
    assert!(!guard.is_empty(), "zcache has a guard");
    freeze(&mounted.source(), "-f");
    let mut waiting = start(WAITING, &[path(&mounted.target().join("sparse"))]);
    std::thread::sleep(Duration::from_secs(4));
    assert!(waiting.try_wait().expect("a child").is_none(), "it waits");
    let server = server.to_string();
    let killed = if guard_too {
        vec![&guard, &server]
    } else {
        vec![&server]
    };
    tool("procps", Command::new("kill").arg("-9").args(killed));
    let ended = |waiting: &mut Child| {
        eventually(Duration::from_secs(20), || {
            waiting.try_wait().expect("a child").is_some()
        })
    };
    let before = guard_too || ended(&mut waiting);
    let mut umount = Command::new("timeout");
    umount
        .args(["-s", "KILL", "40"])
        .arg(zcache())
        .arg("umount");
    let output = umount.arg(mounted.target()).output().expect("it runs");
    let after = ended(&mut waiting);
    freeze(&mounted.source(), "-u");
    assert!(before, "who waits gets an error when zcache is killed");
    assert!(after, "who waits gets an error at the latest by umount");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn zcache_killed_while_it_waits_for_the_kernel_ends_all_waiting() {
    killed_while_waiting(false);
}

#[test]
fn umount_ends_all_waiting_when_the_guard_is_killed_too() {
    // What lies in a dead server's ring is ended by nobody: docs/mount.md says so.
    if !by_rings() {
        killed_while_waiting(true);
    }
}

/// A folder that several mounts share.
fn shared(files: &TempDir) -> std::path::PathBuf {
    let folder = files.file("shared");
    std::fs::create_dir(&folder).expect("a folder");
    let mount = |words: &[&str]| tool("mount", Command::new("mount").args(words));
    mount(&["-t", "tmpfs", "none", path(&folder)]);
    mount(&["--make-shared", path(&folder)]);
    folder
}

#[test]
fn a_target_that_shows_up_in_its_source_is_refused() {
    let files = TempDir::new("shows-up");
    let folder = shared(&files);
    std::fs::create_dir(folder.join("t")).expect("a target");
    let other = files.file("other");
    std::fs::create_dir(&other).expect("a folder");
    tool(
        "mount",
        Command::new("mount").arg("--bind").arg(&folder).arg(&other),
    );
    let mut command = Command::new("timeout");
    command.args(["-s", "KILL", BOUND]).arg(zcache());
    let output = command
        .args(["mount", "--ram", "32M"])
        .arg(&folder)
        .arg(other.join("t"))
        .output();
    let output = output.expect("it runs");
    let gone = std::fs::read_to_string("/proc/self/mountinfo").expect("the list");
    for at in [&other, &folder] {
        tool("mount", Command::new("umount").arg("--recursive").arg(at));
    }
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert!(said.contains("would contain itself"), "{said}");
    assert!(!gone.contains(path(&other.join("t"))), "{gone}");
}

#[test]
fn a_mount_that_is_shown_in_its_source_later_is_a_loop() {
    let mounted = Mounted::new("loop", &["--ram", "32M"]);
    let (source, target) = (mounted.source(), mounted.target());
    std::fs::create_dir(source.join("again")).expect("a folder");
    std::fs::write(source.join("file"), "bytes").expect("written");
    let again = source.join("again");
    tool(
        "mount",
        Command::new("mount").arg("--bind").arg(&target).arg(&again),
    );
    let walkers: Vec<Child> = (0..24)
        .map(|_| {
            let mut command = Command::new("timeout");
            command.args(["-s", "KILL", BOUND, "find"]).arg(&target);
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            command.spawn().expect("find runs")
        })
        .collect();
    let outputs: Vec<_> = walkers.into_iter().map(Child::wait_with_output).collect();
    let error = std::fs::metadata(target.join("again")).expect_err("a loop");
    tool("mount", Command::new("umount").arg(&again));
    for output in outputs {
        let output = output.expect("it ends");
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(
            String::from_utf8_lossy(&output.stdout).contains("/file"),
            "{output:?}"
        );
    }
    assert_eq!(error.raw_os_error(), Some(40), "{error}");
    std::thread::sleep(Duration::from_millis(1100));
    assert!(target.join("again").is_dir(), "the folder is there again");
    assert!(mounted.unmount().status.success());
}
