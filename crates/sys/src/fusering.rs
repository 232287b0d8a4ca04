//! FUSE over io_uring: requests of a mount by shared memory instead of reads and
//! writes of `/dev/fuse`. Linux 6.14; `Documentation/filesystems/fuse/fuse-io-uring.rst`
//! and `include/uapi/linux/fuse.h` of the kernel.
//!
//! Stage: under the doors that speak FUSE. A ring belongs to one thread and holds
//! entries of one or several of the mount's queues, of which the kernel has one
//! for each processor. An entry holds one request at a time: the kernel writes it
//! there, its answer is written to the same place.
//!
//! - An entry is the kernel's from [`FuseRing::register`] or [`FuseRing::commit`]
//!   until [`FuseRing::next`] returns it, and the caller's from then on.
//! - The kernel writes to entries within the calls of this module alone: a ring
//!   whose tasks are deferred (`IORING_SETUP_DEFER_TASKRUN`) runs them only in
//!   `io_uring_enter` of the thread that enabled it.
//!
//! Does not: interpret requests.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use io_uring::{IoUring, opcode, squeue, types};

const REGISTER: u32 = 1;
const COMMIT_AND_FETCH: u32 = 2;

/// What REGISTER names: header and payload.
const SEGMENTS: u32 = 2;

/// Where `len` lies in a submission, which the command's builder does not set.
const SUBMISSION_LEN_OFFSET: usize = 24;

/// The part of an entry that a request's first argument lies in.
pub const ARGUMENT_BYTES_MAX: usize = 128;

/// The payload begins at an address that direct I/O takes.
const ALIGNMENT: usize = 4096;

/// `struct fuse_uring_req_header`.
#[repr(C)]
#[derive(Debug)]
struct EntryHeader {
    /// `struct fuse_in_header` of the request, then `fuse_out_header` of the
    /// answer.
    in_out: [u8; 128],
    argument: [u8; ARGUMENT_BYTES_MAX],
    flags: u64,
    commit_id: u64,
    payload_bytes: u32,
    padding: u32,
    reserved: u64,
}

const _: () = assert!(size_of::<EntryHeader>() == 288);
const _: () = assert!(size_of::<squeue::Entry128>() == 128);

/// Names an entry of a ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EntryId(usize);

#[derive(Debug)]
struct Entry {
    queue: u16,
    /// The caller may touch header and payload.
    ours: bool,
    header: Box<EntryHeader>,
    /// Longer than the payload by what aligns it.
    room: Vec<u8>,
    start: usize,
    /// Two `struct iovec`, which the kernel reads when the entry is registered.
    segments: Box<[u64; 4]>,
}

/// A request in an entry. What was asked for lies in `header` and `argument`;
/// what follows it in the first `payload_bytes` of `payload`, where the answer
/// goes too.
#[derive(Debug)]
pub struct Arrival<'a> {
    /// `struct fuse_in_header` and more room.
    pub header: &'a [u8],
    /// The first argument, longer than it is.
    pub argument: &'a [u8],
    /// How many bytes of the payload belong to the request.
    pub payload_bytes: usize,
    /// All of the payload's room.
    pub payload: &'a mut [u8],
}

/// What a wait ended with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// A request lies in this entry.
    Request(EntryId),
    /// The mount is gone.
    Unmounted,
}

/// See the module's description.
pub struct FuseRing {
    // Closed before the entries are freed.
    ring: IoUring<squeue::Entry128>,
    entries: Vec<Entry>,
    device: OwnedFd,
}

impl std::fmt::Debug for FuseRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let entries = &self.entries;
        f.debug_struct("FuseRing")
            .field("entries", entries)
            .finish_non_exhaustive()
    }
}

