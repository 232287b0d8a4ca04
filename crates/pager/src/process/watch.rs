//! What the tracer is to look at beside its tracees: the user's signals and the
//! front's end, both read by a thread of their own, which pokes the tracer.

use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use zcache_sys::fd::Epoll;
use zcache_sys::process::Signals;

use crate::pager::Pager;

const TOKEN_SIGNALS: u64 = 1;
const TOKEN_FRONT: u64 = 2;

/// See the module's description.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    summary_wanted: AtomicBool,
    front_gone: AtomicBool,
    /// Bytes that the front has written: one for each time that it went on.
    acknowledged: AtomicU64,
    begun: AtomicBool,
}

impl Watch {
    pub(crate) fn take_summary_wanted(&self) -> bool {
        self.summary_wanted.swap(false, Ordering::AcqRel)
    }

    pub(crate) fn is_front_gone(&self) -> bool {
        self.front_gone.load(Ordering::Acquire)
    }

    /// How often the front has said that it goes on.
    pub(crate) fn front_acknowledged(&self) -> u64 {
        match self.front_gone.load(Ordering::Acquire) {
            true => u64::MAX,
            false => self.acknowledged.load(Ordering::Acquire),
        }
    }

    /// The program's first image runs.
    pub(crate) fn begin(&self) {
        self.begun.store(true, Ordering::Release);
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }

    /// Watches until the front has left and the run has ended.
    pub(crate) fn run(&self, pager: &Arc<Pager>, signals: &Signals, mut front: UnixStream) {
        let Ok(epoll) = Epoll::new() else { return };
        let added = epoll
            .add(signals.as_fd(), TOKEN_SIGNALS)
            .and_then(|()| epoll.add(front.as_fd(), TOKEN_FRONT));
        if added.is_err() {
            return;
        }
        let mut tokens = Vec::new();
        while epoll.wait(&mut tokens, None).is_ok() {
            while let Some(arrived) = signals.next() {
                if arrived.signal == libc::SIGUSR1 {
                    self.summary_wanted.store(true, Ordering::Release);
                }
            }
            if tokens.contains(&TOKEN_FRONT) {
                let mut bytes = [0u8; 64];
                match front.read(&mut bytes) {
                    Ok(count @ 1..) => {
                        self.acknowledged.fetch_add(count as u64, Ordering::AcqRel);
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Ok(_) | Err(_) => {
                        self.front_gone.store(true, Ordering::Release);
                        let _ = epoll.remove(front.as_fd());
                    }
                }
            }
            tokens.clear();
            pager.tracer.poke();
        }
    }
}
