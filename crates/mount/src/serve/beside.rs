//! Changes beside the mount: what is known of a file is dropped here, and the
//! kernel is told by a thread of its own.
//!
//! Lock order: the watch, then the inode table, then one file's state, then a
//! shard of the store. Nothing here waits for the source.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use zcache_sys::fanotify::Event;

use super::Filesystem;
use crate::cache::Watched;
use crate::inodes::Inode;
use crate::notices::{Outdated, Pending};
use crate::source::{self, Look};
use crate::watch::Taken;
use crate::wire::Answer;
use crate::wire::abi::notice;

/// How often the thread that watches looks whether the mount is gone.
const PERIOD: Duration = Duration::from_millis(100);

/// After events that did not matter here: other events of the same files join
/// those that wait, so a filesystem that is busy elsewhere costs little.
const REST: Duration = Duration::from_millis(5);

/// Inodes that one notice says to be forgotten.
const PRUNED_AT_ONCE: usize = 512;

/// How often files that are open are looked at, and how many at once.
const LOOK_PERIOD: Duration = Duration::from_millis(500);
const LOOKS_MAX: usize = 4096;

/// How often it is looked which files were unlinked without our being told.
const UNLINKED_PERIOD: Duration = Duration::from_secs(3);

impl Filesystem {
    /// Whether every change of a file beside us is told.
    pub(crate) fn watched(&self, inode: &Inode) -> Watched {
        let alive = self.watch.as_ref().is_some_and(|watch| !watch.is_lost());
        match alive && inode.identity.has_handle() {
            true => Watched::Yes,
            false => Watched::No,
        }
    }

    /// The same with all applied that was told until a look at the file, where
    /// that finds it changed: whoever changed it may have been told of.
    pub(super) fn watched_until(&self, inode: &Inode, look: &Look) -> Watched {
        let watched = self.watched(inode);
        let coherence = inode.coherence_if_any();
        if watched == Watched::Yes && coherence.is_some_and(|known| known.differs(look)) {
            self.catch_up();
        }
        watched
    }

    /// Applies all that the watch has told until now.
    pub(super) fn catch_up(&self) -> Taken {
        let Some(watch) = &self.watch else {
            return Taken::NotAll;
        };
        let taken = watch.take(|event| {
            if event.is_overflow() {
                watch.overflows.fetch_add(1, Relaxed);
                self.all_changed_beside();
                return true;
            }
            let mattered = self.apply(&event);
            watch.changes.fetch_add(mattered.into(), Relaxed);
            mattered
        });
        if taken == Taken::Lost {
            self.all_changed_beside();
        }
        taken
    }

    /// Drops what an event says to be outdated; whether there was any such.
    fn apply(&self, event: &Event<'_>) -> bool {
        let mut mattered = false;
        let inodes = |file| self.inodes.find(file);
        for inode in event.file.clone().map(inodes).unwrap_or_default() {
            mattered = true;
            match event.is_of_contents() {
                true => self.changed_beside(&inode),
                false => self.notices.inode(inode.node, Outdated::Attributes),
            }
        }
        if event.is_of_names()
            && let Some((folder, name)) = &event.name
        {
            for folder in self.inodes.find(folder.clone()) {
                mattered = true;
                self.notices.inode(folder.node, Outdated::Attributes);
                self.notices.name(folder.node, name);
            }
        }
        mattered
    }

    /// Somebody else changed the contents of a file.
    pub(super) fn changed_beside(&self, inode: &Inode) {
        let coherence = inode.coherence_if_any();
        if let Some(object) = coherence.and_then(|coherence| coherence.changed_beside()) {
            self.cache.flush(object);
        }
        self.notices.inode(inode.node, Outdated::Contents);
    }

    /// Nobody knows what was changed.
    fn all_changed_beside(&self) {
        for inode in self.inodes.opened() {
            let coherence = inode.coherence_if_any();
            if let Some(object) = coherence.and_then(|coherence| coherence.changed_beside()) {
                self.cache.flush(object);
            }
        }
        self.notices.all();
    }

    /// Applies what the watch tells, until the mount is gone.
    pub(crate) fn keep_watching(&self, gone: &AtomicBool) {
        let Some(watch) = &self.watch else {
            return;
        };
        while !gone.load(Relaxed) && !watch.is_lost() {
            let _ = zcache_sys::fd::wait_readable(watch.as_fd(), PERIOD);
            if self.catch_up() == (Taken::All { mattered: false }) {
                thread::sleep(REST);
            }
        }
    }

