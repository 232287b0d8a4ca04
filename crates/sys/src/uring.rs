//! What a ring of io_uring may be told to do, which its maker can restrict. Source:
//! `io_uring_setup(2)`, `io_uring_register(2)`.
//!
//! Not on the data path: a ring is restricted once, when it is made.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::fd::check;

/// `IORING_SETUP_R_DISABLED`: the ring does nothing until it is enabled.
pub const SETUP_DISABLED: u32 = 1 << 6;
/// `IORING_SETUP_REGISTERED_FD_ONLY`: the ring has no descriptor (Linux 6.5).
pub const SETUP_NO_DESCRIPTOR: u32 = 1 << 15;
/// `IORING_REGISTER_RESTRICTIONS`.
pub const REGISTER_RESTRICTIONS: u64 = 11;
/// `IORING_REGISTER_ENABLE_RINGS`.
pub const REGISTER_ENABLE: u64 = 12;
/// Bytes of `struct io_uring_params`, and where the flags are in it.
pub const PARAMETER_BYTES: usize = 120;
/// See [`PARAMETER_BYTES`].
pub const PARAMETER_FLAGS: usize = 8;

const RESTRICT_REGISTER: u8 = 0;
const RESTRICT_OPERATION: u8 = 1;
const RESTRICT_FLAGS: u8 = 2;
const OPERATION_MADVISE: u8 = 25;
const RESTRICTION_BYTES: usize = 16;
/// More kinds than any Linux has.
const KINDS_MAX: u8 = 128;

/// Restrictions as the kernel takes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restrictions {
    /// An array of `struct io_uring_restriction`.
    pub bytes: Vec<u8>,
}

impl Restrictions {
    fn allow(&mut self, kind: u8, what: u8) {
        let mut one = [0; RESTRICTION_BYTES];
        (one[0], one[2]) = (kind, what);
        self.bytes.extend(one);
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        (self.bytes.len() / RESTRICTION_BYTES) as u64
    }
}

fn disabled_ring() -> io::Result<OwnedFd> {
    let mut parameters = [0u32; PARAMETER_BYTES / 4];
    parameters[PARAMETER_FLAGS / 4] = SETUP_DISABLED;
    // SAFETY: the structure is as long as the kernel's and lives across the call.
    let fd = check(unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, parameters.as_mut_ptr()) })?;
    // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn restrict(ring: &OwnedFd, restrictions: &Restrictions) -> io::Result<()> {
    // SAFETY: the kernel reads so many restrictions from a live vector.
    check(unsafe {
        libc::syscall(
            libc::SYS_io_uring_register,
            ring.as_raw_fd(),
            REGISTER_RESTRICTIONS,
            restrictions.bytes.as_ptr(),
            restrictions.count(),
        )
    })
    .map(drop)
}

/// How many of a kind this kernel knows: it takes no more.
fn known(kind: u8) -> io::Result<u8> {
    for count in (1..=KINDS_MAX).rev() {
        // One that has taken some takes no others.
        let ring = disabled_ring()?;
        let mut only = Restrictions { bytes: Vec::new() };
        only.allow(kind, count - 1);
        if restrict(&ring, &only).is_ok() {
            return Ok(count);
        }
    }
    Ok(0)
}

/// All that this kernel's rings can do, but for advice about memory.
///
/// # Errors
/// ENOSYS, EPERM: there are no rings for us.
pub fn all_but_advice() -> io::Result<Restrictions> {
    let mut all = Restrictions { bytes: Vec::new() };
    for what in 0..known(RESTRICT_REGISTER)? {
        all.allow(RESTRICT_REGISTER, what);
    }
    for what in 0..known(RESTRICT_OPERATION)? {
        if what != OPERATION_MADVISE {
            all.allow(RESTRICT_OPERATION, what);
        }
    }
    all.allow(RESTRICT_FLAGS, u8::MAX);
    let ring = disabled_ring()?;
    restrict(&ring, &all)?;
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_takes_all_that_is_allowed() {
        let Ok(all) = all_but_advice() else {
            // No rings on this machine.
            return;
        };
        // Linux 5.10, the first with restrictions, knows 13 registrations and 37 operations.
        assert!(all.count() > 13 + 36, "{}", all.count());
        let advice = [RESTRICT_OPERATION, 0, OPERATION_MADVISE];
        let mut each = all.bytes.chunks(RESTRICTION_BYTES);
        assert!(!each.any(|one| one[..3] == advice));
    }
}
