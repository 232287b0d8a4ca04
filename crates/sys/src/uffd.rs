//! userfaultfd: registration, resolution of faults, and messages.
//!
//! Stage on the data path: the mouth of the pager. Sources: the manual pages
//! `userfaultfd(2)` and `ioctl_userfaultfd(2)` and `linux/userfaultfd.h`.
//!
//! What it does not do: decide anything. Every call maps to one ioctl, and its
//! outcome is handed back with the number of bytes that the kernel finished.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

const PAGE: u64 = 4096;

/// `UFFD_FEATURE_EVENT_REMAP`: moved ranges keep their registration. Without it
/// the kernel drops that of the range *after* merging it with its neighbours,
/// whose missing pages would then read as zeros.
pub const FEATURE_EVENT_REMAP: u64 = 1 << 2;
/// `UFFD_FEATURE_SIGBUS`: a fault is an error at once instead of a message.
pub const FEATURE_SIGBUS: u64 = 1 << 7;
/// `UFFD_FEATURE_THREAD_ID`: messages carry the faulting thread.
pub const FEATURE_THREAD_ID: u64 = 1 << 8;
/// `UFFD_FEATURE_POISON`: a page can be made to raise SIGBUS.
pub const FEATURE_POISON: u64 = 1 << 14;
/// `UFFD_FEATURE_MOVE`: pages can be moved between ranges of one address space.
pub const FEATURE_MOVE: u64 = 1 << 16;

const UFFD_API: u64 = 0xAA;
const UFFDIO_API: libc::c_ulong = 0xc018_aa3f;
const UFFDIO_REGISTER: libc::c_ulong = 0xc020_aa00;
const UFFDIO_UNREGISTER: libc::c_ulong = 0x8010_aa01;
const UFFDIO_WAKE: libc::c_ulong = 0x8010_aa02;
const UFFDIO_COPY: libc::c_ulong = 0xc028_aa03;
/// The request number of `UFFDIO_MOVE`, which only a task of the same address
/// space may issue; the servant does.
pub const UFFDIO_MOVE: u64 = 0xc028_aa05;
const UFFDIO_POISON: libc::c_ulong = 0xc020_aa08;
const UFFDIO_REGISTER_MODE_MISSING: u64 = 1;
/// `UFFDIO_MOVE_MODE_DONTWAKE`.
pub const MOVE_MODE_DONTWAKE: u64 = 1;
/// `USERFAULTFD_IOC_NEW`: makes a userfaultfd from an open `/dev/userfaultfd`.
pub const USERFAULTFD_IOC_NEW: u64 = 0xaa00;

const EVENT_PAGEFAULT: u8 = 0x12;
const EVENT_REMAP: u8 = 0x14;

#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct Range {
    start: u64,
    len: u64,
}

#[repr(C)]
struct Register {
    range: Range,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
struct Copy {
    dst: u64,
    src: u64,
    len: u64,
    mode: u64,
    copy: i64,
}

#[repr(C)]
struct Poison {
    range: Range,
    mode: u64,
    updated: i64,
}

/// The argument block of `UFFDIO_MOVE`, as the servant's ring carries it.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct MoveArgs {
    /// Where the pages go; must lie in a range registered with the descriptor.
    pub dst: u64,
    /// Where they are taken from.
    pub src: u64,
    /// Bytes, a multiple of the page size.
    pub len: u64,
    /// `UFFDIO_MOVE_MODE_*`.
    pub mode: u64,
    /// Out: bytes moved, or a negated errno.
    pub moved: i64,
}

/// One message read from a userfaultfd.
#[derive(Debug)]
pub enum Message {
    /// A thread waits for the page at `address` (page-aligned).
    Fault {
        /// Page-aligned address of the missing page.
        address: u64,
        /// Thread that waits (0 when the feature is off).
        thread: u32,
    },
    /// A range was moved; the mover goes on once this is read.
    Remapped,
    /// A message that was not asked for.
    Other(u8),
}

/// How far a resolving ioctl came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All bytes done.
    Done,
    /// Stopped with this errno after `bytes` finished bytes.
    Stopped {
        /// Bytes finished before the stop.
        bytes: u64,
        /// The errno that stopped it.
        errno: i32,
    },
}

/// A userfaultfd of some process's address space, held by the pager.
#[derive(Debug)]
pub struct Uffd {
    fd: OwnedFd,
}

