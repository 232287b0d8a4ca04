//! Why a run could not start, and what to do about it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::{fmt, io};

/// zcache's own failure.
pub const EXIT_OWN: i32 = 125;
/// The program was found but could not be executed.
pub const EXIT_NOT_EXECUTABLE: i32 = 126;
/// The program was not found.
pub const EXIT_NOT_FOUND: i32 = 127;

/// Why the program was not run.
#[derive(Debug)]
pub enum StartError {
    /// The budget is below what a run needs.
    TooSmall {
        /// What was asked for.
        ram_bytes: u64,
        /// The least that works.
        least_bytes: u64,
    },
    /// The store could not be opened (most often: the swap file).
    Store(zcache::OpenError),
    /// A system call of zcache's own failed.
    Own(io::Error),
    /// The filter that reports memory calls could not be installed.
    Filter(io::Error),
    /// Attaching to the program was refused.
    Attach(io::Error),
    /// The program could not be executed.
    Exec {
        /// Its name as given.
        program: OsString,
        /// Why.
        error: io::Error,
    },
    /// The program's address space cannot be paged.
    Care(String),
    /// The statistics could not be written where they were asked for.
    Stats {
        /// Where.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// A program that gains privileges when executed, and zcache may not follow.
    Setuid(OsString),
}

impl StartError {
    /// The exit code that `env` and `timeout` would use.
    #[must_use]
    pub fn exit_code(&self) -> i32 {
        match self {
            StartError::Exec { error, .. } if error.kind() == io::ErrorKind::NotFound => {
                EXIT_NOT_FOUND
            }
            StartError::Exec { .. } => EXIT_NOT_EXECUTABLE,
            _ => EXIT_OWN,
        }
    }

    /// What the user can do, if anything is known.
    fn advice(&self) -> &'static str {
        match self {
            StartError::Filter(_) => {
                "seccomp filters must be allowed here; \
                 a container needs seccomp=unconfined or a profile that allows seccomp(2)"
            }
            StartError::Attach(_) if is_traced() => {
                "run the program itself: under the zcache run around it, it is within that one's budget"
            }
            StartError::Attach(_) => {
                "ptrace must be allowed: kernel.yama.ptrace_scope below 3 (sysctl), not inside \
                 another tracer, or CAP_SYS_PTRACE (in a container: --cap-add SYS_PTRACE)"
            }
            StartError::Care(cause) if cause.contains("userfaultfd features") => {
                "paging needs Linux 6.8 or later with CONFIG_USERFAULTFD"
            }
            StartError::Care(cause) if cause.contains("userfaultfd") => {
                "one of these allows userfaultfd: run as root or with CAP_SYS_PTRACE; \
                 `sysctl vm.unprivileged_userfaultfd=1`; or make /dev/userfaultfd accessible \
                 (udev rule: KERNEL==\"userfaultfd\", MODE=\"0666\"); \
                 a seccomp profile must not forbid it"
            }
            StartError::Setuid(_) => {
                "run zcache as the user that the program changes to, or run a copy without that bit"
            }
            _ => "",
        }
    }
}

/// Whether this process is traced by another.
fn is_traced() -> bool {
    let own = std::process::id().cast_signed();
    zcache_sys::procfs::status_field(own, "TracerPid").is_some_and(|tracer| tracer != "0")
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::TooSmall {
                ram_bytes,
                least_bytes,
            } => write!(
                f,
                "--ram {} MiB is too small: zcache itself and a program's files need at least {} MiB",
                ram_bytes >> 20,
                least_bytes >> 20
            ),
            StartError::Store(error) => write!(f, "{error}"),
            StartError::Own(error) => write!(f, "a system call failed: {error}"),
            StartError::Filter(error) => write!(f, "the system call filter was refused: {error}"),
            StartError::Attach(_) if is_traced() => write!(
                f,
                "zcache is traced itself (by another zcache run, a debugger or strace), and so would be the program; a task has one tracer"
            ),
            StartError::Attach(error) => write!(f, "attaching to the program was refused: {error}"),
            StartError::Exec { program, error } => {
                write!(f, "{}: {error}", program.to_string_lossy())
            }
            StartError::Care(cause) => write!(f, "the program cannot be paged: {cause}"),
            StartError::Stats { path, error } => {
                write!(f, "--stats {}: {error}", path.display())
            }
            StartError::Setuid(program) => write!(
                f,
                "{}: it is setuid or setgid, and a program that changes its user cannot be paged",
                program.to_string_lossy()
            ),
        }?;
        match self.advice() {
            "" => Ok(()),
            advice => write!(f, "\n  what helps: {advice}"),
        }
    }
}

impl std::error::Error for StartError {}
