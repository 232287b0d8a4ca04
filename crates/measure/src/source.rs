//! What can be measured: a process's anonymous pages or a file's. Both are
//! ranges of a file that the kernel offers (`/proc/PID/mem` or the file itself).
//!
//! Does not choose or read pages.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use zcache::PAGE_SIZE;

use crate::error::MeasureError;
use crate::process;

/// What the user named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A process by its number.
    Process(i32),
    /// A file by its path.
    File(PathBuf),
}

impl Target {
    /// A number is a process, everything else a file; `./12` is the file.
    #[must_use]
    pub fn parse(text: &OsStr) -> Target {
        match text.to_str().map(str::parse) {
            Some(Ok(pid)) if pid > 0 => Target::Process(pid),
            _ => Target::File(text.into()),
        }
    }
}

/// What a source is, with what only that kind has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A live process.
    Process {
        /// Its number.
        pid: i32,
        /// Anonymous pages in the kernel's swap.
        swapped_pages: u64,
        /// Private pages of files that the process has written, which
        /// `zcache run` cannot page.
        unpageable_pages: u64,
        /// It runs under `zcache run`, so that some of its pages may be in a
        /// store and out of sight.
        under_zcache: bool,
    },
    /// A file.
    File {
        /// Its length.
        bytes: u64,
    },
}

/// The pages of one target: where they are, in order.
#[derive(Debug)]
pub struct Source {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) file: File,
    /// In bytes of `file`. Ascending, of whole pages, without overlap.
    pub(crate) ranges: Vec<Range<u64>>,
}

impl Source {
    /// Finds the pages of a target.
    ///
    /// # Errors
    /// [`MeasureError`] names what hinders and what helps.
    pub fn open(target: &Target) -> Result<Source, MeasureError> {
        match target {
            Target::Process(pid) => process::open(*pid),
            Target::File(path) => open_file(path),
        }
    }

    /// The target in words: the file's path or the process's name and number.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the target is.
    #[must_use]
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// How many pages can be read.
    #[must_use]
    pub fn pages(&self) -> u64 {
        let bytes = |range: &Range<u64>| range.end - range.start;
        self.ranges.iter().map(bytes).sum::<u64>() / PAGE_SIZE as u64
    }
}

fn open_file(path: &Path) -> Result<Source, MeasureError> {
    let failed = |error| MeasureError::File {
        path: path.to_owned(),
        error,
    };
    let kind = fs::metadata(path).map_err(failed)?.file_type();
    // Before it is opened: opening a pipe waits for its other end.
    let what = match kind {
        kind if kind.is_file() || kind.is_block_device() => None,
        kind if kind.is_dir() => Some("a directory"),
        kind if kind.is_fifo() => Some("a pipe"),
        kind if kind.is_socket() => Some("a socket"),
        _ => Some("a device"),
    };
    if let Some(what) = what {
        return Err(MeasureError::NotAFile {
            path: path.to_owned(),
            what,
        });
    }
    let mut file = File::open(path).map_err(failed)?;
    // The length of a disk is where its end is.
    let bytes = file.seek(SeekFrom::End(0)).map_err(failed)?;
    if bytes == 0 {
        return Err(MeasureError::EmptyFile {
            path: path.to_owned(),
        });
    }
    Ok(Source {
        name: path.display().to_string(),
        kind: Kind::File { bytes },
        file,
        ranges: std::iter::once(0..bytes.next_multiple_of(PAGE_SIZE as u64)).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_processes_and_the_rest_are_files() {
        for (text, target) in [
            ("12", Target::Process(12)),
            ("./12", Target::File("./12".into())),
            ("0", Target::File("0".into())),
            ("-5", Target::File("-5".into())),
            ("99999999999", Target::File("99999999999".into())),
            ("1.bin", Target::File("1.bin".into())),
        ] {
            assert_eq!(Target::parse(OsStr::new(text)), target, "{text}");
        }
    }

    #[test]
    fn what_is_no_file_is_named() {
        for (path, word) in [
            ("/", "directory"),
            ("/dev/null", "device"),
            ("/nonexistent", "No such file"),
        ] {
            let error = Source::open(&Target::File(path.into())).expect_err(path);
            let said = error.to_string();
            assert!(said.contains(path) && said.contains(word), "{said}");
        }
    }
}
