//! Why a target could not be measured, and what to do about it.

use std::path::PathBuf;
use std::{fmt, io};

/// See the module's description.
#[derive(Debug)]
pub enum MeasureError {
    /// There is no process with this number.
    NoProcess {
        /// Its number.
        pid: i32,
    },
    /// The process belongs to the kernel and has no memory of its own.
    KernelThread {
        /// Its number.
        pid: i32,
        /// Its name.
        name: String,
    },
    /// The process has ended and waits for its parent; its memory is gone.
    Zombie {
        /// Its number.
        pid: i32,
        /// Its name.
        name: String,
    },
    /// The system does not let this user read that process.
    Forbidden {
        /// Its number.
        pid: i32,
        /// Its name.
        name: String,
        /// What the kernel said.
        error: io::Error,
    },
    /// The process has no anonymous pages in RAM.
    NothingResident {
        /// Its number.
        pid: i32,
        /// Its name.
        name: String,
        /// Its pages in the kernel's swap.
        swapped_pages: u64,
    },
    /// All chosen pages went away before they were read.
    Vanished {
        /// The target as the user named it.
        name: String,
        /// How many were chosen.
        chosen_pages: u64,
    },
    /// The kernel lacks `PAGEMAP_SCAN`, or refused it.
    Scan {
        /// The process.
        pid: i32,
        /// What the kernel said.
        error: io::Error,
    },
    /// A file could not be opened or read.
    File {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// The file is no regular file and no block device.
    NotAFile {
        /// What was named.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// The file has no bytes.
    EmptyFile {
        /// The file.
        path: PathBuf,
    },
    /// The store that the sample was put into did not take or keep a page: a
    /// fault of zcache's own.
    Store {
        /// What it said.
        said: String,
    },
}

impl fmt::Display for MeasureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MeasureError::NoProcess { pid } => write!(
                f,
                "there is no process {pid}; a file of that name is written ./{pid}"
            ),
            MeasureError::KernelThread { pid, name } => write!(
                f,
                "process {pid} ({name}) is a thread of the kernel, which has no memory of its own; \
                 name a program's process"
            ),
            MeasureError::Zombie { pid, name } => write!(
                f,
                "process {pid} ({name}) has ended and waits for its parent; its memory is gone"
            ),
            MeasureError::Forbidden { pid, name, error } => write!(
                f,
                "the memory of process {pid} ({name}) cannot be read ({error}); run as root or with \
                 CAP_SYS_PTRACE, or for processes of your own set kernel.yama.ptrace_scope=0"
            ),
            MeasureError::NothingResident {
                pid,
                name,
                swapped_pages,
            } => {
                write!(
                    f,
                    "process {pid} ({name}) has no anonymous page in RAM to sample"
                )?;
                match swapped_pages {
                    0 => Ok(()),
                    pages => write!(f, "; {pages} pages are in the kernel's swap"),
                }
            }
            MeasureError::Vanished { name, chosen_pages } => write!(
                f,
                "{name}: all {chosen_pages} pages that were chosen went away before they were read; \
                 the process ended or gave its memory back, so name one that goes on running"
            ),
            MeasureError::Scan { pid, error } => write!(
                f,
                "the pages of process {pid} cannot be listed ({error}); this needs Linux 6.7 or later"
            ),
            MeasureError::File { path, error } => write!(f, "{}: {error}", path.display()),
            MeasureError::NotAFile { path, what } => write!(
                f,
                "{} is {what}; name a file, a disk or the number of a process",
                path.display()
            ),
            MeasureError::EmptyFile { path } => {
                write!(
                    f,
                    "{} is empty; there is nothing to measure",
                    path.display()
                )
            }
            MeasureError::Store { said } => {
                write!(f, "zcache's own store failed with the sample: {said}")
            }
        }
    }
}

impl std::error::Error for MeasureError {}
