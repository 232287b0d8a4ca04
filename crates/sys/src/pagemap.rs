//! Which pages of a process are in RAM, and of what kind, by `PAGEMAP_SCAN`.
//!
//! Not on the data path: for sampling. Sources: `pagemap.rst` in the kernel's
//! documentation and `linux/fs.h`; Linux 6.7 and later. A scan reads the page
//! tables under the process's lock for reading: it stops nobody, and faults
//! nothing in.
//!
//! What it does not do: read pages.

use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::fd::check;

/// The page belongs to a file or to shared memory.
pub const FILE: u64 = 1 << 2;
/// The page is in RAM.
pub const PRESENT: u64 = 1 << 3;
/// The page is in the kernel's swap.
pub const SWAPPED: u64 = 1 << 4;
/// The page is the one page of zeros that all processes share.
pub const ZERO: u64 = 1 << 5;
/// There is no page, but a guard, which counts as swapped.
const GUARD: u64 = 1 << 8;

/// `_IOWR('f', 16, struct pm_scan_arg)`.
const PAGEMAP_SCAN: libc::c_ulong = 0xc060_6610;

/// `struct pm_scan_arg`.
#[repr(C)]
struct ScanArgs {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    regions: u64,
    regions_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

const _: () = assert!(size_of::<ScanArgs>() == 96);

/// Neighbouring pages of one kind (`struct page_region`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Region {
    /// Address of the first byte.
    pub start: u64,
    /// Address behind the last byte.
    pub end: u64,
    /// [`FILE`], [`PRESENT`], [`SWAPPED`], [`ZERO`], or-ed.
    pub kinds: u64,
}

/// Finds the pages in `range` that are in RAM or in swap, as many regions of
/// them as fit into `regions`; returns how many these are and the address up to
/// which the range was looked at. Guards are no pages; Linux 6.13 and 6.14, which have
/// guards and do not tell them, show them as swapped.
///
/// `pagemap` is an open `/proc/PID/pagemap`.
///
/// # Errors
/// ENOTTY before Linux 6.7; EINVAL when the range is not of whole pages.
pub fn scan(
    pagemap: BorrowedFd<'_>,
    range: Range<u64>,
    regions: &mut [Region],
) -> io::Result<(usize, u64)> {
    match scan_but(GUARD, pagemap, range.clone(), regions) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            scan_but(0, pagemap, range, regions)
        }
        other => other,
    }
}

/// The same without what is of these kinds.
fn scan_but(
    kinds: u64,
    pagemap: BorrowedFd<'_>,
    range: Range<u64>,
    regions: &mut [Region],
) -> io::Result<(usize, u64)> {
    let mut args = ScanArgs {
        size: size_of::<ScanArgs>() as u64,
        flags: 0,
        start: range.start,
        end: range.end,
        walk_end: 0,
        regions: regions.as_mut_ptr() as u64,
        regions_len: regions.len() as u64,
        max_pages: 0,
        category_inverted: kinds,
        category_mask: kinds,
        category_anyof_mask: PRESENT | SWAPPED,
        return_mask: FILE | PRESENT | SWAPPED | ZERO,
    };
    // SAFETY: the kernel writes at most `regions_len` regions into a live slice,
    // of which every bit pattern is valid, and `walk_end` into the arguments.
    let found = unsafe { libc::ioctl(pagemap.as_raw_fd(), PAGEMAP_SCAN, &raw mut args) };
    let found = check(found.into())?;
    Ok((found as usize, args.walk_end))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_written_page_is_in_ram_and_of_no_file() {
        let pagemap = File::open("/proc/self/pagemap").expect("a page map of our own");
        let memory = vec![7u8; 64 << 12];
        let start = (memory.as_ptr() as u64).next_multiple_of(4096);
        let range = start..start + (32 << 12);
        let mut regions = [Region::default(); 4];
        let (found, end) = scan(pagemap.as_fd(), range.clone(), &mut regions).expect("a scan");
        assert_eq!((found, end), (1, range.end));
        assert_eq!(regions[0].start..regions[0].end, range);
        assert_eq!(regions[0].kinds, PRESENT);
    }

    #[test]
    fn guards_are_no_pages() {
        const MADV_GUARD_INSTALL: i32 = 102;
        let pagemap = File::open("/proc/self/pagemap").expect("a page map of our own");
        let memory = vec![7u8; 64 << 12];
        let start = (memory.as_ptr() as u64).next_multiple_of(4096);
        let at = start + (8 << 12);
        // SAFETY: pages of our own memory that nobody reads until they are freed, which
        // unmaps them, since they are many; and the guards are removed before.
        let set = unsafe { libc::madvise(at as *mut _, 4 << 12, MADV_GUARD_INSTALL) };
        let mut regions = [Region::default(); 4];
        let range = start..start + (32 << 12);
        let found = scan(pagemap.as_fd(), range, &mut regions);
        // SAFETY: as above.
        unsafe { libc::madvise(at as *mut _, 4 << 12, MADV_GUARD_INSTALL + 1) };
        if set == 0 {
            assert_eq!(found.expect("a scan").0, 2);
        }
    }

    #[test]
    fn what_is_not_mapped_has_no_pages() {
        let pagemap = File::open("/proc/self/pagemap").expect("a page map of our own");
        let mut regions = [Region::default(); 4];
        let found = scan(pagemap.as_fd(), 0..4096, &mut regions);
        assert_eq!(found.expect("a scan").0, 0);
        assert!(scan(pagemap.as_fd(), 1..4096, &mut regions).is_err());
    }
}
