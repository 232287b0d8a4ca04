//! Memory shared with another process: only ever touched by atomics and copies.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64};

use crate::fd::{adopt, check};

/// A shared mapping of a memfd (or of nothing, to share with children).
#[derive(Debug)]
pub struct SharedMap {
    base: *mut u8,
    len: usize,
}

// SAFETY: the mapping is only reached through atomics.
unsafe impl Send for SharedMap {}
// SAFETY: the mapping is only reached through atomics.
unsafe impl Sync for SharedMap {}

impl SharedMap {
    /// Maps the first `len` bytes of `fd`, or fresh memory shared with future
    /// children when there is none.
    ///
    /// # Errors
    /// Whatever `mmap(2)` reports.
    pub fn new(fd: Option<&OwnedFd>, len: usize) -> io::Result<SharedMap> {
        let (number, flags) = match fd {
            Some(fd) => (fd.as_raw_fd(), libc::MAP_SHARED),
            None => (-1, libc::MAP_SHARED | libc::MAP_ANONYMOUS),
        };
        // SAFETY: a new mapping at a place of the kernel's choice.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                flags,
                number,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(SharedMap {
            base: base.cast(),
            len,
        })
    }

    fn at<T>(&self, offset: usize) -> &T {
        let size = size_of::<T>();
        assert!(offset.is_multiple_of(size) && offset + size <= self.len);
        // SAFETY: in bounds by the assertion.
        let pointer = unsafe { self.base.add(offset) }.cast::<T>();
        // SAFETY: aligned (the base is page-aligned), mapped for the life of
        // self, and T is an atomic, so that writes from outside are allowed.
        unsafe { &*pointer }
    }

    /// The 32-bit word at byte `offset` (a multiple of 4).
    ///
    /// # Panics
    /// When the offset is out of bounds or unaligned.
    #[must_use]
    pub fn word(&self, offset: usize) -> &AtomicU32 {
        self.at(offset)
    }

    /// The signed 32-bit word at byte `offset`; panics as [`Self::word`].
    #[must_use]
    pub fn signed(&self, offset: usize) -> &AtomicI32 {
        self.at(offset)
    }

    /// The 64-bit word at byte `offset` (a multiple of 8); panics as [`Self::word`].
    #[must_use]
    pub fn quad(&self, offset: usize) -> &AtomicU64 {
        self.at(offset)
    }
}

impl Drop for SharedMap {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and no reference outlives self.
        let _ = unsafe { libc::munmap(self.base.cast(), self.len) };
    }
}

/// Sets a memfd's length and writes `bytes` at its start.
///
/// # Errors
/// Whatever `ftruncate(2)` or `pwrite(2)` report.
pub fn fill(fd: &OwnedFd, len: u64, bytes: &[u8]) -> io::Result<()> {
    // SAFETY: takes integers.
    check(unsafe { libc::ftruncate(fd.as_raw_fd(), len.cast_signed()) }.into())?;
    // SAFETY: reads `bytes.len()` bytes of a live slice.
    let wrote = unsafe { libc::pwrite(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
    check(wrote as libc::c_long)?;
    Ok(())
}

/// Makes an anonymous memory file.
///
/// # Errors
/// EMFILE, ENFILE, ENOMEM.
pub fn memfd() -> io::Result<OwnedFd> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: the name is a NUL-terminated literal.
    let fd = check(unsafe { libc::memfd_create(c"zcache".as_ptr(), flags) }.into())?;
    Ok(adopt(fd as i32))
}

/// Seals a memory file: its length is fixed, and whoever maps it from now on may
/// only read. Mappings that are there keep their rights. See `F_ADD_SEALS` in
/// `fcntl(2)`.
///
/// # Errors
/// EPERM for a file without seals.
pub fn seal_for_reading(fd: &OwnedFd) -> io::Result<()> {
    let seals =
        libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_FUTURE_WRITE | libc::F_SEAL_SEAL;
    // SAFETY: takes integers.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, seals) }.into()).map(drop)
}

/// Wakes one sleeper on `word`, in whatever process.
pub fn futex_wake(word: &AtomicU32) {
    // SAFETY: the word is mapped.
    let _ = unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, 1) };
}
