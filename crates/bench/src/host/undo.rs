//! The journal of changes to the machine, and their undoing.
//!
//! One line an entry, appended before the change is made, so that a journal found later names at
//! least everything that was changed; every undo is a success when there is nothing left to undo.
//! Entries are undone in reverse order. The journal file is locked: one comparison at a time.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::{HostError, cgroup, files, namespace, swap};

/// Where the journal lies: gone after a boot, as the changes are (only swap files stay).
const JOURNAL: &str = "/run/zcache-bench.undo";

/// How often an undo that finds its object busy is tried again, 50 ms apart.
const TRIES_MAX: u32 = 40;

/// A change that can be undone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// Swapping to a device or file was turned on.
    Swap(PathBuf),
    /// A zram device was added.
    Zram(u32),
    /// A file was created.
    File(PathBuf),
    /// A cgroup was created.
    Cgroup(PathBuf),
    /// A network namespace was made.
    Namespace(String),
    /// A kernel setting was changed; this was its value.
    Setting(PathBuf, String),
}

impl Entry {
    fn line(&self) -> String {
        match self {
            Entry::Swap(path) => format!("swap\t{}", path.display()),
            Entry::Zram(number) => format!("zram\t{number}"),
            Entry::File(path) => format!("file\t{}", path.display()),
            Entry::Cgroup(path) => format!("cgroup\t{}", path.display()),
            Entry::Namespace(name) => format!("namespace\t{name}"),
            Entry::Setting(path, value) => format!("setting\t{}\t{value}", path.display()),
        }
    }

    /// The entry of a line; a line torn by a crash has none.
    fn parse(line: &str) -> Option<Entry> {
        let (kind, rest) = line.split_once('\t')?;
        match kind {
            "swap" => Some(Entry::Swap(rest.into())),
            "zram" => Some(Entry::Zram(rest.parse().ok()?)),
            "file" => Some(Entry::File(rest.into())),
            "cgroup" => Some(Entry::Cgroup(rest.into())),
            "namespace" => Some(Entry::Namespace(rest.to_owned())),
            "setting" => {
                let (path, value) = rest.split_once('\t')?;
                Some(Entry::Setting(path.into(), value.to_owned()))
            }
            _ => None,
        }
    }

    fn undo(&self) -> Result<(), HostError> {
        match self {
            Entry::Swap(path) => swap::turn_off(path),
            Entry::Zram(number) => swap::remove_zram(*number),
            Entry::Cgroup(path) => cgroup::remove(path),
            Entry::Namespace(name) => namespace::remove(name),
            Entry::Setting(path, value) => files::write(path, value),
            Entry::File(path) => match std::fs::remove_file(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Err(HostError::file(path)(error))
                }
                _ => Ok(()),
            },
        }
    }
}

/// The open journal. Dropping it undoes everything in it.
pub(crate) struct Undo {
    file: Flock<File>,
    entries: Vec<Entry>,
}

impl Undo {
    /// Opens the journal, alone, and undoes what an earlier run left.
    ///
    /// # Errors
    /// [`HostError::Busy`] while another comparison runs; [`HostError::File`] without root.
    pub(crate) fn open() -> Result<Undo, HostError> {
        let path = Path::new(JOURNAL);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(HostError::file(path))?;
        let mut file = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(
            |(_, errno)| match errno {
                Errno::EWOULDBLOCK => HostError::Busy {
                    journal: path.to_owned(),
                },
                errno => HostError::file(path)(errno.into()),
            },
        )?;
        let mut content = String::new();
        file.read_to_string(&mut content)
            .map_err(HostError::file(path))?;
        let entries: Vec<Entry> = content.lines().filter_map(Entry::parse).collect();
        let mut undo = Undo { file, entries };
        if !undo.entries.is_empty() {
            eprintln!("undoing what an interrupted comparison left");
            undo.undo_to(0);
        }
        Ok(undo)
    }

    /// Notes a change that is about to be made.
    ///
    /// # Errors
    /// [`HostError::File`]; then the change must not be made.
    pub(super) fn note(&mut self, entry: Entry) -> Result<(), HostError> {
        writeln!(self.file, "{}", entry.line()).map_err(HostError::file(Path::new(JOURNAL)))?;
        self.entries.push(entry);
        Ok(())
    }

    /// A place in the journal to undo back to.
    pub(crate) fn mark(&self) -> usize {
        self.entries.len()
    }

    /// Undoes everything after a mark, newest first. What cannot be undone is printed and stays in
    /// the journal file for `cleanup`.
    pub(crate) fn undo_to(&mut self, mark: usize) {
        let mut failed = Vec::new();
        while self.entries.len() > mark {
            let Some(entry) = self.entries.pop() else {
                break;
            };
            if let Err(error) = patiently(&entry) {
                eprintln!("cannot undo {:?}: {error}", entry.line());
                failed.push(entry);
            }
        }
        let left = self.entries.iter().chain(failed.iter().rev());
        let lines: String = left.map(|entry| entry.line() + "\n").collect();
        if let Err(error) = rewrite(&mut self.file, &lines) {
            eprintln!("{JOURNAL}: {error}");
        }
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        self.undo_to(0);
    }
}

fn patiently(entry: &Entry) -> Result<(), HostError> {
    for _ in 1..TRIES_MAX {
        if entry.undo().is_ok() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    entry.undo()
}

fn rewrite(file: &mut File, lines: &str) -> std::io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(lines.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_back_as_written() {
        for entry in [
            Entry::Swap("/dev/zram1".into()),
            Entry::Zram(3),
            Entry::File("/var/tmp/a b".into()),
            Entry::Cgroup("/sys/fs/cgroup/memory/x".into()),
            Entry::Namespace("zcache-bench".into()),
            Entry::Setting("/sys/module/zswap/parameters/enabled".into(), "N".into()),
        ] {
            assert_eq!(Entry::parse(&entry.line()), Some(entry));
        }
        assert_eq!(Entry::parse("setting\t/sys"), None);
        assert_eq!(Entry::parse(""), None);
    }
}
