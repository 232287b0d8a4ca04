//! What the kernel is to be told: which of its pages, attributes and names are
//! not the source's any more.
//!
//! Stage: from whoever notices a change beside the mount to one thread that
//! tells the kernel. Telling waits for requests that are being served, so no
//! worker may do it.
//!
//! - At most [`NOTICES_MAX`] inodes and as many names wait. One more inode, and
//!   all of them are looked through instead; one more name is left to the end of
//!   its lifetime.
//! - A notice is taken in the order of nothing: each stands for itself.
//! - Linux drops the attributes of an answer that is on its way when a notice of
//!   the same inode arrives. So what was found out for an answer is told
//!   [`ANSWER_TAKEN`] later: its attributes say the same until then.

use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, CString};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How many inodes, and how many names, may wait.
pub(crate) const NOTICES_MAX: usize = 4096;

/// By then who asked has taken an answer that was about to be sent.
const ANSWER_TAKEN: Duration = Duration::from_millis(200);

/// What of an inode is not the source's any more.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Outdated {
    Attributes,
    /// Attributes and contents.
    Contents,
}

/// What is to be told.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    pub(crate) nodes: HashMap<u64, Outdated>,
    pub(crate) names: HashSet<(u64, CString)>,
    /// More inodes than could be noted: all whose contents the kernel has.
    pub(crate) all: bool,
    /// More inodes than are to be remembered.
    pub(crate) too_many: bool,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.nodes.is_empty() && self.names.is_empty() && !self.all && !self.too_many
    }
}

/// What waits to be told.
#[derive(Debug, Default)]
struct Waiting {
    now: Pending,
    /// Inodes whose contents are outdated, and from when on to tell.
    later: HashMap<u64, Instant>,
    ended: bool,
}

impl Waiting {
    /// What is to be told at this moment, and how long the next one waits.
    fn take(&mut self, moment: Instant) -> (Pending, Option<Duration>) {
        let mut pending = std::mem::take(&mut self.now);
        let due = self.later.extract_if(|_, due| *due <= moment);
        let due = due.map(|(node, _)| (node, Outdated::Contents));
        pending.nodes.extend(due);
        let next = self.later.values().min();
        (pending, next.map(|due| *due - moment))
    }
}

/// See the module's description.
#[derive(Debug, Default)]
pub(crate) struct Notices {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
    /// What the kernel was told.
    pub(crate) sent: AtomicU64,
    /// Names that were left to the end of their lifetime.
    pub(crate) unsent: AtomicU64,
}

impl Notices {
    /// Something of an inode is outdated.
    pub(crate) fn inode(&self, node: u64, what: Outdated) {
        let pending = &mut self.lock().now;
        if pending.nodes.len() < NOTICES_MAX || pending.nodes.contains_key(&node) {
            let known = pending.nodes.entry(node).or_insert(what);
            *known = what.max(*known);
        } else if what == Outdated::Contents {
            pending.all = true;
        }
        self.arrived.notify_one();
    }

    /// The contents of an inode are outdated, as an answer says that is about to
    /// be sent.
    pub(crate) fn contents_later(&self, node: u64) {
        let mut waiting = self.lock();
        match waiting.later.len() < NOTICES_MAX {
            true => {
                let due = Instant::now() + ANSWER_TAKEN;
                waiting.later.entry(node).or_insert(due);
            }
            false => waiting.now.all = true,
        }
        self.arrived.notify_one();
    }

    /// A name in a folder stands for something else, or for nothing.
    pub(crate) fn name(&self, folder: u64, name: &CStr) {
        let pending = &mut self.lock().now;
        match pending.names.len() < NOTICES_MAX {
            true => drop(pending.names.insert((folder, name.to_owned()))),
            false => drop(self.unsent.fetch_add(1, Relaxed)),
        }
        self.arrived.notify_one();
    }

    /// Any inode may be outdated.
    pub(crate) fn all(&self) {
        self.lock().now.all = true;
        self.arrived.notify_one();
    }

    /// The kernel is to forget some inodes.
    pub(crate) fn too_many(&self) {
        self.lock().now.too_many = true;
        self.arrived.notify_one();
    }

    /// Nobody is to be told anything more.
    pub(crate) fn end(&self) {
        self.lock().ended = true;
        self.arrived.notify_one();
    }

    /// Waits for notices and takes all; `None` at the end.
    pub(crate) fn take(&self) -> Option<Pending> {
        let mut waiting = self.lock();
        loop {
            if waiting.ended {
                return None;
            }
            let (pending, next) = waiting.take(Instant::now());
            if !pending.is_empty() {
                return Some(pending);
            }
            let bound = next.unwrap_or(Duration::MAX);
            let woken = self.arrived.wait_timeout(waiting, bound);
            waiting = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_count_more_than_attributes_and_too_many_are_all() {
        let notices = Notices::default();
        notices.inode(7, Outdated::Contents);
        notices.inode(7, Outdated::Attributes);
        notices.name(1, c"a");
        notices.name(1, c"a");
        let pending = notices.take().expect("notices");
        assert_eq!(pending.nodes[&7], Outdated::Contents);
        assert_eq!((pending.names.len(), pending.all), (1, false));
        for node in 0..NOTICES_MAX as u64 + 1 {
            notices.inode(node, Outdated::Contents);
        }
        let pending = notices.take().expect("notices");
        assert_eq!((pending.nodes.len(), pending.all), (NOTICES_MAX, true));
        let before = Instant::now();
        notices.contents_later(9);
        let pending = notices.take().expect("notices");
        assert!(before.elapsed() >= ANSWER_TAKEN, "{:?}", before.elapsed());
        assert_eq!(pending.nodes[&9], Outdated::Contents);
        notices.end();
        assert!(notices.take().is_none());
    }
}
