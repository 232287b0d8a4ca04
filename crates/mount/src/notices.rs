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
//!   [`ANSWER_TAKEN`] later: its attributes say the same until then. And who opens
//!   a file takes its attributes next, so an open has what is being told of it
//!   told before, and the rest later.

use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, CString};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How many inodes, and how many names, may wait.
pub(crate) const NOTICES_MAX: usize = 4096;

/// By then who asked has taken an answer that was about to be sent.
const ANSWER_TAKEN: Duration = Duration::from_millis(200);

/// However often a file is opened, what is outdated of it is told by then.
const DELAY_MAX: Duration = Duration::from_secs(1);

/// How long an open waits for what is being told, which may wait for others.
const TELLING_MAX: Duration = Duration::from_millis(50);

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

/// When to tell, and how late that may become.
#[derive(Clone, Copy, Debug)]
struct Due {
    at: Instant,
    latest: Instant,
}

/// What waits to be told.
#[derive(Debug, Default)]
struct Waiting {
    now: Pending,
    /// Inodes whose contents are outdated, and from when on to tell.
    later: HashMap<u64, Due>,
    /// Inodes that are being told of.
    telling: HashSet<u64>,
    ended: bool,
}

impl Waiting {
    /// What is to be told at this moment, and how long the next one waits.
    fn take(&mut self, moment: Instant) -> (Pending, Option<Duration>) {
        let mut pending = std::mem::take(&mut self.now);
        let due = self.later.extract_if(|_, due| due.at <= moment);
        let due = due.map(|(node, _)| (node, Outdated::Contents));
        pending.nodes.extend(due);
        self.telling = pending.nodes.keys().copied().collect();
        let next = self.later.values().map(|due| due.at).min();
        (pending, next.map(|due| due - moment))
    }

    fn put_later(&mut self, node: u64, moment: Instant) {
        if self.later.len() >= NOTICES_MAX && !self.later.contains_key(&node) {
            self.now.all = true;
            return;
        }
        let at = moment + ANSWER_TAKEN;
        let latest = moment + DELAY_MAX;
        let due = self.later.entry(node).or_insert(Due { at, latest });
        due.at = at.min(due.latest);
    }
}

/// See the module's description.
#[derive(Debug, Default)]
pub(crate) struct Notices {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
    /// Something has been told.
    told: Condvar,
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
        self.lock().put_later(node, Instant::now());
        self.arrived.notify_one();
    }

    /// An answer is about to be sent after which the kernel asks for the attributes
    /// of an inode: nothing else is told of it until it has them.
    pub(crate) fn after_answer(&self, node: u64) {
        let moment = Instant::now();
        let mut waiting = self.lock();
        let contents = waiting.now.nodes.remove(&node) == Some(Outdated::Contents);
        if contents || waiting.later.contains_key(&node) {
            waiting.put_later(node, moment);
            self.arrived.notify_one();
        }
        while waiting.telling.contains(&node) {
            let left = TELLING_MAX.saturating_sub(moment.elapsed());
            if left.is_zero() {
                return;
            }
            let woken = self.told.wait_timeout(waiting, left);
            waiting = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The kernel has been told of an inode.
    pub(crate) fn is_told(&self, node: u64) {
        self.lock().telling.remove(&node);
        self.told.notify_all();
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
        notices.is_told(9);
        notices.inode(5, Outdated::Contents);
        notices.inode(6, Outdated::Contents);
        notices.after_answer(5);
        let pending = notices.take().expect("notices");
        assert_eq!(pending.nodes.keys().collect::<Vec<_>>(), [&6]);
        // What is being told is waited for, but not for long.
        let before = Instant::now();
        notices.after_answer(6);
        assert!(before.elapsed() >= TELLING_MAX);
        notices.is_told(6);
        let pending = notices.take().expect("notices");
        assert_eq!(pending.nodes[&5], Outdated::Contents);
        notices.end();
        assert!(notices.take().is_none());
    }
}
