//! A tree mounted for one test, and taken away at its end.

use crate::support::{TempDir, eventually, zcache};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

/// The transport that all mounts of a run have; without it they have the default.
const TRANSPORT: &str = "ZCACHE_TEST_TRANSPORT";

/// What any one step may take at most.
const BOUND: Duration = Duration::from_secs(20);

/// Whether the mounts of this run are served by io_uring.
pub(crate) fn by_rings() -> bool {
    match std::env::var_os(TRANSPORT) {
        Some(transport) => transport == "uring",
        None => std::fs::read_to_string("/sys/module/fuse/parameters/enable_uring")
            .is_ok_and(|allowed| allowed.starts_with('Y')),
    }
}

/// A source and a target, mounted.
pub(crate) struct Mounted {
    files: TempDir,
    options: Vec<String>,
    /// The command that zcache is started by, if any.
    starter: Vec<String>,
}

impl Mounted {
    /// Mounts an empty directory.
    pub(crate) fn new(name: &str, options: &[&str]) -> Mounted {
        let files = TempDir::new(name);
        std::fs::create_dir(files.file("source")).expect("a source");
        Mounted::over(files, options)
    }

    /// Mounts what is in `source` of a directory.
    pub(crate) fn over(files: TempDir, options: &[&str]) -> Mounted {
        Mounted::started_by(files, &[], options)
    }

    /// The same, with zcache started by a command such as prlimit(1).
    pub(crate) fn started_by(files: TempDir, starter: &[&str], options: &[&str]) -> Mounted {
        std::fs::create_dir(files.file("target")).expect("a target");
        // Other users come by here.
        for path in [files.path(), &files.file("source")] {
            let _ = std::fs::set_permissions(path, PermissionsExt::from_mode(0o755));
        }
        let words = |words: &[&str]| words.iter().map(ToString::to_string).collect();
        let mounted = Mounted {
            files,
            options: words(options),
            starter: words(starter),
        };
        mounted.mount();
        mounted
    }

    /// Mounts again what was taken away.
    pub(crate) fn mount(&self) {
        let mut command = match &self.starter[..] {
            [] => Command::new(zcache()),
            [program, words @ ..] => {
                let mut command = Command::new(program);
                command.args(words).arg(zcache());
                command
            }
        };
        command.args(["mount", "--stats"]).arg(self.stats_file());
        command.args(&self.options);
        if let Some(transport) = std::env::var_os(TRANSPORT) {
            command.arg("--transport").arg(transport);
        }
        command.arg(self.source()).arg(self.target());
        let output = command.output().expect("zcache runs");
        assert!(output.status.success(), "zcache mount: {output:?}");
    }

    pub(crate) fn source(&self) -> PathBuf {
        self.files.file("source")
    }

    pub(crate) fn target(&self) -> PathBuf {
        self.files.file("target")
    }

    pub(crate) fn directory(&self) -> &Path {
        self.files.path()
    }

    fn stats_file(&self) -> PathBuf {
        self.files.file("stats")
    }

    /// `zcache umount` of the target.
    pub(crate) fn unmount(&self) -> Output {
        let mut command = Command::new(zcache());
        command.arg("umount").arg(self.target());
        command.output().expect("zcache runs")
    }

    /// Unmounts and gives the statistics of the whole mount.
    pub(crate) fn finish(&self) -> Value {
        let _ = std::fs::remove_file(self.stats_file());
        let output = self.unmount();
        assert!(output.status.success(), "zcache umount: {output:?}");
        self.written_stats()
    }

    /// The statistics of now.
    pub(crate) fn stats(&self) -> Value {
        let _ = std::fs::remove_file(self.stats_file());
        let server = self.server().to_string();
        let told = Command::new("kill").args(["-USR1", &server]).status();
        assert!(told.expect("kill runs").success());
        self.written_stats()
    }

    fn written_stats(&self) -> Value {
        let mut stats = None;
        eventually(BOUND, || {
            let text = std::fs::read(self.stats_file()).unwrap_or_default();
            stats = serde_json::from_slice(&text).ok();
            stats.is_some()
        });
        stats.expect("statistics are written at the end and when asked for")
    }

    /// The process that serves this mount.
    pub(crate) fn server(&self) -> u32 {
        let target = self.target();
        let wanted = target.as_os_str().as_encoded_bytes();
        let processes = std::fs::read_dir("/proc").expect("/proc");
        processes
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .find(|pid: &u32| {
                let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                let mut words = line.split(|byte| *byte == 0);
                words.nth(1) == Some(b"mount")
                    && line.split(|byte| *byte == 0).any(|word| word == wanted)
            })
            .expect("a process serves the mount")
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Whatever a failing test left: nothing of it outlives the test. The source may be a small disk, which has to go before
        // the directory that it lies in.
        for path in [self.target(), self.source()] {
            let _ = Command::new("umount").arg("--lazy").arg(path).output();
        }
    }
}

/// Waits until nobody serves a mount whose server was killed.
pub(crate) fn wait_until_dead(target: &Path) {
    let is_dead = || {
        let error = std::fs::read_dir(target).err();
        error.and_then(|error| error.raw_os_error()) == Some(107)
    };
    assert!(eventually(BOUND, is_dead), "somebody serves the mount");
}

/// Makes the page cache drop a file's pages, as it does when memory is short.
pub(crate) fn drop_pages(path: &Path) {
    let script = "import os, sys\nfd = os.open(sys.argv[1], os.O_RDONLY)\nos.fsync(fd)\n\
                  os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)";
    python(script, &[path.to_str().expect("a path of the tests")]);
}

/// In front of a Python script: does something, and prints what came of it.
pub(crate) const ATTEMPT: &str = "
def attempt(what, call):
    try:
        print(what, call())
        return True
    except OSError as error:
        print(what, error.strerror)
";

/// Runs a Python script to its end and gives what it printed.
pub(crate) fn python(script: &str, arguments: &[&str]) -> String {
    let mut command = Command::new("timeout");
    command
        .args(["100", "python3", "-c", script])
        .args(arguments);
    crate::support::tool("python3", &mut command)
}
