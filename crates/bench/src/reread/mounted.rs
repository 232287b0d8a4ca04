//! A `zcache mount` for one run, and the slow disk that it may stand before.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::host::HostError;

/// What mounting, statistics and unmounting may take at most.
const WAIT_MAX: Duration = Duration::from_secs(20);

/// A mount that goes when this is dropped.
pub(crate) struct Mounted {
    server: Child,
    target: PathBuf,
    stats: PathBuf,
}

impl Mounted {
    /// Mounts `source`; `folder` is where the target and the statistics are made.
    pub(crate) fn start(
        zcache: &Path,
        options: &[String],
        source: &Path,
        folder: &Path,
    ) -> Result<Mounted, HostError> {
        let (target, stats) = (folder.join("target"), folder.join("stats"));
        std::fs::create_dir_all(&target).map_err(HostError::file(&target))?;
        let mut command = Command::new(zcache);
        command
            .args(["mount", "--foreground", "--stats"])
            .arg(&stats);
        command.args(options).arg(source).arg(&target);
        let server = command
            .stdin(Stdio::null())
            .spawn()
            .map_err(|error| HostError::Command {
                line: zcache.display().to_string(),
                detail: error.to_string(),
            })?;
        let mut mounted = Mounted {
            server,
            target,
            stats,
        };
        match eventually(|| mounted.is_there()) {
            true => Ok(mounted),
            false => Err(mounted.failed("it did not mount")),
        }
    }

    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    pub(crate) fn pid(&self) -> u32 {
        self.server.id()
    }

    /// The statistics of now.
    pub(crate) fn stats(&mut self) -> Result<Value, HostError> {
        // What is not there needs no removal.
        let _ = std::fs::remove_file(&self.stats);
        self.signal(Signal::SIGUSR1);
        let mut found = None;
        eventually(|| {
            let text = std::fs::read(&self.stats).unwrap_or_default();
            found = serde_json::from_slice(&text).ok();
            found.is_some()
        });
        found.ok_or_else(|| self.failed("it wrote no statistics"))
    }

    fn is_there(&mut self) -> bool {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let target = self.target.to_string_lossy();
        mounts
            .lines()
            .any(|line| line.split(' ').nth(1) == Some(&*target))
    }

    fn failed(&mut self, what: &str) -> HostError {
        HostError::Command {
            line: format!("zcache mount at {}", self.target.display()),
            detail: what.to_owned(),
        }
    }

    fn signal(&self, signal: Signal) {
        // A server that has ended is noticed by whoever waits for it.
        let _ = kill(Pid::from_raw(self.server.id().cast_signed()), signal);
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.signal(Signal::SIGTERM);
        if !eventually(|| matches!(self.server.try_wait(), Ok(Some(_)))) {
            self.signal(Signal::SIGKILL);
            let _ = self.server.wait();
            let _ = Command::new("umount")
                .arg("--lazy")
                .arg(&self.target)
                .status();
        }
    }
}

fn eventually(mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + WAIT_MAX;
    while !condition() {
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}
