//! Which cached pages of a file are its pages still.
//!
//! Stage: every open, look, read and write of a file passes here.
//!
//! The pages of a file that are kept belong to one *object*: what was read while
//! the file had one *stamp* (its times of change and its size). Three things
//! keep them right:
//!
//! - A stamp that differs at an open (or whenever attributes are looked at)
//!   drops the object.
//! - A stamp is *fresh* while the file was changed less than
//!   [`FRESH`] before it was taken: another change might carry the same time.
//!   The next open does not believe a fresh stamp.
//! - What is written through us makes the stamp say nothing. The pages written
//!   are dropped before the write is answered, the others by the next open.
//!
//! A page that was read while its bytes were being changed is not kept: every
//! change counts up a number that a read notes before and compares after. Numbers
//! are by stripe of 16 pages, modulo 16.
//!
//! The lock is held for writing only to count up, and for reading while a page
//! is put into the store; never across a call into the source.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use rustix::fs::Stat;
use zcache::ObjectId;

use crate::inodes::Identity;
use crate::source::Look;

/// Times of change are coarse: by ticks of some milliseconds on the usual
/// filesystems, by two seconds on the coarsest (FAT).
const FRESH: Duration = Duration::from_secs(2);

/// Pages that share a number, as a power of two, and how many numbers there are.
const STRIPE_BITS: u32 = 4;
const STRIPES: u64 = 16;

/// What a file looks like when nothing changed it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Stamp {
    changed: (i64, i64),
    modified: (i64, i64),
    size: i64,
}

impl Stamp {
    fn of(stat: &Stat) -> Stamp {
        Stamp {
            changed: (stat.st_ctime, stat.st_ctime_nsec.cast_signed()),
            modified: (stat.st_mtime, stat.st_mtime_nsec.cast_signed()),
            size: stat.st_size,
        }
    }

    /// Whether another change could still get the same stamp.
    fn is_fresh(&self, look: &Look) -> bool {
        let (seconds, nanoseconds) = self.changed;
        let changed = Duration::new(seconds.max(0).cast_unsigned(), nanoseconds as u32);
        look.before < changed + FRESH
    }
}

#[derive(Debug)]
struct State {
    /// `None` until the first open.
    stamp: Option<Stamp>,
    fresh: bool,
    /// Changed through us since the stamp was taken.
    written: bool,
    version: Version,
}

/// What a read notes before it reads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Version {
    pub(crate) object: ObjectId,
    whole: u32,
    stripes: [u16; STRIPES as usize],
}

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Coherence {
    state: RwLock<State>,
    /// Pages may be in the store.
    populated: AtomicBool,
}

impl Default for Coherence {
    fn default() -> Coherence {
        Coherence {
            state: RwLock::new(State {
                stamp: None,
                fresh: false,
                written: false,
                version: Version {
                    object: ObjectId([0; 3]),
                    whole: 0,
                    stripes: [0; STRIPES as usize],
                },
            }),
            populated: AtomicBool::new(false),
        }
    }
}

/// What a look at a file says of the pages kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// They are right.
    Right,
    /// They are right as far as this look can tell, which is not a promise.
    Unknown,
    /// They were another file's state: this object is to be flushed.
    Stale(ObjectId),
}

impl Coherence {
    /// Compares the file with what it was. An open begins anew where nothing
    /// can be promised; any other look only where something certainly changed.
    pub(crate) fn compare(&self, identity: &Identity, look: &Look, opening: bool) -> Verdict {
        let stamp = Stamp::of(&look.stat);
        let verdict = |state: &State| {
            let same = state.stamp == Some(stamp);
            if same && !state.fresh && !state.written {
                return Some(Verdict::Right);
            }
            let certainly_changed = !same && !state.written;
            (!opening && !certainly_changed).then_some(Verdict::Unknown)
        };
        if let Some(verdict) = verdict(&self.read()) {
            return verdict;
        }
        let mut state = self.write();
        if let Some(verdict) = verdict(&state) {
            return verdict;
        }
        let old = state.version.object;
        state.stamp = Some(stamp);
        state.fresh = stamp.is_fresh(look);
        state.written = false;
        state.version.object = object(identity, &stamp, state.fresh);
        state.version.whole = state.version.whole.wrapping_add(1);
        self.populated.store(true, Relaxed);
        Verdict::Stale(old)
    }

    /// Whether the file was changed through us since it was opened.
    pub(crate) fn is_written(&self) -> bool {
        self.read().written
    }

    /// To be noted before pages are read.
    pub(crate) fn version(&self) -> Version {
        self.read().version
    }

    /// Runs `put` if the page at this index was not changed since.
    pub(crate) fn if_unchanged(&self, since: &Version, index: u32, put: impl FnOnce()) -> bool {
        let state = self.read();
        let stripe = stripe(u64::from(index));
        let unchanged = state.version.whole == since.whole
            && state.version.stripes[stripe] == since.stripes[stripe];
        if unchanged {
            self.populated.store(true, Relaxed);
            put();
        }
        unchanged
    }

    /// Counts a change of the pages `first..end` that has just been made. Gives
    /// the object whose pages are to be flushed, if there may be any.
    pub(crate) fn changed(&self, first: u64, end: u64) -> Option<ObjectId> {
        let mut state = self.write();
        state.written = true;
        let stripes = &mut state.version.stripes;
        let (from, to) = (first >> STRIPE_BITS, end.div_ceil(1 << STRIPE_BITS));
        for number in from..to.min(from + STRIPES) {
            let count = &mut stripes[(number % STRIPES) as usize];
            *count = count.wrapping_add(1);
        }
        self.flushable(&state)
    }

    /// Counts a change of the whole file.
    pub(crate) fn changed_all(&self) -> Option<ObjectId> {
        let mut state = self.write();
        state.written = true;
        state.version.whole = state.version.whole.wrapping_add(1);
        self.flushable(&state)
    }

    /// The object whose pages nobody can be promised when the file is opened
    /// again, if there is one.
    pub(crate) fn not_to_be_kept(&self) -> Option<ObjectId> {
        let state = self.read();
        (state.written || state.fresh)
            .then(|| self.flushable(&state))
            .flatten()
    }

    fn flushable(&self, state: &State) -> Option<ObjectId> {
        self.populated.load(Relaxed).then_some(state.version.object)
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stripe(index: u64) -> usize {
    ((index >> STRIPE_BITS) % STRIPES) as usize
}

/// The object of a file in one state. A state that can be trusted has the same
/// object whenever it is met, so its pages are found again by who opens the
/// file later; a fresh one has an object of its own.
fn object(identity: &Identity, stamp: &Stamp, fresh: bool) -> ObjectId {
    static FRESH_ONES: AtomicU64 = AtomicU64::new(1);
    let mut hasher = DefaultHasher::new();
    identity.name.hash(&mut hasher);
    stamp.hash(&mut hasher);
    if fresh {
        FRESH_ONES.fetch_add(1, Relaxed).hash(&mut hasher);
    }
    ObjectId([identity.device, identity.number, hasher.finish()])
}
