//! Serves requests that come by io_uring.
//!
//! Stage: between the kernel's queues and the filesystem, beside a worker that
//! gets by `/dev/fuse` what does not come this way (FORGET and INTERRUPT).
//!
//! - The kernel has a queue for each processor, and puts a request into that of
//!   the processor that asks. Each queue of a processor that is there has
//!   several workers, of which the first stays on that processor: there it is
//!   woken without an interrupt to another one. Processors that may still come
//!   share one worker.
//! - A read's pages are decoded where the kernel takes them from. They are the
//!   kernel's again once the answer is sent, so what is to be kept is copied
//!   before.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::Sender;
use std::thread;

use zcache::PAGE_SIZE;
use zcache_sys::fusering::{self, EntryId, FuseRing, Next};
use zcache_sys::process;

use crate::config::RAM_BYTES_MIN;
use crate::crew::{Crew, Post};
use crate::device::Device;
use crate::room::Room;
use crate::serve::Filesystem;
use crate::session::Transfer;
use crate::wire::abi::opcode;
use crate::wire::{Answer, Header};
use crate::worker::Requests;

/// Where an administrator allows rings to FUSE.
pub(crate) const SWITCH: &str = "/sys/module/fuse/parameters/enable_uring";

/// Rings beyond those that are asked for, of all queues, at most; and of one queue
/// at least.
const SPARES: usize = 32;
const SPARES_MIN: usize = 2;

/// New rings for each that is held up: what waits in a queue comes to them only
/// behind what comes later.
pub(crate) const PER_HELD_UP: usize = 4;

/// A ring of the mount, before its thread runs.
pub(crate) struct Ring {
    ring: FuseRing,
    /// The processor that its thread stays on.
    processor: Option<u16>,
    /// The queue of a processor that is there.
    pub(crate) queue: Option<u16>,
    /// Beyond those that the mount needs.
    pub(crate) extra: bool,
}

/// The rings that a mount needs: at least one for each of the kernel's queues,
/// and `threads` in all.
pub(crate) fn rings(
    device: &Device,
    transfer: Transfer,
    threads: usize,
    ram_bytes: u64,
) -> io::Result<Vec<Ring>> {
    let (online, later) = fusering::queues()?;
    let mut rings = Vec::new();
    // First, for the kernel takes the ring that came last.
    for queue in &online {
        for _ in 0..spare(online.len(), transfer, ram_bytes) {
            rings.push(extra_ring(device, *queue, transfer)?);
        }
    }
    for number in 0..each(threads, online.len()) {
        for queue in &online {
            rings.push(Ring {
                ring: fuse_ring(device, &[*queue], transfer, true)?,
                processor: (number == 0).then_some(*queue),
                queue: Some(*queue),
                extra: false,
            });
        }
    }
    if !later.is_empty() {
        // Most of these processors never come.
        rings.push(Ring {
            ring: fuse_ring(device, &later, transfer, false)?,
            processor: None,
            queue: None,
            extra: false,
        });
    }
    Ok(rings)
}

/// Rings of each queue of a processor that is there, of which there are so many.
pub(crate) fn each(threads: usize, queues: usize) -> usize {
    threads.div_ceil(queues.max(1)).max(1)
}

/// Rings of each queue that are there for when the others are held up: the kernel
/// hands what waits in a queue to a ring that answered, not to one that is new.
fn spare(queues: usize, transfer: Transfer, ram_bytes: u64) -> usize {
    // Each has room for what a read brings, and for what is kept of it. The least
    // budget has none for them.
    let beyond_least = ram_bytes.saturating_sub(RAM_BYTES_MIN);
    let rooms = beyond_least / (2 * transfer.bytes()) as u64;
    let spares = usize::try_from(rooms).map_or(SPARES, |rooms| rooms.min(SPARES));
    (spares / queues.max(1)).max(SPARES_MIN)
}

/// One more ring for a queue.
pub(crate) fn extra_ring(device: &Device, queue: u16, transfer: Transfer) -> io::Result<Ring> {
    Ok(Ring {
        ring: fuse_ring(device, &[queue], transfer, false)?,
        processor: None,
        queue: Some(queue),
        extra: true,
    })
}

