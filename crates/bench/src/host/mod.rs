//! What a comparison changes on the machine: cgroups, swap devices, network namespaces, zswap settings.
//!
//! Everything is undone, whatever ends the run: each change is written to the journal of [`Undo`]
//! before it is made, the journal is undone when it goes out of scope, and `zcache-bench cleanup`
//! (or the next `compare`) undoes what a killed run left. Invariant: journal empty == machine as it
//! was. It needs root.

mod cgroup;
mod cpu;
mod files;
mod machine;
mod namespace;
mod process;
mod swap;
mod throttle;
mod undo;
mod zswap;

pub(crate) use cgroup::{Cgroup, Controller, Version};
pub(crate) use machine::Machine;
pub(crate) use namespace::Namespace;
pub(crate) use process::{End, Ended, Interrupt, run, run_alone};
pub(crate) use swap::{SwapFile, Zram};
pub(crate) use throttle::Throttle;
pub(crate) use undo::Undo;
pub(crate) use zswap::{Zswap, turn_off as turn_zswap_off};

use std::fmt;
use std::path::{Path, PathBuf};

/// Why the machine could not be set up or measured.
#[derive(Debug)]
pub(crate) enum HostError {
    /// A file could not be read or written.
    File {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A file holds something else than expected.
    Format {
        /// The file.
        path: PathBuf,
        /// Its content.
        content: String,
    },
    /// A command could not be started or failed.
    Command {
        /// The command line.
        line: String,
        /// Its exit status or why it did not start, and what it said.
        detail: String,
    },
    /// This kernel does not have what a contender needs.
    Missing {
        /// What is missing and how to get it.
        what: &'static str,
    },
    /// Another comparison runs.
    Busy {
        /// Its journal.
        journal: PathBuf,
    },
    /// Ctrl-C or a request to terminate.
    Interrupted,
}

impl HostError {
    /// What to make of an error of a file.
    pub(crate) fn file(path: &Path) -> impl FnOnce(std::io::Error) -> HostError {
        move |source| HostError::File {
            path: path.to_owned(),
            source,
        }
    }
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostError::File { path, source } => {
                write!(f, "{}: {source}", path.display())?;
                match source.kind() {
                    std::io::ErrorKind::PermissionDenied => write!(f, " (this needs root)"),
                    _ => Ok(()),
                }
            }
            HostError::Format { path, content } => {
                write!(
                    f,
                    "{} holds {content:?}, which this program does not know",
                    path.display()
                )
            }
            HostError::Command { line, detail } => write!(f, "{line}: {detail}"),
            HostError::Missing { what } => write!(f, "{what}"),
            HostError::Busy { journal } => {
                write!(
                    f,
                    "another comparison runs (it holds {})",
                    journal.display()
                )
            }
            HostError::Interrupted => write!(f, "interrupted"),
        }
    }
}

impl std::error::Error for HostError {}

/// A field of `/proc/PID/status` that is in kB, in bytes.
///
/// # Errors
/// [`HostError::File`] when the process is gone, [`HostError::Format`] when it has no such field.
pub(crate) fn status_bytes(pid: u32, field: &str) -> Result<u64, HostError> {
    let path = PathBuf::from(format!("/proc/{pid}/status"));
    files::read_field(&path, field).map(|kib| kib << 10)
}