impl FuseRing {
    /// A ring with one entry for each of `queues`, with payloads of so many
    /// bytes, for the mount that `device` serves. It is not registered yet.
    /// `resident` payloads are in memory from the start, where their owner counts
    /// them; others come with their first request.
    ///
    /// # Errors
    /// What `io_uring_setup` says: ENOSYS or EPERM where rings are missing or
    /// forbidden, EINVAL before Linux 6.1.
    ///
    /// # Panics
    /// When `queues` is empty.
    pub fn new(
        device: OwnedFd,
        queues: &[u16],
        payload_bytes: usize,
        resident: bool,
    ) -> io::Result<FuseRing> {
        assert!(!queues.is_empty(), "a ring has an entry");
        let ring = IoUring::builder()
            .setup_r_disabled()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .build(queues.len() as u32)?;
        let entry = |queue: &u16| Entry::new(*queue, payload_bytes, resident);
        Ok(FuseRing {
            ring,
            entries: queues.iter().map(entry).collect(),
            device,
        })
    }

    /// Gives all entries to the kernel. From here on the ring is the calling
    /// thread's. The mount works once each of its queues has an entry.
    ///
    /// # Errors
    /// What the kernel says: EINVAL for a queue that it does not have, or a
    /// payload shorter than the longest request. The mount then goes on by
    /// `/dev/fuse`, and this ring is of no use.
    pub fn register(&mut self) -> io::Result<()> {
        self.ring.submitter().register_enable_rings()?;
        for id in 0..self.entries.len() {
            let mut submission = self.command(id, REGISTER, 0);
            // SAFETY: the field lies within the submission, which is 128 bytes
            // of plain data (checked above) and aligned for it.
            let len = unsafe { (&raw mut submission).byte_add(SUBMISSION_LEN_OFFSET) };
            // SAFETY: as above, and nobody else refers to it.
            unsafe { len.cast::<u32>().write(SEGMENTS) };
            self.entries[id].ours = false;
            self.push(&submission);
        }
        self.enter(0)?;
        // An entry that was taken completes with its first request; requests
        // do not come before a call that waits.
        match self.ring.completion().find(|entry| entry.result() < 0) {
            Some(failed) => Err(io::Error::from_raw_os_error(-failed.result())),
            None => Ok(()),
        }
    }

    /// Has the kernel take what was committed, and waits for a request.
    ///
    /// # Errors
    /// What the kernel says of an answer that it does not take.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> io::Result<Next> {
        loop {
            let waiting = !self.ring.completion().is_empty();
            if !waiting || !self.ring.submission().is_empty() {
                self.enter(usize::from(!waiting))?;
            }
            let Some(done) = self.ring.completion().next() else {
                continue;
            };
            return match -done.result() {
                ..=0 => {
                    let id = done.user_data() as usize;
                    self.entries[id].ours = true;
                    Ok(Next::Request(EntryId(id)))
                }
                libc::ENOTCONN | libc::ECONNABORTED | libc::ENODEV | libc::ECANCELED => {
                    Ok(Next::Unmounted)
                }
                error => Err(io::Error::from_raw_os_error(error)),
            };
        }
    }

    /// The request in an entry.
    ///
    /// # Panics
    /// When the entry is the kernel's.
    pub fn arrival(&mut self, EntryId(id): EntryId) -> Arrival<'_> {
        let entry = &mut self.entries[id];
        assert!(entry.ours, "the kernel may write to it");
        let payload = &mut entry.room[entry.start..];
        let room = payload.len() - (ALIGNMENT - entry.start);
        let payload = &mut payload[..room];
        Arrival {
            header: &entry.header.in_out,
            argument: &entry.header.argument,
            payload_bytes: (entry.header.payload_bytes as usize).min(payload.len()),
            payload,
        }
    }

    /// Answers the request in an entry with `header` (`struct fuse_out_header`)
    /// and the first `payload_bytes` of its payload. The kernel learns of it by
    /// [`next`](FuseRing::next) or [`send`](FuseRing::send).
    ///
    /// # Panics
    /// When the entry is the kernel's.
    pub fn commit(&mut self, EntryId(id): EntryId, header: [u8; 16], payload_bytes: usize) {
        let entry = &mut self.entries[id];
        assert!(entry.ours, "a request is answered once");
        entry.header.in_out[..16].copy_from_slice(&header);
        entry.header.payload_bytes = payload_bytes as u32;
        entry.ours = false;
        let submission = self.command(id, COMMIT_AND_FETCH, self.entries[id].header.commit_id);
        self.push(&submission);
    }

    /// Has the kernel take what was committed without waiting for a request.
    ///
    /// # Errors
    /// Whatever `io_uring_enter(2)` reports.
    pub fn send(&mut self) -> io::Result<()> {
        self.enter(0)
    }

    fn command(&self, id: usize, command: u32, commit_id: u64) -> squeue::Entry128 {
        let entry = &self.entries[id];
        // `struct fuse_uring_cmd_req`: flags, commit id, queue.
        let mut fields = [0; 80];
        fields[8..16].copy_from_slice(&commit_id.to_ne_bytes());
        fields[16..18].copy_from_slice(&entry.queue.to_ne_bytes());
        opcode::UringCmd80::new(types::Fd(self.device.as_raw_fd()), command)
            .cmd(fields)
            .addr(Some(entry.segments.as_ptr() as u64))
            .build()
            .user_data(id as u64)
    }

    fn push(&mut self, submission: &squeue::Entry128) {
        // SAFETY: it names a descriptor and buffers that live as long as the
        // ring, which is closed before they are freed; the kernel writes to them
        // within our calls only, and nobody has a reference to a buffer then,
        // because `arrival` borrows the ring.
        let pushed = unsafe { self.ring.submission().push(submission) };
        assert!(pushed.is_ok(), "an entry has one submission at a time");
    }

    fn enter(&mut self, wanted: usize) -> io::Result<()> {
        match self.ring.submit_and_wait(wanted) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            other => other.map(drop),
        }
    }
}

