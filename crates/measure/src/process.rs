//! The anonymous pages of a live process that are in RAM: those that
//! `zcache run` would page.
//!
//! `/proc/PID/maps` says which mappings are private and of no file,
//! `PAGEMAP_SCAN` which of their pages are in RAM, and `/proc/PID/mem` is where
//! they are read. All three are taken for reading only; the process runs on.
//!
//! Does not follow what the process does meanwhile: a page that went away is
//! noticed when it is read.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::path::Path;

use zcache::PAGE_SIZE;
use zcache_sys::pagemap::{self, Region};

use crate::error::MeasureError;
use crate::source::{Kind, Source};

/// Regions of one scan.
const REGIONS: usize = 1024;

/// What `/proc/PID/status` says.
#[derive(Debug, PartialEq, Eq)]
struct Status {
    name: String,
    zombie: bool,
    has_memory: bool,
    tracer: i32,
}

/// How a mapping's pages count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// Its anonymous pages can be paged.
    Anonymous,
    /// Private pages of a file: anonymous once they are written, but not
    /// pageable.
    PrivateFile,
}

#[derive(Default)]
struct Pages {
    ranges: Vec<Range<u64>>,
    swapped: u64,
    unpageable: u64,
}

/// Finds the pages of a process.
pub(crate) fn open(pid: i32) -> Result<Source, MeasureError> {
    let folder = format!("/proc/{pid}");
    let folder = Path::new(&folder);
    let Ok(status) = fs::read_to_string(folder.join("status")) else {
        return Err(MeasureError::NoProcess { pid });
    };
    let status = Status::parse(&status);
    let name = status.name.clone();
    if status.zombie {
        return Err(MeasureError::Zombie { pid, name });
    }
    if !status.has_memory {
        return Err(MeasureError::KernelThread { pid, name });
    }
    let refused = |error: io::Error| match error.raw_os_error() {
        Some(libc::ENOENT | libc::ESRCH) => MeasureError::NoProcess { pid },
        _ => MeasureError::Forbidden {
            pid,
            name: name.clone(),
            error,
        },
    };
    let memory = File::open(folder.join("mem")).map_err(refused)?;
    let pagemap = File::open(folder.join("pagemap")).map_err(refused)?;
    let maps = fs::read_to_string(folder.join("maps")).map_err(refused)?;
    let pages = find(&pagemap, &maps).map_err(|error| match error.raw_os_error() {
        Some(libc::ESRCH) => MeasureError::NoProcess { pid },
        _ => MeasureError::Scan { pid, error },
    })?;
    if pages.ranges.is_empty() {
        return Err(MeasureError::NothingResident {
            pid,
            name,
            swapped_pages: pages.swapped,
        });
    }
    Ok(Source {
        name: format!("{name} ({pid})"),
        kind: Kind::Process {
            pid,
            swapped_pages: pages.swapped,
            unpageable_pages: pages.unpageable,
            under_zcache: is_zcache(status.tracer),
        },
        file: memory,
        ranges: pages.ranges,
    })
}

fn find(pagemap: &File, maps: &str) -> io::Result<Pages> {
    let mut pages = Pages::default();
    let mut regions = vec![Region::default(); REGIONS];
    for (range, usage) in maps.lines().filter_map(mapping) {
        let mut at = range.start;
        while at < range.end {
            let (found, end) = pagemap::scan(pagemap.as_fd(), at..range.end, &mut regions)?;
            for region in &regions[..found] {
                pages.add(region, usage);
            }
            // A walk that gets nowhere would not get further the next time.
            if end <= at {
                break;
            }
            at = end;
        }
    }
    Ok(pages)
}

