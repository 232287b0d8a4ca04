//! Requests to the kernel about memory of our own.
//!
//! Not on the data path. Sources: `madvise(2)`, `mallopt(3)`, `mremap(2)`.

use std::io;

use crate::fd::check;

/// Asks the kernel to move `items` out of RAM, to swap, at once. Their content
/// stays what it is; what lies in the same pages beside them goes along.
///
/// # Errors
/// EINVAL before Linux 5.4.
pub fn page_out<T>(items: &[T]) -> io::Result<()> {
    let first = items.as_ptr() as usize;
    let start = first / 4096 * 4096;
    let end = (first + size_of_val(items)).next_multiple_of(4096);
    // SAFETY: the advice changes where pages are kept, not what they hold.
    let result =
        unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_PAGEOUT) };
    check(result.into()).map(|_| ())
}

/// Has the allocator give blocks of 128 KiB and more back to the system as soon
/// as they are freed. Left alone, the GNU library raises that limit to the size
/// of the largest block that was ever freed, and keeps what is smaller.
pub fn return_freed_blocks() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes two integers; no allocation is under way in this thread.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 128 << 10);
    }
}

/// Whether this kernel knows memory that it may drop at any time.
#[must_use]
pub fn has_droppable() -> bool {
    const MAP_DROPPABLE: i32 = 8;
    let null = std::ptr::null_mut();
    let flags = MAP_DROPPABLE | libc::MAP_ANONYMOUS;
    // SAFETY: new memory, at a place that the kernel chooses.
    let page = unsafe { libc::mmap(null, 4096, libc::PROT_NONE, flags, -1, 0) };
    if page == libc::MAP_FAILED {
        return false;
    }
    // SAFETY: our new memory, to which nobody refers.
    unsafe { libc::munmap(page, 4096) };
    true
}

/// Whether this kernel moves several mappings by one `mremap(2)`, tried on two pages of
/// ours.
#[must_use]
pub fn moves_several_mappings() -> bool {
    const PAGE: usize = 4096;
    let anonymous = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let null = std::ptr::null_mut();
    // SAFETY: new memory, at a place that the kernel chooses.
    let area = unsafe { libc::mmap(null, 4 * PAGE, libc::PROT_NONE, anonymous, -1, 0) };
    if area == libc::MAP_FAILED {
        return false;
    }
    let target = area.wrapping_byte_add(2 * PAGE);
    // SAFETY: the first page of our new memory, which then is a mapping of its own.
    let split = unsafe { libc::mprotect(area, PAGE, libc::PROT_READ) } == 0;
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    // SAFETY: both ranges are our new memory, to which nobody refers.
    let moved = unsafe { libc::mremap(area, 2 * PAGE, 2 * PAGE, flags, target) };
    // SAFETY: as above; where it has moved there is a hole.
    unsafe { libc::munmap(target, 2 * PAGE) };
    if moved == libc::MAP_FAILED {
        // SAFETY: as above; it lies where it did, since it did not move.
        unsafe { libc::munmap(area, 2 * PAGE) };
    }
    split && moved == target
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_paged_out_keeps_its_content() {
        let bytes: Vec<u8> = (0..1 << 20).map(|n| (n * 7 % 251) as u8).collect();
        page_out(&bytes).expect("the kernel takes the advice");
        assert!(
            bytes
                .iter()
                .enumerate()
                .all(|(n, byte)| *byte == (n * 7 % 251) as u8)
        );
    }
}
