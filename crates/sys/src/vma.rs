//! The mappings of a process, as `/proc/PID/maps` and `/proc/PID/smaps` list
//! them. Source: `proc_pid_maps(5)`, `proc_pid_smaps(5)`.
//!
//! Not on the data path: what the kernel did to a map is read back from here
//! after calls whose outcome does not say it.

use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// One mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Its addresses.
    pub range: Range<u64>,
    /// Readable, writable, executable.
    pub access: [bool; 3],
    /// Changes are not seen by others who map the same.
    pub private: bool,
    /// Number of the file, 0 for none.
    pub inode: u64,
    /// Path of the file, or the kernel's name in brackets, or nothing.
    pub name: String,
    /// Locked in memory; known where flags were read.
    pub locked: bool,
    /// Cannot be discarded page by page (huge pages of hugetlbfs, devices); known
    /// where flags were read.
    pub special: bool,
    /// Reads as zeros in a forked child; known where flags were read.
    pub wiped: bool,
    /// Its contents may not be discarded unless it is writable; known where flags
    /// were read.
    pub sealed: bool,
}

impl Mapping {
    /// Private memory that no file stands behind. `/dev/zero` is no file.
    #[must_use]
    pub fn is_private_anonymous(&self) -> bool {
        let kernels = matches!(
            self.name.as_str(),
            "[vdso]" | "[vvar]" | "[vvar_vclock]" | "[vsyscall]" | "[uprobes]"
        );
        self.private && !kernels && (self.inode == 0 || self.name == "/dev/zero")
    }

    /// Whether it is readable, writable and not executable, as the shadow is.
    #[must_use]
    pub fn is_plain_data(&self) -> bool {
        self.access == [true, true, false]
    }
}

/// Shows `visit` the mappings of a process in order, without their flags, by its
/// open `/proc/PID/maps`. Takes no more memory for many.
///
/// # Errors
/// ESRCH when it is gone.
pub fn each(maps: &fs::File, mut visit: impl FnMut(&Mapping)) -> io::Result<()> {
    let mut lines = BufReader::with_capacity(1 << 14, FromStart { file: maps, at: 0 });
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        let text = String::from_utf8_lossy(&line);
        if let Some(mapping) = head(text.trim_end_matches('\n')) {
            visit(&mapping);
        }
        line.clear();
    }
    Ok(())
}

/// All mappings of a process, in order, by its open `/proc/PID/maps`; with their
/// flags by its `smaps`, which is slower.
///
/// # Errors
/// ESRCH when it is gone.
pub fn list(maps: &fs::File) -> io::Result<Vec<Mapping>> {
    let mut text = Vec::new();
    FromStart { file: maps, at: 0 }.read_to_end(&mut text)?;
    Ok(parse(&String::from_utf8_lossy(&text)))
}

/// A file that is read from its start, whoever has read it before.
struct FromStart<'a> {
    file: &'a fs::File,
    at: u64,
}

impl Read for FromStart<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

fn parse(text: &str) -> Vec<Mapping> {
    let mut mappings: Vec<Mapping> = Vec::new();
    for line in text.lines() {
        if let Some(flags) = line.strip_prefix("VmFlags:") {
            if let Some(last) = mappings.last_mut() {
                let has = |flag: &str| flags.split_ascii_whitespace().any(|one| one == flag);
                last.locked = has("lo");
                last.special = has("ht") || has("pf") || has("io");
                last.wiped = has("wf");
                last.sealed = has("sl");
            }
        } else if let Some(mapping) = head(line) {
            mappings.push(mapping);
        }
    }
    mappings
}

/// The line that begins a mapping; other lines of `smaps` have no range.
fn head(line: &str) -> Option<Mapping> {
    let mut rest = line;
    let mut field = || {
        let trimmed = rest.trim_start_matches(' ');
        let end = trimmed.find(' ').unwrap_or(trimmed.len());
        let (field, after) = trimmed.split_at(end);
        rest = after;
        field
    };
    let (start, end) = field().split_once('-')?;
    let range = u64::from_str_radix(start, 16).ok()?..u64::from_str_radix(end, 16).ok()?;
    let flags = field().as_bytes();
    let (_offset, _device) = (field(), field());
    let inode = field().parse().ok()?;
    Some(Mapping {
        range,
        access: [
            flags.first() == Some(&b'r'),
            flags.get(1) == Some(&b'w'),
            flags.get(2) == Some(&b'x'),
        ],
        private: flags.get(3) == Some(&b'p'),
        inode,
        name: rest.trim_start_matches(' ').to_owned(),
        locked: false,
        special: false,
        wiped: false,
        sealed: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_all_kinds_are_told_apart() {
        let text = "\
55d0-55e0 r-xp 00001000 08:01 77                         /usr/bin/a b
VmFlags: rd ex mr mw me
7ffc0000-7ffd0000 rw-p 00000000 00:00 0                  [stack]
Size:                132 kB
VmFlags: rd wr lo ac
7f00-8f00 rw-s 00000000 00:01 12                         /dev/zero (deleted)
9f00-af00 rw-p 00000000 00:05 4                          /dev/zero
b000-c000 ---p 00000000 00:00 0
d000-e000 rw-p 00000000 00:00 0                          [anon:name]
f000-ff00 r--p 00000000 00:00 0                          [vvar]
nonsense
";
        let found = parse(text);
        let anonymous: Vec<bool> = found.iter().map(Mapping::is_private_anonymous).collect();
        assert_eq!(anonymous, [false, true, false, true, true, true, false]);
        assert_eq!(found[0].name, "/usr/bin/a b");
        assert_eq!(found[0].access, [true, false, true]);
        assert_eq!((found[1].locked, found[2].locked), (true, false));
        assert!(found[1].is_plain_data() && !found[4].is_plain_data());
    }

    #[test]
    fn our_own_stack_is_found() {
        let here = 0u8;
        let address = &raw const here as u64;
        let smaps = fs::File::open("/proc/self/smaps").expect("our own map");
        let mappings = list(&smaps).expect("our own map");
        let stack = mappings.iter().find(|one| one.range.contains(&address));
        assert!(stack.expect("it is mapped").is_plain_data());
    }
}
