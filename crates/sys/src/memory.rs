//! Requests to the kernel about memory of our own.
//!
//! Not on the data path. Sources: `madvise(2)`, `mallopt(3)`.

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
