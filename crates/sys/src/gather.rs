//! One write of bytes that lie apart in memory and together in a file (pwritev(2)).
//!
//! Stage on the data path: under the disk tier, where there is no ring.
//!
//! Does not go on after a short write: that is the caller's to judge.

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;

/// Writes the pieces one behind the other, from this byte of the file on, and says
/// how many bytes went.
///
/// # Errors
/// What `pwritev` says.
pub fn write_at(file: &File, pieces: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
    let offset = libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    let count = libc::c_int::try_from(pieces.len()).unwrap_or(libc::c_int::MAX);
    // SAFETY: a slice of bytes is laid out as iovec(3) is, the list is as long as
    // is said, and the kernel only reads what it names.
    let written = unsafe { libc::pwritev(file.as_raw_fd(), pieces.as_ptr().cast(), count, offset) };
    usize::try_from(written).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;
    use std::path::Path;

    #[test]
    fn pieces_lie_one_behind_the_other() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR"));
        let file = crate::swapfile::open(directory, false).unwrap().file;
        let pieces = [
            IoSlice::new(b"one"),
            IoSlice::new(b""),
            IoSlice::new(b"two"),
        ];
        assert_eq!(write_at(&file, &pieces, 5).unwrap(), 6);
        let mut read = [0; 11];
        file.read_exact_at(&mut read, 0).unwrap();
        assert_eq!(&read, b"\0\0\0\0\0onetwo");
        assert!(write_at(&file, &pieces, u64::MAX).is_err());
    }
}