    /// Looks at open files, until the mount is gone: where the source is watched the
    /// kernel does not ask before each read, and not all is told. Filesystems that
    /// are mounted within the source are not watched, and some changes are silent.
    /// And looks for files that were unlinked, whose room our descriptors keep.
    pub(crate) fn keep_looking(&self, gone: &AtomicBool) {
        let (mut rested, mut unlinked_rested, mut last) = (Duration::ZERO, Duration::ZERO, 0);
        while !gone.load(Relaxed) {
            thread::sleep(PERIOD);
            rested += PERIOD;
            unlinked_rested += PERIOD;
            if rested >= LOOK_PERIOD && self.watch.is_some() {
                rested = Duration::ZERO;
                last = self.look_at_open_files(last);
            }
            if unlinked_rested >= UNLINKED_PERIOD {
                unlinked_rested = Duration::ZERO;
                self.look_for_unlinked();
            }
        }
    }

    fn look_for_unlinked(&self) {
        for inode in self.inodes.held() {
            if inode.is_held_without_name() {
                self.notices.inode(inode.node, Outdated::Attributes);
            }
        }
    }

    /// Looks at as many files as may be looked at at once, and gives the number of
    /// the last one, or 0 when that was the last of all.
    fn look_at_open_files(&self, after: u64) -> u64 {
        let mut nodes = HashSet::new();
        let mut last = 0;
        let files = self.files.after(after, LOOKS_MAX);
        for (number, file) in &files {
            if nodes.insert(file.inode.node)
                && let Ok(look) = source::look(&file.fd)
            {
                self.note(&file.inode, &look);
            }
            last = *number;
        }
        if files.len() < LOOKS_MAX { 0 } else { last }
    }

    /// Tells the kernel what is outdated, until the mount is gone.
    pub(crate) fn keep_telling(&self) {
        while let Some(pending) = self.notices.take() {
            self.tell(&pending);
        }
    }

    fn tell(&self, pending: &Pending) {
        if pending.too_many {
            self.have_forgotten(self.inodes.to_forget());
        }
        // Names first: what they stand for is asked for anew.
        for (folder, name) in &pending.names {
            self.send(&Answer::outdated_name(*folder, name));
        }
        let mut nameless = Vec::new();
        for (node, what) in &pending.nodes {
            if let Ok(inode) = self.inodes.get(*node) {
                match what {
                    Outdated::Contents => self.tell_contents(&inode),
                    Outdated::Attributes => {
                        self.send(&Answer::outdated_inode(*node, notice::NO_CONTENTS));
                    }
                }
                inode.may_not_be_told();
                if inode.is_held_without_name() {
                    nameless.push(*node);
                }
            }
            self.notices.is_told(*node);
        }
        self.have_forgotten(nameless);
        if pending.all {
            for inode in self.inodes.opened() {
                self.tell_contents(&inode);
            }
        }
    }

    /// Has the kernel forget those of these inodes that nobody uses: there are too
    /// many, or their room is to be free. Before Linux 6.18 it does so when it is
    /// short of memory itself.
    fn have_forgotten(&self, mut nodes: Vec<u64>) {
        while !nodes.is_empty() {
            let rest = nodes.split_off(nodes.len().min(PRUNED_AT_ONCE));
            if !self.send(&Answer::unused_inodes(&nodes)) {
                return;
            }
            nodes = rest;
        }
    }

    fn tell_contents(&self, inode: &Inode) {
        let coherence = inode.coherence_if_any();
        let noticed = coherence.and_then(|coherence| coherence.untold());
        let sent = self.send(&Answer::outdated_inode(inode.node, 0));
        if let (true, Some(coherence), Some(noticed)) = (sent, coherence, noticed) {
            coherence.told(noticed);
        }
    }

    /// Sends one notice; whether the kernel has it, or had nothing of it.
    pub(super) fn send(&self, notice: &[u8]) -> bool {
        let Some(kernel) = self.kernel.get() else {
            return false;
        };
        self.notices.sent.fetch_add(1, Relaxed);
        match kernel.notify(notice) {
            Ok(()) => true,
            Err(error) => Errno::from_io_error(&error) == Some(Errno::NOENT),
        }
    }
}
