//! The talk with the kernel: what both sides can do, then requests until the
//! mount is gone.
//!
//! Stage: between the device and the filesystem. Each worker is a thread with
//! its own descriptor and its own buffers; a request is carried out by the
//! worker that received it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;

use zcache::PAGE_SIZE;

use crate::device::{Device, Received};
use crate::error::MountError;
use crate::room::Room;
use crate::serve::{Filesystem, Scratch};
use crate::wire::abi::{self, init, opcode};
use crate::wire::{Answer, Fields, Header};

/// The longest read or write: larger ones gain nothing more, and each worker has
/// room for one of each.
pub(crate) const TRANSFER_BYTES_MAX: usize = 256 << 10;

/// Pages of the longest read.
pub(crate) const TRANSFER_PAGES_MAX: usize = TRANSFER_BYTES_MAX / PAGE_SIZE;

/// A write is preceded by its header and fields.
const REQUEST_BYTES_MAX: usize = TRANSFER_BYTES_MAX + PAGE_SIZE;

/// Reads ahead and writes of the page cache that may wait for us at once.
const BACKGROUND_MAX: u16 = 64;

/// The oldest protocol that has everything this needs (Linux 5.4).
const MINOR_MIN: u32 = 31;

/// Answers the kernel's first request, which is about the protocol itself.
pub(crate) fn agree(device: &Device) -> Result<(), MountError> {
    let failed = |error| MountError::System {
        what: "/dev/fuse",
        error,
    };
    let mut buffer = vec![0; REQUEST_BYTES_MAX];
    let len = loop {
        match device.receive(&mut buffer).map_err(failed)? {
            Received::Request(len) => break len,
            Received::Nothing => {}
            Received::Unmounted => return Err(failed(io::ErrorKind::NotConnected.into())),
        }
    };
    let strange = |_| failed(io::ErrorKind::InvalidData.into());
    let (header, fields) = Header::parse(&buffer[..len]).map_err(strange)?;
    let offer = Offer::parse(fields).map_err(strange)?;
    if header.opcode != opcode::INIT || offer.major != abi::MAJOR || offer.minor < MINOR_MIN {
        return Err(MountError::Protocol {
            major: offer.major,
            minor: offer.minor,
        });
    }
    let mut answer = Answer::default();
    answer.clear();
    offer.accept(&mut answer);
    let bytes = answer.finish(header.unique, 0, 0);
    device.answer(bytes, &[]).map_err(failed)
}

/// What the kernel can do.
#[derive(Clone, Copy, Debug)]
struct Offer {
    major: u32,
    minor: u32,
    readahead_bytes: u32,
    flags: u64,
}

impl Offer {
    fn parse(mut fields: Fields<'_>) -> Result<Offer, rustix::io::Errno> {
        let (major, minor, readahead_bytes) = (fields.u32()?, fields.u32()?, fields.u32()?);
        let low = u64::from(fields.u32()?);
        let extended = low & init::INIT_EXT != 0;
        let high = if extended { fields.u32()? } else { 0 };
        Ok(Offer {
            major,
            minor,
            readahead_bytes,
            flags: low | u64::from(high) << 32,
        })
    }

    /// Writes `struct fuse_init_out`. Without the kernel's writeback cache, so
    /// that what a write has returned is the source's already.
    fn accept(&self, answer: &mut Answer) {
        let wanted = init::ASYNC_READ
            | init::ATOMIC_O_TRUNC
            | init::BIG_WRITES
            | init::DONT_MASK
            | init::AUTO_INVAL_DATA
            | init::DO_READDIRPLUS
            | init::READDIRPLUS_AUTO
            | init::PARALLEL_DIROPS
            | init::POSIX_ACL
            | init::MAX_PAGES
            | init::CACHE_SYMLINKS
            | init::HANDLE_KILLPRIV_V2
            | init::SETXATTR_EXT
            | init::INIT_EXT;
        let flags = wanted & self.flags;
        answer.u32(abi::MAJOR);
        answer.u32(abi::MINOR);
        answer.u32(self.readahead_bytes.max(TRANSFER_BYTES_MAX as u32));
        answer.u32(flags as u32);
        answer.u16(BACKGROUND_MAX);
        answer.u16(BACKGROUND_MAX / 4 * 3);
        answer.u32(TRANSFER_BYTES_MAX as u32);
        // Times in nanoseconds.
        answer.u32(1);
        answer.u16(TRANSFER_PAGES_MAX as u16);
        answer.u16(0);
        answer.u32((flags >> 32) as u32);
        answer.zeros(28);
    }
}

