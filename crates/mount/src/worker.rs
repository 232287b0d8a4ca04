//! Serves requests that come by `/dev/fuse`.
//!
//! Stage: between the device and the filesystem. Each worker is a thread with
//! its own descriptor and its own buffers; a request is carried out by the
//! worker that received it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;

use crate::crew::{Crew, Post};
use crate::device::{Device, Received};
use crate::room::{self, Room};
use crate::serve::Filesystem;
use crate::session::Transfer;
use crate::wire::abi::opcode;
use crate::wire::{Answer, Fields, Header};

/// Counts of requests.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    pub(crate) served: AtomicU64,
    pub(crate) failed: AtomicU64,
    /// Of those served, what came by io_uring.
    pub(crate) by_ring: AtomicU64,
}

impl Requests {
    /// Carries out a request that is no READ and writes its answer; gives its
    /// error number. `None` when nobody waits for an answer.
    pub(crate) fn serve(
        &self,
        filesystem: &Filesystem,
        header: &Header,
        fields: Fields<'_>,
        answer: &mut Answer,
    ) -> Option<i32> {
        match header.opcode {
            opcode::FORGET | opcode::BATCH_FORGET => {
                // There is nobody to be told of an error.
                let _ = filesystem.forget(header, fields);
                None
            }
            // What is asked for is short or uninterruptible in the source.
            opcode::INTERRUPT => None,
            _ => {
                answer.clear();
                let done = filesystem.serve(header, fields, answer);
                Some(done.map_or_else(
                    |error| {
                        self.failed.fetch_add(1, Relaxed);
                        error.raw_os_error()
                    },
                    |()| 0,
                ))
            }
        }
    }
}

/// One thread's part of serving a mount.
pub(crate) struct Worker {
    device: Device,
    filesystem: Arc<Filesystem>,
    requests: Arc<Requests>,
    crew: Arc<Crew>,
    post: Arc<Post>,
    request: Vec<u8>,
    answer: Answer,
    /// Room for the longest read.
    pages: Room,
    /// Bytes of each of these pages that exist, where known.
    lens: Vec<Option<usize>>,
}

impl Worker {
    /// One of those that were asked for, or an `extra` one.
    pub(crate) fn new(
        device: Device,
        filesystem: &Arc<Filesystem>,
        requests: &Arc<Requests>,
        transfer: Transfer,
        crew: &Arc<Crew>,
        extra: bool,
    ) -> Worker {
        Worker {
            device,
            filesystem: Arc::clone(filesystem),
            requests: Arc::clone(requests),
            crew: Arc::clone(crew),
            post: crew.join(extra),
            request: room::bytes(transfer.request_bytes(), !extra),
            answer: Answer::default(),
            pages: Room::new(transfer.pages(), !extra),
            lens: vec![None; transfer.pages()],
        }
    }

    pub(crate) fn start(mut self, number: usize) -> io::Result<thread::JoinHandle<io::Result<()>>> {
        let name = format!("zcache-mount-{number}");
        thread::Builder::new().name(name).spawn(move || self.run())
    }

    /// Serves until the mount is gone or others suffice.
    fn run(&mut self) -> io::Result<()> {
        loop {
            match self.device.receive(&mut self.request)? {
                Received::Request(len) => {
                    self.post.begin(len);
                    self.serve(len)?;
                    self.post.end();
                    if self.crew.may_leave(&self.post) {
                        return Ok(());
                    }
                }
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
            answer,
            pages,
            lens,
            ..
        } = self;
        let Ok((header, fields)) = Header::parse(&request[..len]) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        requests.served.fetch_add(1, Relaxed);
        if header.opcode != opcode::READ {
            return match requests.serve(filesystem, &header, fields, answer) {
                Some(error) => device.answer(answer.finish(header.unique, error, 0), &[]),
                None => Ok(()),
            };
        }
        let (error, len, fresh) = match filesystem.read(fields, pages, lens) {
            Ok(answered) => (0, answered.len, answered.fresh),
            Err(error) => (error.raw_os_error(), 0, None),
        };
        let head = Answer::header(header.unique, error, len);
        device.answer(&head, &pages.as_flattened()[..len])?;
        if let Some(mut fresh) = fresh {
            filesystem.choose(&mut fresh);
            filesystem.keep(&fresh, pages);
        }
        Ok(())
    }
}