impl Pages {
    fn add(&mut self, region: &Region, usage: Use) {
        let count = (region.end - region.start) / PAGE_SIZE as u64;
        if region.kinds & (pagemap::FILE | pagemap::ZERO) != 0 {
            return;
        }
        match (usage, region.kinds & pagemap::PRESENT != 0) {
            (Use::Anonymous, true) => self.extend(region.start..region.end),
            (Use::Anonymous, false) => self.swapped += count,
            (Use::PrivateFile, _) => self.unpageable += count,
        }
    }

    fn extend(&mut self, range: Range<u64>) {
        match self.ranges.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => self.ranges.push(range),
        }
    }
}

/// The range and the use of a line of `/proc/PID/maps`; none for mappings that
/// are shared or belong to the kernel.
fn mapping(line: &str) -> Option<(Range<u64>, Use)> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let start = u64::from_str_radix(start, 16).ok()?;
    let end = u64::from_str_radix(end, 16).ok()?;
    let private = words.next()?.ends_with('p');
    let inode: u64 = words.nth(2)?.parse().ok()?;
    let name = words.next().unwrap_or("");
    // [vdso], [vvar] and the like are the kernel's own.
    let special = name.starts_with("[v") || name == "[uprobes]";
    if !private || special || start >= end {
        return None;
    }
    let usage = match inode {
        0 => Use::Anonymous,
        _ => Use::PrivateFile,
    };
    Some((start..end, usage))
}

impl Status {
    fn parse(text: &str) -> Status {
        let field = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name));
            value.map(str::trim)
        };
        Status {
            name: field("Name:").unwrap_or("?").to_owned(),
            zombie: field("State:").is_some_and(|state| state.starts_with(['Z', 'X'])),
            has_memory: field("VmSize:").is_some(),
            tracer: field("TracerPid:")
                .and_then(|pid| pid.parse().ok())
                .unwrap_or(0),
        }
    }
}

/// Whether this process is the pager of a `zcache run`, which traces the
/// programs that it cares for.
fn is_zcache(pid: i32) -> bool {
    if pid == 0 {
        return false;
    }
    let name = fs::read_to_string(format!("/proc/{pid}/comm"));
    name.is_ok_and(|name| name.trim() == "zcache")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_count_by_what_they_are() {
        let range = 0x7f00_0000_1000..0x7f00_0000_3000;
        let line = |rest: &str| mapping(&format!("7f0000001000-7f0000003000 {rest}"));
        for name in ["", "[heap]", "[stack]", "[anon: v8]"] {
            let found = line(&format!("rw-p 00000000 00:00 0 {name}"));
            assert_eq!(found, Some((range.clone(), Use::Anonymous)), "{name}");
        }
        let found = line("rw-p 00002000 fd:01 131 /usr/lib/libc.so.6");
        assert_eq!(found, Some((range, Use::PrivateFile)));
        assert_eq!(line("rw-s 00000000 00:01 14 /dev/zero (deleted)"), None);
        assert_eq!(line("r-xp 00000000 00:00 0 [vdso]"), None);
        for broken in [
            "",
            "nonsense",
            "1-2",
            "2-1 rw-p 0 0:0 0",
            "zz-1 rw-p 0 0:0 0",
        ] {
            assert_eq!(mapping(broken), None, "{broken}");
        }
    }

    #[test]
    fn a_status_tells_the_living_from_the_rest() {
        let text = "Name:\tpython3\nState:\tS (sleeping)\nTracerPid:\t7\nVmSize:\t  4 kB\n";
        let status = Status::parse(text);
        assert_eq!((status.zombie, status.has_memory), (false, true));
        assert_eq!((status.name.as_str(), status.tracer), ("python3", 7));
        let status = Status::parse("Name:\tx\nState:\tZ (zombie)\n");
        assert!(status.zombie && !status.has_memory);
    }

    #[test]
    fn this_process_has_pages() {
        let pid = std::process::id().cast_signed();
        let source = open(pid).expect("one may read oneself");
        assert!(source.pages() > 10);
        assert!(source.ranges.is_sorted_by(|a, b| a.end < b.start));
    }
}