/// Counts of requests.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    pub(crate) served: AtomicU64,
    pub(crate) failed: AtomicU64,
}

/// One thread's part of serving a mount.
pub(crate) struct Worker {
    device: Device,
    filesystem: Arc<Filesystem>,
    requests: Arc<Requests>,
    request: Vec<u8>,
    scratch: Scratch,
}

impl Worker {
    pub(crate) fn new(
        device: Device,
        filesystem: &Arc<Filesystem>,
        requests: &Arc<Requests>,
    ) -> Worker {
        let mut answer = Answer::default();
        answer.clear();
        Worker {
            device,
            filesystem: Arc::clone(filesystem),
            requests: Arc::clone(requests),
            request: vec![0; REQUEST_BYTES_MAX],
            scratch: Scratch {
                answer,
                pages: Room::new(TRANSFER_PAGES_MAX),
                lens: vec![None; TRANSFER_PAGES_MAX],
            },
        }
    }

    pub(crate) fn start(mut self, number: usize) -> io::Result<thread::JoinHandle<io::Result<()>>> {
        let name = format!("zcache-mount-{number}");
        thread::Builder::new().name(name).spawn(move || self.run())
    }

    /// Serves until the mount is gone.
    fn run(&mut self) -> io::Result<()> {
        loop {
            match self.device.receive(&mut self.request)? {
                Received::Request(len) => self.serve(len)?,
                Received::Nothing => {}
                Received::Unmounted => return Ok(()),
            }
        }
    }

    fn serve(&mut self, len: usize) -> io::Result<()> {
        let Worker {
            device,
            filesystem,
            requests,
            request,
            scratch,
        } = self;
        let Ok((header, fields)) = Header::parse(&request[..len]) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        requests.served.fetch_add(1, Relaxed);
        match header.opcode {
            opcode::READ => filesystem.read(&header, fields, scratch, device),
            opcode::FORGET | opcode::BATCH_FORGET => {
                // There is nobody to be told of an error.
                let _ = filesystem.forget(&header, fields);
                Ok(())
            }
            // What is asked for is short or uninterruptible in the source.
            opcode::INTERRUPT => Ok(()),
            _ => {
                let answer = &mut scratch.answer;
                answer.clear();
                let error = match filesystem.serve(&header, fields, answer) {
                    Ok(()) => 0,
                    Err(error) => {
                        requests.failed.fetch_add(1, Relaxed);
                        error.raw_os_error()
                    }
                };
                device.answer(answer.finish(header.unique, error, 0), &[])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_kernel_offers_is_accepted() {
        let mut body = Vec::new();
        let flags = (init::INIT_EXT | init::ASYNC_READ | init::MAX_PAGES) as u32;
        for word in [7, 45, 131_072, flags, 0xffff_ffff] {
            body.extend(u32::to_ne_bytes(word));
        }
        let offer = Offer::parse(Fields::of(&body)).expect("an offer");
        assert_eq!((offer.major, offer.minor), (7, 45));
        let mut answer = Answer::default();
        answer.clear();
        offer.accept(&mut answer);
        assert_eq!(answer.len(), 64, "struct fuse_init_out");
        let bytes = answer.finish(1, 0, 0);
        assert_eq!(bytes[16 + 12..16 + 16], flags.to_ne_bytes());
    }
}
