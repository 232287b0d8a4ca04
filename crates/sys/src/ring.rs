//! Many reads and writes of one file in flight at once, by io_uring
//! (io_uring(7)), behind a call that is over when all of them are.
//!
//! Stage on the data path: under the disk tier, which falls back to one system
//! call a transfer where no ring can be had.
//!
//! - When [`Ring::run`] returns, the kernel holds no pointer into the requests.
//! - `submitted - completed == in flight <= depth` at every moment of a run.
//!
//! Does not retry: short transfers and errors are the caller's to judge.

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::time::Duration;

use io_uring::{IoUring, opcode, squeue, types};

/// How often in a row waiting may fail before the process is given up. The
/// kernel may still write to the buffers then, so there is no way back.
const WAIT_FAILURES_MAX: u32 = 10_000;

/// The pause after a failed wait.
const WAIT_RETRY: Duration = Duration::from_millis(1);

/// The bytes of a request and which way they go.
#[derive(Debug)]
pub enum Transfer<'a> {
    /// From the file.
    Read(&'a mut [u8]),
    /// To the file.
    Write(&'a [u8]),
    /// To the file, one piece behind the other.
    Gather(Vec<IoSlice<'a>>),
}

/// One transfer of [`Ring::run`].
#[derive(Debug)]
pub struct Request<'a> {
    /// Where in the file, in bytes.
    pub offset: u64,
    /// The bytes.
    pub transfer: Transfer<'a>,
    /// How many bytes went, or the system's error number. Meaningful after the
    /// run.
    pub result: Result<usize, i32>,
}

impl<'a> Request<'a> {
    /// A request that has not run.
    #[must_use]
    pub fn new(offset: u64, transfer: Transfer<'a>) -> Self {
        Self {
            offset,
            transfer,
            result: Err(libc::EINPROGRESS),
        }
    }
}

/// A submission and a completion queue shared with the kernel.
pub struct Ring {
    ring: IoUring,
    depth: u32,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("depth", &self.depth).finish()
    }
}

/// Ends the process when a run is left while the kernel may still write to its
/// buffers.
struct NoWayBack;

impl Drop for NoWayBack {
    fn drop(&mut self) {
        std::process::abort();
    }
}

impl Ring {
    /// Makes a ring that keeps up to `depth` requests in flight, rounded up to
    /// a power of two.
    ///
    /// # Errors
    /// What `io_uring_setup` says: `ENOSYS` or `EPERM` where rings are missing
    /// or forbidden, `ENOMEM` under a locked-memory limit.
    pub fn new(depth: u32) -> io::Result<Ring> {
        let ring = IoUring::builder().setup_clamp().build(depth)?;
        let depth = ring.params().sq_entries();
        Ok(Ring { ring, depth })
    }

    /// Runs all requests and leaves the outcome in each.
    ///
    /// # Panics
    /// The process is aborted when the kernel keeps refusing to tell how the
    /// requests in flight ended, because their buffers could then never be
    /// used again.
    pub fn run(&mut self, file: &File, requests: &mut [Request<'_>]) {
        let guard = NoWayBack;
        let mut submitted = 0;
        let mut completed = 0;
        let mut failures = 0;
        while completed < requests.len() {
            while submitted < requests.len()
                && submitted - completed < self.depth as usize
                && self.push(file, &mut requests[submitted], submitted as u64)
            {
                submitted += 1;
            }
            match self.ring.submit_and_wait(1) {
                Ok(_) => failures = 0,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    // EAGAIN, EBUSY and ENOMEM pass; nothing else can be told
                    // from them with requests in flight.
                    failures += 1;
                    assert!(failures < WAIT_FAILURES_MAX, "io_uring_enter keeps failing");
                    std::thread::sleep(WAIT_RETRY);
                }
            }
            for entry in self.ring.completion() {
                requests[entry.user_data() as usize].result =
                    usize::try_from(entry.result()).map_err(|_| -entry.result());
                completed += 1;
            }
        }
        std::mem::forget(guard);
    }

    /// Puts one request into the submission queue, unless that is full.
    fn push(&mut self, file: &File, request: &mut Request<'_>, number: u64) -> bool {
        let fd = types::Fd(file.as_raw_fd());
        let entry: squeue::Entry = match &mut request.transfer {
            Transfer::Read(bytes) => opcode::Read::new(fd, bytes.as_mut_ptr(), length(bytes.len()))
                .offset(request.offset)
                .build(),
            Transfer::Write(bytes) => opcode::Write::new(fd, bytes.as_ptr(), length(bytes.len()))
                .offset(request.offset)
                .build(),
            // A slice of bytes is laid out as iovec(3) is.
            Transfer::Gather(pieces) => {
                opcode::Writev::new(fd, pieces.as_ptr().cast(), length(pieces.len()))
                    .offset(request.offset)
                    .build()
            }
        };
        let entry = entry.user_data(number);
        // SAFETY: the entry points to bytes that `request` borrows, exclusively
        // where they are written, to the list of pieces that it owns, and to a
        // descriptor that `file` keeps open.
        // `run` holds both borrows and neither returns nor unwinds before the
        // kernel has completed every entry that was pushed.
        unsafe { self.ring.submission().push(&entry) }.is_ok()
    }
}

/// A length for the kernel; a longer transfer becomes a short one.
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn more_requests_than_depth_all_go_and_errors_stay_with_their_request() {
        let Ok(mut ring) = Ring::new(4) else {
            eprintln!("no io_uring here");
            return;
        };
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
        std::fs::create_dir_all(&directory).unwrap();
        let file = crate::swapfile::open(&directory, false).unwrap().file;
        let pages: Vec<[u8; 4096]> = (0..50).map(|n| [n as u8; 4096]).collect();
        let mut writes: Vec<Request<'_>> = pages
            .iter()
            .enumerate()
            .map(|(n, page)| Request::new(n as u64 * 4096, Transfer::Write(page)))
            .collect();
        ring.run(&file, &mut writes);
        assert!(writes.iter().all(|write| write.result == Ok(4096)));

        let mut read = vec![[0; 4096]; 51];
        let mut reads: Vec<Request<'_>> = read
            .iter_mut()
            .enumerate()
            .map(|(n, page)| Request::new(n as u64 * 4096, Transfer::Read(page)))
            .collect();
        reads[7].offset = u64::MAX >> 1;
        ring.run(&file, &mut reads);
        for (n, request) in reads.iter().enumerate() {
            match n {
                // A read beyond the largest offset is refused or finds the end.
                7 => assert!(matches!(request.result, Ok(0) | Err(_))),
                50 => assert_eq!(request.result, Ok(0)),
                _ => assert_eq!(request.result, Ok(4096)),
            }
        }
        for n in (0..50).filter(|n| *n != 7) {
            assert_eq!(read[n], pages[n]);
        }

        let pieces = pages.iter().rev().map(|page| IoSlice::new(page)).collect();
        let mut gather = [Request::new(4096, Transfer::Gather(pieces))];
        ring.run(&file, &mut gather);
        assert_eq!(gather[0].result, Ok(50 * 4096));
        let mut reads = [Request::new(50 * 4096, Transfer::Read(&mut read[0]))];
        ring.run(&file, &mut reads);
        assert_eq!(read[0], pages[0]);
    }
}
