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

use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, CString};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// How many inodes, and how many names, may wait.
pub(crate) const NOTICES_MAX: usize = 4096;

/// What of an inode is not the source's any more.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Outdated {
    Attributes,
    /// Attributes and contents.
    Contents,
}

/// What waits to be told.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    pub(crate) nodes: HashMap<u64, Outdated>,
    pub(crate) names: HashSet<(u64, CString)>,
    /// More inodes than could be noted: all whose contents the kernel has.
    pub(crate) all: bool,
    /// More inodes than are to be remembered.
    pub(crate) too_many: bool,
    ended: bool,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.nodes.is_empty() && self.names.is_empty() && !self.all && !self.too_many
    }
}

/// See the module's description.
#[derive(Debug, Default)]
pub(crate) struct Notices {
    pending: Mutex<Pending>,
    arrived: Condvar,
    /// What the kernel was told.
    pub(crate) sent: AtomicU64,
    /// Names that were left to the end of their lifetime.
    pub(crate) unsent: AtomicU64,
}

impl Notices {
    /// Something of an inode is outdated.
    pub(crate) fn inode(&self, node: u64, what: Outdated) {
        let mut pending = self.lock();
        if pending.nodes.len() < NOTICES_MAX || pending.nodes.contains_key(&node) {
            let known = pending.nodes.entry(node).or_insert(what);
            *known = what.max(*known);
        } else if what == Outdated::Contents {
            pending.all = true;
        }
        self.arrived.notify_one();
    }

    /// A name in a folder stands for something else, or for nothing.
    pub(crate) fn name(&self, folder: u64, name: &CStr) {
        let mut pending = self.lock();
        match pending.names.len() < NOTICES_MAX {
            true => drop(pending.names.insert((folder, name.to_owned()))),
            false => drop(self.unsent.fetch_add(1, Relaxed)),
        }
        self.arrived.notify_one();
    }

    /// Any inode may be outdated.
    pub(crate) fn all(&self) {
        self.lock().all = true;
        self.arrived.notify_one();
    }

    /// The kernel is to forget some inodes.
    pub(crate) fn too_many(&self) {
        self.lock().too_many = true;
        self.arrived.notify_one();
    }

    /// Nobody is to be told anything more.
    pub(crate) fn end(&self) {
        self.lock().ended = true;
        self.arrived.notify_one();
    }

    /// Waits for notices and takes all; `None` at the end.
    pub(crate) fn take(&self) -> Option<Pending> {
        let mut pending = self.lock();
        loop {
            if pending.ended {
                return None;
            }
            if !pending.is_empty() {
                return Some(std::mem::take(&mut *pending));
            }
            let woken = self.arrived.wait(pending);
            pending = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
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
        notices.end();
        assert!(notices.take().is_none());
    }
}