fn fuse_ring(
    device: &Device,
    queues: &[u16],
    transfer: Transfer,
    resident: bool,
) -> io::Result<FuseRing> {
    let device: OwnedFd = device.as_file().as_fd().try_clone_to_owned()?;
    // A write's bytes are its payload, and the kernel may ask for no less than a
    // page beside them.
    FuseRing::new(device, queues, transfer.request_bytes(), resident)
}

/// One thread's part of serving a mount.
pub(crate) struct RingWorker {
    ring: Ring,
    filesystem: Arc<Filesystem>,
    requests: Arc<Requests>,
    post: Arc<Post>,
    answer: Answer,
    lens: Vec<Option<usize>>,
    /// Pages that are to be kept once their answer is sent.
    kept: Room,
}

impl RingWorker {
    pub(crate) fn new(
        ring: Ring,
        filesystem: &Arc<Filesystem>,
        requests: &Arc<Requests>,
        transfer: Transfer,
        crew: &Crew,
    ) -> RingWorker {
        let extra = ring.extra;
        RingWorker {
            ring,
            filesystem: Arc::clone(filesystem),
            requests: Arc::clone(requests),
            // The kernel keeps what it knows of a ring, so none is taken away.
            post: crew.join(false),
            answer: Answer::default(),
            lens: vec![None; transfer.pages()],
            kept: Room::new(transfer.pages(), !extra),
        }
    }

    /// Starts the thread, which says to `registered` whether the kernel took
    /// its ring.
    pub(crate) fn start(
        mut self,
        number: usize,
        registered: Sender<io::Result<()>>,
    ) -> io::Result<thread::JoinHandle<io::Result<()>>> {
        let name = format!("zcache-ring-{number}");
        thread::Builder::new().name(name).spawn(move || {
            if let Some(processor) = self.ring.processor {
                // Where it may not run there, it is woken from there.
                let _ = process::run_on(&[processor.into()]);
            }
            let result = self.ring.ring.register();
            let refused = result.is_err();
            // Who asked waits for all answers.
            let _ = registered.send(result);
            drop(registered);
            match refused {
                true => Ok(()),
                false => self.run(),
            }
        })
    }

    /// Serves until the mount is gone.
    fn run(&mut self) -> io::Result<()> {
        loop {
            match self.ring.ring.next()? {
                Next::Request(entry) => {
                    let bytes = self.ring.ring.arrival(entry).payload_bytes;
                    self.post.begin(bytes);
                    self.serve(entry)?;
                    self.post.end();
                }
                Next::Unmounted => return Ok(()),
            }
        }
    }

    fn serve(&mut self, entry: EntryId) -> io::Result<()> {
        let RingWorker {
            ring: Ring { ring, .. },
            filesystem,
            requests,
            answer,
            lens,
            kept,
            ..
        } = self;
        let arrival = ring.arrival(entry);
        let rest = &arrival.payload[..arrival.payload_bytes];
        let parsed = Header::parse_parts(arrival.header, arrival.argument, rest);
        let Ok((header, fields)) = parsed else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        requests.served.fetch_add(1, Relaxed);
        requests.by_ring.fetch_add(1, Relaxed);
        if header.opcode != opcode::READ {
            // What needs no answer is not sent this way, but would wait for one.
            let served = requests.serve(filesystem, &header, fields, answer);
            let error = served.unwrap_or(0);
            let body = if error == 0 { answer.body() } else { &[] };
            arrival.payload[..body.len()].copy_from_slice(body);
            let head = Answer::header(header.unique, error, body.len());
            let len = body.len();
            ring.commit(entry, head, len);
            return Ok(());
        }
        // The argument alone says what is wanted.
        let Ok((header, fields)) = Header::parse_parts(arrival.header, arrival.argument, &[])
        else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let (pages, _) = arrival.payload.as_chunks_mut::<PAGE_SIZE>();
        let pages = &mut pages[..lens.len()];
        let (error, len, fresh) = match filesystem.read(fields, pages, lens) {
            Ok(answered) => (0, answered.len, answered.fresh),
            Err(error) => (error.raw_os_error(), 0, None),
        };
        let fresh = fresh.and_then(|mut fresh| {
            filesystem.choose(&mut fresh);
            fresh.move_to(pages, kept);
            (!fresh.is_empty()).then_some(fresh)
        });
        ring.commit(entry, Answer::header(header.unique, error, len), len);
        if let Some(fresh) = fresh {
            ring.send()?;
            filesystem.keep(&fresh, kept);
        }
        Ok(())
    }
}
