//! A slow disk: a cgroup whose processes get so many reads a second of it (blkio, version 1).

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};

use super::undo::Entry;
use super::{HostError, Undo, files};

const ROOT: &str = "/sys/fs/cgroup/blkio";

/// See the module's description.
pub(crate) struct Throttle {
    path: PathBuf,
}

impl Throttle {
    /// Makes the cgroup for the disk that `folder` is on.
    ///
    /// # Errors
    /// [`HostError::Missing`] without the controller; [`HostError::File`] when the kernel refuses.
    pub(crate) fn create(undo: &mut Undo, folder: &Path, iops: u64) -> Result<Throttle, HostError> {
        if !Path::new(ROOT).is_dir() {
            return Err(HostError::Missing {
                what: "no blkio cgroup (version 1) is mounted, which --iops needs",
            });
        }
        let path = Path::new(ROOT).join("zcache-bench-slow");
        undo.note(Entry::Cgroup(path.clone()))?;
        std::fs::create_dir(&path).map_err(HostError::file(&path))?;
        let device = folder.metadata().map_err(HostError::file(folder))?.dev();
        let limit = format!("{}:{} {iops}", major(device), minor(device));
        files::write(&path.join("blkio.throttle.read_iops_device"), &limit)?;
        Ok(Throttle { path })
    }

    /// Puts a process on the slow disk.
    ///
    /// # Errors
    /// [`HostError::File`] when it is gone.
    pub(crate) fn add(&self, pid: u32) -> Result<(), HostError> {
        files::write(&self.path.join("cgroup.procs"), &pid.to_string())
    }

    /// Puts the processes of another cgroup on it, given its `cgroup.procs`.
    ///
    /// # Errors
    /// [`HostError::Missing`] when there is none yet.
    pub(crate) fn add_members(&self, procs: &Path) -> Result<(), HostError> {
        let members = files::read(procs)?;
        let mut pids = members
            .lines()
            .filter_map(|line| line.parse().ok())
            .peekable();
        if pids.peek().is_none() {
            return Err(HostError::Missing {
                what: "the process that is to be slowed down has not started",
            });
        }
        pids.try_for_each(|pid| self.add(pid))
    }
}