impl Entry {
    fn new(queue: u16, payload_bytes: usize, resident: bool) -> Entry {
        // Zeros would be there only once written.
        let fill = if resident { u8::MAX } else { 0 };
        let room = vec![fill; payload_bytes + ALIGNMENT];
        let start = room.as_ptr().align_offset(ALIGNMENT);
        let header = Box::new(EntryHeader {
            in_out: [0; 128],
            argument: [0; ARGUMENT_BYTES_MAX],
            flags: 0,
            commit_id: 0,
            payload_bytes: 0,
            padding: 0,
            reserved: 0,
        });
        let segments = Box::new([
            (&raw const *header) as u64,
            size_of::<EntryHeader>() as u64,
            room.as_ptr() as u64 + start as u64,
            payload_bytes as u64,
        ]);
        Entry {
            queue,
            ours: true,
            header,
            room,
            start,
            segments,
        }
    }
}

/// The processors of a list in sysfs, such as `0-3,8`.
fn listed(text: &str) -> Option<Vec<u16>> {
    let mut all = Vec::new();
    for range in text.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        all.extend(first.parse::<u16>().ok()?..=last.parse().ok()?);
    }
    Some(all)
}

/// The mount's queues: of processors that are there, and of those that may come.
///
/// # Errors
/// When sysfs does not tell.
pub fn queues() -> io::Result<(Vec<u16>, Vec<u16>)> {
    let read = |name: &str| {
        let text = std::fs::read_to_string(format!("/sys/devices/system/cpu/{name}"))?;
        listed(&text).ok_or(io::Error::from(io::ErrorKind::InvalidData))
    };
    let (online, possible) = (read("online")?, read("possible")?);
    let later = possible.into_iter().filter(|cpu| !online.contains(cpu));
    let later = later.collect();
    Ok((online, later))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_processors_is_read() {
        assert_eq!(listed("0-3,8\n"), Some(vec![0, 1, 2, 3, 8]));
        assert_eq!(listed("0"), Some(vec![0]));
        assert_eq!(listed("a-b"), None);
        let (online, later) = queues().expect("Linux tells");
        assert!(online.contains(&0));
        assert!(later.iter().all(|cpu| !online.contains(cpu)));
    }

    #[test]
    fn a_file_of_another_kind_takes_no_ring() {
        let device = std::fs::File::open("/proc/self/exe").expect("a file");
        let mut ring = FuseRing::new(device.into(), &[0], 8192, true).expect("a ring");
        assert!(ring.register().is_err());
    }
}
