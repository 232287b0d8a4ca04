//! A slow disk: a cgroup whose processes get so many reads a second of it, and no more bytes than these
//! would bring at [`READ_BYTES`] each (blkio, version 1).

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};

use super::undo::Entry;
use super::{HostError, Undo, files};

/// What a slow disk brings by one read.
const READ_BYTES: u64 = 128 << 10;

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
        let limits = [
            ("blkio.throttle.read_iops_device", iops),
            ("blkio.throttle.read_bps_device", iops * READ_BYTES),
        ];
        for (name, limit) in limits {
            let limit = format!("{}:{} {limit}", major(device), minor(device));
            files::write(&path.join(name), &limit)?;
        }
        Ok(Throttle { path })
    }

    /// Puts a process on the slow disk.
    ///
    /// # Errors
    /// [`HostError::File`] when it is gone.
    pub(crate) fn add(&self, pid: u32) -> Result<(), HostError> {
        files::write(&self.procs(), &pid.to_string())
    }

    /// The file through which a process joins by itself.
    pub(crate) fn procs(&self) -> PathBuf {
        self.path.join("cgroup.procs")
    }
}
