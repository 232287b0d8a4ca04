//! The beginning of the talk with the kernel: what both sides can do.
//!
//! Stage: between the device and the workers.

use std::io;

use zcache::PAGE_SIZE;

use crate::device::{Device, Received};
use crate::error::MountError;
use crate::wire::abi::{self, init, opcode};
use crate::wire::{Answer, Fields, Header};

/// The longest read or write of a mount: the longer, the fewer round trips has a
/// sweep; but each worker has room for one of each, in the budget.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Transfer {
    bytes: usize,
}

/// The kernel's own limit, unless an administrator raised it.
const TRANSFER_BYTES_MAX: usize = 1 << 20;
const TRANSFER_BYTES_MIN: usize = 256 << 10;

/// Pages of the longest read of any mount.
pub(crate) const TRANSFER_PAGES_MAX: usize = TRANSFER_BYTES_MAX / PAGE_SIZE;

/// All workers' rooms take at most this part of the budget, if that leaves them
/// the least.
const ROOMS_PART: u64 = 16;

/// And this part in any case.
const ROOMS_PART_MAX: u64 = 2;

impl Transfer {
    /// What a budget allows to so many workers.
    pub(crate) fn new(ram_bytes: u64, workers: usize) -> Transfer {
        let rooms = ram_bytes / ROOMS_PART / (2 * workers.max(1)) as u64;
        let mut bytes = TRANSFER_BYTES_MAX;
        while bytes > TRANSFER_BYTES_MIN && bytes as u64 > rooms {
            bytes /= 2;
        }
        Transfer { bytes }
    }

    /// How many workers a budget has room for, each with the least room.
    pub(crate) fn workers_max(ram_bytes: u64) -> usize {
        let rooms = ram_bytes / ROOMS_PART_MAX / (2 * TRANSFER_BYTES_MIN) as u64;
        usize::try_from(rooms).unwrap_or(usize::MAX)
    }

    /// Bytes of the longest read or write.
    pub(crate) fn bytes(self) -> usize {
        self.bytes
    }

    /// Pages of the longest read.
    pub(crate) fn pages(self) -> usize {
        self.bytes / PAGE_SIZE
    }

    /// A write is preceded by its header and fields.
    pub(crate) fn request_bytes(self) -> usize {
        self.bytes + PAGE_SIZE
    }
}

/// Reads ahead and writes of the page cache that may wait for us at once.
const BACKGROUND_MAX: u16 = 64;

/// The oldest protocol that has everything this needs (Linux 5.4).
const MINOR_MIN: u32 = 31;

/// Receives the kernel's first request, which is about the protocol itself. It
/// waits for its [answer](Offer::accept), and every other request for that.
pub(crate) fn greet(device: &Device) -> Result<Offer, MountError> {
    let mut buffer = vec![0; TRANSFER_BYTES_MIN + PAGE_SIZE];
    let len = loop {
        match device.receive(&mut buffer).map_err(failed)? {
            Received::Request(len) => break len,
            Received::Nothing => {}
            Received::Unmounted => return Err(failed(io::ErrorKind::NotConnected.into())),
        }
    };
    let strange = |_| failed(io::ErrorKind::InvalidData.into());
    let (header, fields) = Header::parse(&buffer[..len]).map_err(strange)?;
    let offer = Offer::parse(header.unique, fields).map_err(strange)?;
    if header.opcode != opcode::INIT || offer.major != abi::MAJOR || offer.minor < MINOR_MIN {
        return Err(MountError::Protocol {
            major: offer.major,
            minor: offer.minor,
        });
    }
    Ok(offer)
}

fn failed(error: io::Error) -> MountError {
    MountError::System {
        what: "/dev/fuse",
        error,
    }
}

/// What the kernel can do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offer {
    unique: u64,
    major: u32,
    minor: u32,
    readahead_bytes: u32,
    flags: u64,
}

impl Offer {
    fn parse(unique: u64, mut fields: Fields<'_>) -> Result<Offer, rustix::io::Errno> {
        let (major, minor, readahead_bytes) = (fields.u32()?, fields.u32()?, fields.u32()?);
        let low = u64::from(fields.u32()?);
        let extended = low & init::INIT_EXT != 0;
        let high = if extended { fields.u32()? } else { 0 };
        Ok(Offer {
            unique,
            major,
            minor,
            readahead_bytes,
            flags: low | u64::from(high) << 32,
        })
    }

