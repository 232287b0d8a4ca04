//! Why an address space cannot be paged.

use std::fmt;
use std::io;

use zcache_sys::ptrace;

/// Why an address space cannot be paged.
#[derive(Debug)]
pub(crate) enum CareError {
    /// The image is for another machine mode.
    NotX86_64,
    /// No `syscall` instruction was found to inject with.
    NoEntry,
    /// The program has put filters upon itself, and they may not be suspended.
    Filtered,
    /// An injected call failed in the process.
    Call { what: &'static str, errno: i32 },
    /// A call of the pager's own failed.
    Own {
        what: &'static str,
        error: io::Error,
    },
    /// Its children are born in another PID namespace, where ours would be the first.
    BornElsewhere,
    /// The kernel does not let us watch the mapping that begins here, and pages of it
    /// are out.
    Unwatched(u64),
    /// The process ended meanwhile.
    Ended,
}

impl fmt::Display for CareError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CareError::NotX86_64 => {
                write!(
                    f,
                    "the program is a 32-bit image; only 64-bit (x86-64) programs can be paged"
                )
            }
            CareError::NoEntry => write!(
                f,
                "the process may not be looked into (is its file unreadable, or is it not dumpable?)"
            ),
            CareError::Call { what, errno } => {
                write!(
                    f,
                    "{what} in the program: {}",
                    io::Error::from_raw_os_error(*errno)
                )
            }
            CareError::Own { what, error } => write!(f, "{what}: {error}"),
            CareError::Filtered => write!(
                f,
                "the program filters its own system calls (seccomp), and only root may look behind that"
            ),
            CareError::BornElsewhere => write!(
                f,
                "its children are to live in a PID namespace of their own, of which its first child is the first process"
            ),
            CareError::Unwatched(start) => {
                write!(f, "its mapping at {start:#x} cannot be watched")
            }
            CareError::Ended => write!(f, "the program ended"),
        }
    }
}

impl CareError {
    /// What a failed call of the pager's own means.
    pub(crate) fn own(what: &'static str) -> impl Fn(io::Error) -> CareError {
        move |error| match is_gone(&error) {
            true => CareError::Ended,
            false => CareError::Own { what, error },
        }
    }
}

/// What an error means that came of a stopped task: files of one that lives can be
/// missing for whoever may not see it (`hidepid` of `proc(5)`).
pub(super) fn really(task: i32, error: CareError) -> CareError {
    match error {
        CareError::Ended if ptrace::registers(task).is_ok() => CareError::NoEntry,
        other => other,
    }
}

pub(super) fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH))
}
