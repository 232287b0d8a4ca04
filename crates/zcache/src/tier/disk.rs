//! Blocks in a file, past the page cache where the filesystem allows, many
//! transfers in flight by io_uring where the kernel allows.
//!
//! Rings are made when the first batch comes and passed from thread to thread;
//! single transfers are plain system calls, which are as fast. Whatever a ring
//! leaves undone (a short transfer, a request that it refused, a kernel without
//! rings) is finished by plain calls, so there is one place that decides about
//! errors.
//!
//! - Nothing is written beyond the limit on the length of files, where a write
//!   ends the process.
//! - In a forked process nothing is written, and the rings, which the kernel
//!   shares with the parent, are not touched.

use crate::sync::atomic::{AtomicBool, Ordering::Relaxed};
use crate::sync::{Mutex, PoisonError};
use std::fs::File;
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;

use zcache_sys::fork::Process;
use zcache_sys::ring::{Request, Ring, Transfer};
use zcache_sys::swapfile::{SwapFile, length_limit};

use super::seam::{SECTOR_SIZE, Tier, TierError, TierRead, TierWrite};

/// Transfers in flight at once for each ring.
const RING_DEPTH: u32 = 64;

/// The longest single write, so that a batch is several transfers in flight.
const WRITE_BYTES_MAX: usize = 64 * SECTOR_SIZE;

/// Rings kept for the next batches.
const RINGS_IDLE_MAX: usize = 4;

/// A tier in one file of the local disk.
#[derive(Debug)]
pub struct DiskTier {
    file: File,
    direct: bool,
    rings: Mutex<Vec<Ring>>,
    rings_refused: AtomicBool,
    opened_in: Process,
}

impl DiskTier {
    /// A tier in a file that [`zcache_sys::swapfile::open`] made.
    #[must_use]
    pub fn new(file: SwapFile) -> DiskTier {
        DiskTier {
            file: file.file,
            direct: file.direct,
            rings: Mutex::default(),
            rings_refused: AtomicBool::new(false),
            opened_in: Process::this(),
        }
    }

    /// Uses plain system calls only, as where io_uring is forbidden.
    #[must_use]
    pub fn without_rings(self) -> DiskTier {
        self.rings_refused.store(true, Relaxed);
        self
    }

