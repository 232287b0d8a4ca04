//! Why a tree could not be mounted or unmounted, and what to do about it.

use std::path::PathBuf;
use std::{fmt, io};

use zcache::OpenError;

use crate::ringworker::SWITCH;

/// See the module's description.
#[derive(Debug)]
pub enum MountError {
    /// The budget is too small to work in.
    RamTooSmall {
        /// What was given.
        ram_bytes: u64,
    },
    /// The budget is more than the machine has.
    RamTooLarge {
        /// What was given.
        ram_bytes: u64,
        /// What there is.
        machine_bytes: u64,
    },
    /// The budget has no room for so many requests at once.
    TooManyThreads {
        /// What was given.
        threads: usize,
        /// How many there is room for.
        threads_max: usize,
    },
    /// A limit of whoever mounts would bind all who use the mount.
    Limited {
        /// What ulimit(1) calls it.
        option: &'static str,
    },
    /// Source or target cannot be used.
    Path {
        /// "SOURCE" or "TARGET".
        role: &'static str,
        /// The path.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Source or target is no directory.
    NotADirectory {
        /// "SOURCE" or "TARGET".
        role: &'static str,
        /// The path.
        path: PathBuf,
    },
    /// The source lies within the target, and would be hidden by it.
    Hidden {
        /// The source.
        source: PathBuf,
        /// The target.
        target: PathBuf,
    },
    /// The target lies within the source, so that the tree would contain itself.
    Inside {
        /// The source.
        source: PathBuf,
        /// The target.
        target: PathBuf,
    },
    /// There is no `/dev/fuse` that can be opened.
    Device(io::Error),
    /// The kernel refused the mount.
    Refused {
        /// The target.
        target: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The kernel speaks a protocol that is too old.
    Protocol {
        /// Its version.
        major: u32,
        /// Behind the point.
        minor: u32,
    },
    /// The kernel offers no FUSE over io_uring, which was asked for.
    NoRings,
    /// It offers it and refuses.
    Rings(io::Error),
    /// The store could not be opened.
    Store(OpenError),
    /// Something of the system's failed at the start.
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// The path to be unmounted is not a mount of zcache's.
    NotMounted {
        /// The path.
        target: PathBuf,
        /// What is mounted there instead, if anything.
        found: Option<String>,
    },
    /// Files of the mount are in use.
    Busy {
        /// The target.
        target: PathBuf,
    },
}

fn no_rings(f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match std::path::Path::new(SWITCH).exists() {
        true => write!(
            f,
            "FUSE over io_uring is switched off in this kernel; switch it on (echo Y > {SWITCH}, or \
             fuse.enable_uring=1 on the kernel's command line), or use --transport auto or dev"
        ),
        false => write!(
            f,
            "this kernel has no FUSE over io_uring, which came with Linux 6.14 \
             (CONFIG_FUSE_IO_URING); use --transport auto or dev"
        ),
    }
}

impl fmt::Display for MountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MountError::RamTooSmall { ram_bytes } => write!(
                f,
                "--ram {} KiB is too little to work in; give at least {} MiB",
                ram_bytes >> 10,
                crate::RAM_BYTES_MIN >> 20
            ),
            MountError::RamTooLarge {
                ram_bytes,
                machine_bytes,
            } => write!(
                f,
                "--ram {} MiB is more than this machine has ({} MiB)",
                ram_bytes >> 20,
                machine_bytes >> 20
            ),
            MountError::Limited { option } => write!(
                f,
                "ulimit {option} is set and cannot be raised here; it would end what others do on \
                 the mount, so mount where it is unlimited"
            ),
            MountError::TooManyThreads {
                threads,
                threads_max,
            } => write!(
                f,
                "--ram has room for the requests of {threads_max} threads and not of {threads}; \
                 give more, or fewer --threads"
            ),
            MountError::Path { role, path, error } => {
                write!(f, "{role} {}: {error}", path.display())
            }
            MountError::NotADirectory { role, path } => write!(
                f,
                "{role} {} is no directory; name a directory",
                path.display()
            ),
            MountError::Hidden { source, target } => write!(
                f,
                "SOURCE {} lies within TARGET {} and would be hidden by it; mount somewhere else",
                source.display(),
                target.display()
            ),
            MountError::Inside { source, target } => write!(
                f,
                "TARGET {} lies within SOURCE {}, which would contain itself; mount somewhere else",
                target.display(),
                source.display()
            ),
            MountError::Device(error) => write!(
                f,
                "/dev/fuse cannot be opened ({error}); load the kernel's module fuse \
                 (modprobe fuse), and run as root"
            ),
            MountError::Refused { target, error } => write!(
                f,
                "the kernel does not mount at {} ({error}); mounting needs root (CAP_SYS_ADMIN)",
                target.display()
            ),
            MountError::Protocol { major, minor } => write!(
                f,
                "the kernel speaks FUSE {major}.{minor}; this needs 7.31 (Linux 5.4) or later"
            ),
            MountError::NoRings => no_rings(f),
            MountError::Rings(error) => write!(
                f,
                "the kernel refuses FUSE over io_uring ({error}); use --transport auto or dev, or \
                 see kernel.io_uring_disabled in sysctl(8)"
            ),
            MountError::Store(error) => write!(f, "{error}"),
            MountError::System { what, error } => write!(f, "{what}: {error}"),
            MountError::NotMounted { target, found } => {
                write!(f, "{} is no mount of zcache's", target.display())?;
                match found {
                    Some(kind) => write!(f, " but a mount of type {kind}"),
                    None => write!(f, "; /proc/self/mounts lists what is mounted"),
                }
            }
            MountError::Busy { target } => write!(
                f,
                "{} is in use; end the programs that use it (fuser -vm names them), or detach it \
                 for when they end: zcache umount --lazy",
                target.display()
            ),
        }
    }
}

impl std::error::Error for MountError {}