    /// Whether requests can come by io_uring.
    pub(crate) fn has_rings(&self) -> bool {
        self.flags & init::OVER_IO_URING != 0
    }

    /// Answers. With `rings` all requests wait from then on until each of the
    /// mount's queues has an entry, or one was refused. Where the source is
    /// `watched`, the kernel is told when its pages are outdated, and does not
    /// conclude it from times, which our own writes change as well.
    pub(crate) fn accept(
        &self,
        device: &Device,
        transfer: Transfer,
        rings: bool,
        watched: bool,
    ) -> Result<(), MountError> {
        let mut answer = Answer::default();
        answer.clear();
        self.write(transfer, rings, watched, &mut answer);
        let bytes = answer.finish(self.unique, 0, 0);
        device.answer(bytes, &[]).map_err(failed)
    }

    /// Writes `struct fuse_init_out`. Without the kernel's writeback cache, so
    /// that what a write has returned is the source's already; and without
    /// truncation by OPEN, which would be done before the kernel refuses it for
    /// a program that is being executed.
    fn write(&self, transfer: Transfer, rings: bool, watched: bool, answer: &mut Answer) {
        let by_ring = if rings { init::OVER_IO_URING } else { 0 };
        let by_times = if watched { 0 } else { init::AUTO_INVAL_DATA };
        let wanted = init::ASYNC_READ
            | init::BIG_WRITES
            | init::DONT_MASK
            | init::DO_READDIRPLUS
            | init::READDIRPLUS_AUTO
            | init::PARALLEL_DIROPS
            | init::POSIX_ACL
            | init::MAX_PAGES
            | init::CACHE_SYMLINKS
            | init::HANDLE_KILLPRIV_V2
            | init::SETXATTR_EXT
            | init::DIRECT_IO_ALLOW_MMAP
            | init::INIT_EXT
            | by_ring
            | by_times;
        let flags = wanted & self.flags;
        answer.u32(abi::MAJOR);
        answer.u32(abi::MINOR);
        answer.u32(self.readahead_bytes.max(transfer.bytes() as u32));
        answer.u32(flags as u32);
        answer.u16(BACKGROUND_MAX);
        answer.u16(BACKGROUND_MAX / 4 * 3);
        answer.u32(transfer.bytes() as u32);
        // Times in nanoseconds.
        answer.u32(1);
        answer.u16(transfer.pages() as u16);
        answer.u16(0);
        answer.u32((flags >> 32) as u32);
        answer.zeros(28);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transfers_are_as_long_as_the_budget_and_the_kernel_allow() {
        for (ram, workers, bytes) in [
            (0, 0, 256 << 10),
            (16 << 20, 4, 256 << 10),
            (64 << 20, 4, 512 << 10),
            (128 << 20, 4, 1 << 20),
            (128 << 20, 16, 256 << 10),
            (u64::MAX, 16, 1 << 20),
        ] {
            assert_eq!(
                Transfer::new(ram, workers).bytes(),
                bytes,
                "{ram} {workers}"
            );
        }
    }

    #[test]
    fn only_what_the_kernel_offers_is_accepted() {
        let mut body = Vec::new();
        let flags = (init::INIT_EXT | init::ASYNC_READ | init::MAX_PAGES) as u32;
        for word in [7, 45, 131_072, flags, 0x3ff] {
            body.extend(u32::to_ne_bytes(word));
        }
        let offer = Offer::parse(1, Fields::of(&body)).expect("an offer");
        assert_eq!((offer.major, offer.minor), (7, 45));
        assert!(offer.has_rings());
        // Mapped where reads are direct, and by ring.
        for (rings, high) in [(false, 1u32 << 4), (true, 1 << 4 | 1 << 9)] {
            let mut answer = Answer::default();
            answer.clear();
            offer.write(Transfer::new(0, 1), rings, false, &mut answer);
            assert_eq!(answer.len(), 64, "struct fuse_init_out");
            assert_eq!(answer.body()[12..16], flags.to_ne_bytes());
            assert_eq!(answer.body()[32..36], high.to_ne_bytes());
        }
    }
}