    /// Whether transfers bypass the page cache.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.direct
    }

    /// Whether batches go through io_uring, as far as is known yet.
    #[must_use]
    pub fn has_rings(&self) -> bool {
        !self.rings_refused.load(Relaxed)
    }

    /// Whether the filesystem takes transfers of this alignment at all. A full
    /// disk is no reason against it.
    pub(super) fn works(&self) -> bool {
        let Ok(memory) = zcache_sys::arena::Arena::reserve(1) else {
            return true;
        };
        if memory.bytes().len() as u64 > length_limit() {
            return true;
        }
        match self.file.write_all_at(memory.bytes(), 0) {
            Err(error) => error.kind() != io::ErrorKind::InvalidInput,
            Ok(()) => true,
        }
    }

    /// Runs requests by a ring; false when there is none to be had.
    fn run(&self, requests: &mut [Request<'_>]) -> bool {
        if !self.has_rings() || self.opened_in.was_forked() {
            return false;
        }
        let idle = self.rings().pop();
        let Some(mut ring) = idle.or_else(|| self.new_ring()) else {
            return false;
        };
        ring.run(&self.file, requests);
        let mut rings = self.rings();
        if rings.len() < RINGS_IDLE_MAX {
            rings.push(ring);
        }
        true
    }

    fn new_ring(&self) -> Option<Ring> {
        let ring = Ring::new(RING_DEPTH).ok();
        if ring.is_none() {
            self.rings_refused.store(true, Relaxed);
        }
        ring
    }

    /// Writes neighbours together, and by itself every block of which that left
    /// anything undone: of those that found no room together, the first may fit.
    fn write_allowed(&self, writes: &mut [&mut TierWrite<'_>]) {
        let mut joined = 0;
        let mut runs: Vec<&mut [&mut TierWrite<'_>]> = writes
            .chunk_by_mut(|before, after| {
                joined = joined.max(before.bytes.len()) + after.bytes.len();
                let end = before.offset_bytes + before.bytes.len() as u64;
                let joins = after.offset_bytes == end && joined <= WRITE_BYTES_MAX;
                if !joins {
                    joined = 0;
                }
                joins
            })
            .collect();
        let mut requests: Vec<Request<'_>> = runs
            .iter()
            .map(|run| {
                let pieces = run.iter().map(|write| IoSlice::new(write.bytes)).collect();
                Request::new(run[0].offset_bytes, Transfer::Gather(pieces))
            })
            .collect();
        if requests.len() == 1 || !self.run(&mut requests) {
            for request in &mut requests {
                request.result = self.gather(request);
            }
        }
        let went: Vec<_> = requests.iter().map(|request| request.result).collect();
        drop(requests);
        for (run, went) in runs.iter_mut().zip(went) {
            let bytes = run.iter().map(|write| write.bytes.len()).sum();
            let whole = went == Ok(bytes);
            for write in run.iter_mut() {
                write.result = if whole {
                    Ok(())
                } else {
                    let written = self.file.write_all_at(write.bytes, write.offset_bytes);
                    written.map_err(|error| TierError::from(&error))
                };
            }
        }
    }

    /// One request by a system call.
    fn gather(&self, request: &Request<'_>) -> Result<usize, i32> {
        let Transfer::Gather(pieces) = &request.transfer else {
            return Err(0);
        };
        let written = zcache_sys::gather::write_at(&self.file, pieces, request.offset);
        written.map_err(|error| error.raw_os_error().unwrap_or(0))
    }

    fn rings(&self) -> crate::sync::MutexGuard<'_, Vec<Ring>> {
        self.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tier for DiskTier {
    fn write(&self, writes: &mut [TierWrite<'_>]) {
        if self.opened_in.was_forked() {
            for write in writes {
                write.result = Err(TierError::Forked);
            }
            return;
        }
        let limit = length_limit();
        let mut allowed: Vec<&mut TierWrite<'_>> = Vec::with_capacity(writes.len());
        for write in writes {
            if write.offset_bytes + write.bytes.len() as u64 > limit {
                write.result = Err(TierError::TOO_LONG);
            } else {
                allowed.push(write);
            }
        }
        self.write_allowed(&mut allowed);
    }

    fn read(&self, reads: &mut [TierRead<'_>]) {
        let mut done = vec![false; reads.len()];
        if reads.len() > 1 {
            let mut requests: Vec<Request<'_>> = reads
                .iter_mut()
                .map(|read| Request::new(read.offset_bytes, Transfer::Read(read.bytes)))
                .collect();
            let ran = self.run(&mut requests);
            let results: Vec<_> = requests.iter().map(|request| request.result).collect();
            if ran {
                for ((done, result), read) in done.iter_mut().zip(results).zip(&*reads) {
                    *done = result == Ok(read.bytes.len());
                }
            }
        }
        for (read, done) in reads.iter_mut().zip(done) {
            debug_assert_eq!(read.bytes.len() % SECTOR_SIZE, 0);
            read.result = if done {
                Ok(())
            } else {
                let got = self.file.read_exact_at(read.bytes, read.offset_bytes);
                got.map_err(|error| TierError::from(&error))
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use zcache_sys::arena::Arena;

    fn tiers() -> Vec<DiskTier> {
        let open = |direct| {
            let directory = Path::new(env!("CARGO_MANIFEST_DIR"));
            DiskTier::new(zcache_sys::swapfile::open(directory, direct).unwrap())
        };
        vec![
            open(true),
            open(false),
            open(true).without_rings(),
            open(false).without_rings(),
        ]
    }

    #[test]
    fn every_path_gives_back_what_was_written() {
        const BLOCKS: usize = 200;
        const BYTES: usize = 16384;
        for tier in tiers() {
            let mut memory = Arena::reserve((BLOCKS * BYTES / SECTOR_SIZE) as u32).unwrap();
            for (n, block) in memory.bytes_mut().chunks_mut(BYTES).enumerate() {
                block.fill(n as u8 + 1);
            }
            let mut writes: Vec<_> = memory
                .bytes()
                .chunks(BYTES)
                .enumerate()
                .map(|(n, bytes)| TierWrite {
                    offset_bytes: (n * BYTES) as u64,
                    bytes,
                    result: Err(TierError::IO),
                })
                .collect();
            tier.write(&mut writes);
            assert!(writes.iter().all(|write| write.result == Ok(())));

            let mut memory = Arena::reserve(BLOCKS as u32 + 1).unwrap();
            let mut reads: Vec<_> = memory
                .bytes_mut()
                .chunks_mut(SECTOR_SIZE)
                .enumerate()
                .map(|(n, bytes)| TierRead {
                    offset_bytes: (n * BYTES + SECTOR_SIZE) as u64,
                    bytes,
                    result: Err(TierError::IO),
                })
                .collect();
            tier.read(&mut reads);
            let (last, reads) = reads.split_last().unwrap();
            assert_eq!(last.result, Err(TierError::CUT_OFF));
            for (n, read) in reads.iter().enumerate() {
                assert_eq!(read.result, Ok(()));
                assert!(read.bytes.iter().all(|byte| *byte == n as u8 + 1));
            }
        }
    }

    #[test]
    fn a_full_device_says_so() {
        let full = File::options().read(true).write(true).open("/dev/full");
        let tier = DiskTier::new(SwapFile {
            file: full.unwrap(),
            direct: false,
        });
        let memory = Arena::reserve(2).unwrap();
        let mut writes: Vec<_> = memory
            .bytes()
            .chunks(SECTOR_SIZE)
            .map(|bytes| TierWrite {
                offset_bytes: 0,
                bytes,
                result: Ok(()),
            })
            .collect();
        tier.write(&mut writes);
        assert!(
            writes
                .iter()
                .all(|write| write.result == Err(TierError::NO_SPACE))
        );
    }
}