impl AsFd for Uffd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn ioctl<T>(fd: &OwnedFd, request: libc::c_ulong, argument: &mut T) -> io::Result<()> {
    // SAFETY: every caller in this module passes the argument structure that
    // its request number was computed for, and it lives across the call.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), request, std::ptr::from_mut(argument)) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn outcome(result: io::Result<()>, finished: i64) -> Outcome {
    match result {
        Ok(()) => Outcome::Done,
        Err(error) => Outcome::Stopped {
            bytes: finished.max(0).cast_unsigned(),
            errno: error.raw_os_error().unwrap_or(libc::EIO),
        },
    }
}

impl Uffd {
    /// Wraps a descriptor taken from a process, before its API handshake.
    #[must_use]
    pub fn from_fd(fd: OwnedFd) -> Uffd {
        Uffd { fd }
    }

    /// The API handshake: must be the first call on a fresh descriptor.
    ///
    /// # Errors
    /// EINVAL when the kernel lacks one of `features`.
    pub fn handshake(&self, features: u64) -> io::Result<()> {
        let mut api = Api {
            api: UFFD_API,
            features,
            ioctls: 0,
        };
        ioctl(&self.fd, UFFDIO_API, &mut api)
    }

    /// Registers `[start, start + len)` for missing pages.
    ///
    /// # Errors
    /// EINVAL for a range that is not mapped or not anonymous, EBUSY for one
    /// that another userfaultfd holds, ENOMEM.
    pub fn register(&self, start: u64, len: u64) -> io::Result<()> {
        let mut register = Register {
            range: Range { start, len },
            mode: UFFDIO_REGISTER_MODE_MISSING,
            ioctls: 0,
        };
        ioctl(&self.fd, UFFDIO_REGISTER, &mut register)
    }

    /// Takes `[start, start + len)` out of the descriptor's care.
    ///
    /// # Errors
    /// EINVAL for a range that is not mapped or cannot be registered.
    pub fn unregister(&self, start: u64, len: u64) -> io::Result<()> {
        ioctl(&self.fd, UFFDIO_UNREGISTER, &mut Range { start, len })
    }

    /// A second descriptor of the same userfaultfd.
    ///
    /// # Errors
    /// EMFILE, ENFILE.
    pub fn duplicate(&self) -> io::Result<Uffd> {
        self.fd.try_clone().map(|fd| Uffd { fd })
    }

    /// Installs `pages` (whole pages) at `address` and wakes who waits there.
    pub fn copy(&self, address: u64, pages: &[[u8; 4096]]) -> Outcome {
        let mut copy = Copy {
            dst: address,
            src: pages.as_ptr() as u64,
            len: pages.len() as u64 * PAGE,
            mode: 0,
            copy: 0,
        };
        let result = ioctl(&self.fd, UFFDIO_COPY, &mut copy);
        outcome(result, copy.copy)
    }

    /// Wakes threads that wait in `[address, address + len)`; they fault anew.
    ///
    /// # Errors
    /// ESRCH when the process is gone.
    pub fn wake(&self, address: u64, len: u64) -> io::Result<()> {
        ioctl(
            &self.fd,
            UFFDIO_WAKE,
            &mut Range {
                start: address,
                len,
            },
        )
    }

    /// Makes the missing page at `address` raise SIGBUS when touched.
    ///
    /// # Errors
    /// EEXIST when a page is there.
    pub fn poison(&self, address: u64) -> io::Result<()> {
        let mut poison = Poison {
            range: Range {
                start: address,
                len: PAGE,
            },
            mode: 0,
            updated: 0,
        };
        ioctl(&self.fd, UFFDIO_POISON, &mut poison)
    }

    /// Reads one message; `Ok(None)` when there is none now.
    ///
    /// # Errors
    /// Whatever `read(2)` reports but EAGAIN.
    pub fn read(&self) -> io::Result<Option<Message>> {
        let mut raw = [0u8; 32];
        // SAFETY: the buffer is one `struct uffd_msg`, 32 bytes, and writable.
        let got = unsafe { libc::read(self.fd.as_raw_fd(), raw.as_mut_ptr().cast(), raw.len()) };
        if got < 0 {
            let error = io::Error::last_os_error();
            return match error.raw_os_error() {
                Some(libc::EAGAIN) => Ok(None),
                _ => Err(error),
            };
        }
        if got == 0 {
            return Ok(None);
        }
        let word = |at: usize| u64::from_ne_bytes(std::array::from_fn(|i| raw[at + i]));
        Ok(Some(match raw[0] {
            EVENT_PAGEFAULT => Message::Fault {
                address: word(16) & !(PAGE - 1),
                thread: (word(24) & 0xffff_ffff) as u32,
            },
            EVENT_REMAP => Message::Remapped,
            other => Message::Other(other),
        }))
    }
}
