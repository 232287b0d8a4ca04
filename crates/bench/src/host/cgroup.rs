//! Memory cgroups, version 1 and version 2.
//!
//! Limits a peer's run, and measures from outside what any run used at its peak. A cgroup is made
//! for one run and removed after it, with whatever processes are left in it.

use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::undo::Entry;
use super::{HostError, Undo, files};

/// Which cgroup interface has the memory controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// Version 1: compressed pools of zram and of zswap are charged to nobody.
    V1,
    /// Version 2: zswap's pool is charged to the cgroup, zram's is not.
    V2,
}

/// Where the machine has its memory controller.
#[derive(Clone, Debug)]
pub(crate) struct Controller {
    root: PathBuf,
    version: Version,
}

impl Controller {
    /// Finds the memory controller among the mounts.
    ///
    /// # Errors
    /// [`HostError::Missing`] when no cgroup filesystem has one.
    pub(crate) fn find() -> Result<Controller, HostError> {
        let mounts = files::read(Path::new("/proc/self/mounts"))?;
        let controller = Controller::parse(&mounts).ok_or(HostError::Missing {
            what: "no cgroup filesystem with a memory controller is mounted",
        })?;
        if controller.version == Version::V2 {
            files::write(&controller.root.join("cgroup.subtree_control"), "+memory")?;
        }
        Ok(controller)
    }

    /// The controller in a list of mounts. A version 1 mount that names memory has it; otherwise a
    /// version 2 mount may, which the first write to it shows.
    fn parse(mounts: &str) -> Option<Controller> {
        let mut version2 = None;
        for line in mounts.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let [_, target, kind, options, ..] = words[..] else {
                continue;
            };
            match kind {
                "cgroup" if options.split(',').any(|option| option == "memory") => {
                    return Some(Controller {
                        root: target.into(),
                        version: Version::V1,
                    });
                }
                "cgroup2" => {
                    version2 = Some(Controller {
                        root: target.into(),
                        version: Version::V2,
                    });
                }
                _ => {}
            }
        }
        version2
    }

    /// The version of the interface.
    pub(crate) fn version(&self) -> Version {
        self.version
    }
}

/// A cgroup for one run.
pub(crate) struct Cgroup {
    path: PathBuf,
    version: Version,
}

impl Cgroup {
    /// Makes a cgroup, with a limit or without.
    ///
    /// # Errors
    /// [`HostError::File`] when the kernel refuses.
    pub(crate) fn create(
        undo: &mut Undo,
        controller: &Controller,
        bytes_max: Option<u64>,
    ) -> Result<Cgroup, HostError> {
        let path = controller.root.join("zcache-bench");
        undo.note(Entry::Cgroup(path.clone()))?;
        std::fs::create_dir(&path).map_err(HostError::file(&path))?;
        let cgroup = Cgroup {
            path,
            version: controller.version,
        };
        if let Some(bytes) = bytes_max {
            let name = cgroup.pick("memory.limit_in_bytes", "memory.max");
            files::write(&cgroup.path.join(name), &bytes.to_string())?;
        }
        Ok(cgroup)
    }

    /// The file through which a process joins.
    pub(crate) fn procs(&self) -> PathBuf {
        self.path.join("cgroup.procs")
    }

    /// Anonymous and shared memory now, each page counted once whoever maps it; file pages, which
    /// the kernel can drop, are left out.
    ///
    /// # Errors
    /// [`HostError::File`] or [`HostError::Format`].
    pub(crate) fn anonymous_bytes(&self) -> Result<u64, HostError> {
        let path = self.path.join("memory.stat");
        let anonymous = files::read_field(&path, self.pick("rss", "anon"))?;
        Ok(anonymous + files::read_field(&path, "shmem")?)
    }

    /// How many processes the kernel killed because of the limit.
    ///
    /// # Errors
    /// [`HostError::File`] or [`HostError::Format`].
    pub(crate) fn oom_kills(&self) -> Result<u64, HostError> {
        let name = self.pick("memory.oom_control", "memory.events");
        files::read_field(&self.path.join(name), "oom_kill")
    }

    fn pick(&self, version1: &'static str, version2: &'static str) -> &'static str {
        match self.version {
            Version::V1 => version1,
            Version::V2 => version2,
        }
    }
}

/// Kills what is left in a cgroup and removes it; may have to be tried again until they are gone.
pub(super) fn remove(path: &Path) -> Result<(), HostError> {
    if !path.exists() {
        return Ok(());
    }
    kill_members(&path.join("cgroup.procs"))?;
    std::fs::remove_dir(path).map_err(HostError::file(path))
}

/// Kills every process of a cgroup, given its `cgroup.procs`.
///
/// # Errors
/// [`HostError::File`] when the file cannot be read.
pub(super) fn kill_members(procs: &Path) -> Result<(), HostError> {
    for pid in files::read(procs)?
        .lines()
        .filter_map(|line| line.parse().ok())
    {
        // A process that is gone already is what is wanted, so the result does not matter.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_controller_is_found_among_mounts() {
        let version2 = "cgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate 0 0\n";
        let found = Controller::parse(version2).expect("a version 2 mount");
        assert_eq!(
            (found.version, found.root),
            (Version::V2, "/sys/fs/cgroup".into())
        );
        let hybrid = "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n\
            cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
            cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n";
        let found = Controller::parse(hybrid).expect("a version 1 mount");
        assert_eq!(
            (found.version, found.root),
            (Version::V1, "/sys/fs/cgroup/memory".into())
        );
        assert!(Controller::parse("/dev/vda / ext4 rw 0 0\n").is_none());
    }
}
