//! Which cached pages of a file are its pages still.
//!
//! Stage: every open, look, read and write of a file passes here.
//!
//! The pages of a file that are kept belong to one *object*: what was read while
//! the file had one *stamp* (its times of change and its size), and since then
//! while nobody changed it but us. What is written through us drops the pages
//! written before it is answered. Whether somebody else changed the file:
//!
//! - A stamp that is later than the one that was known drops the object,
//!   wherever attributes are looked at.
//! - Where the source's filesystem is *watched*, every change beside us is told
//!   and drops the object. So after a change of ours the stamp is taken anew.
//! - Where it is not, a stamp says nothing once something was written through
//!   us, nor while it is *fresh*: when the file was changed less than [`FRESH`]
//!   before it was taken, another change might carry the same time. The next
//!   open begins anew.
//!
//! All this takes for granted that a change has a time, or an event, that comes
//! after its bytes. Asynchronous writes (libaio), long ones and stores through
//! mappings have not. So an open asks whether anybody beside us has the file open
//! for writing. If so, and no watch told of what was changed so far, a *silent*
//! change may be under way: nothing is kept, and the next open begins anew.
//!
//! The kernel's own page cache is *behind* from when a change beside us was
//! noticed until it has been told of it; no open may keep it meanwhile.
//!
//! A page that was read while its bytes were being changed is not kept: every
//! change counts up a number that a read notes before and compares after. Numbers
//! are by stripe of 16 pages, modulo 16. A file's last page has one of its own,
//! which all changes count up: whatever is written behind it makes it longer.
//!
//! The lock is held for writing only to count up, and for reading while a page
//! is put into the store; never across a call into the source.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use rustix::fs::Stat;
use zcache::{ObjectId, PAGE_SIZE};

use crate::identity::Identity;
use crate::source::Look;

/// Times of change are coarse: by ticks of some milliseconds on the usual
/// filesystems, by two seconds on the coarsest (FAT).
const FRESH: Duration = Duration::from_secs(2);

/// More pages than this are not looked for one by one when they are dropped.
const TOUCHED_PAGES_MAX: u64 = 4096;

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

/// Whether every change beside us is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Watched {
    Yes,
    No,
}

/// Whether anybody beside us has a file open for writing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Writers {
    /// Nobody, or nobody that could be found out.
    Nobody,
    Somebody,
    /// Our own descriptors hide it.
    Unknown,
}

/// Why a file is looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Occasion {
    /// It is opened, and begins anew where nothing can be promised.
    Open(Writers),
    /// Any other look: it begins anew only where something certainly changed.
    Other,
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

    /// Whether a file with this stamp has certainly been changed since it had
    /// the other one. One that was looked at earlier says nothing.
    fn is_after(&self, known: &Stamp) -> bool {
        self != known && self.changed >= known.changed
    }
}

#[derive(Debug)]
struct State {
    /// `None` until the first open, and from a change beside us to the next.
    stamp: Option<Stamp>,
    fresh: bool,
    /// Changed through us since the file was opened last.
    written: bool,
    /// Somebody may be changing it without a time or an event that comes later.
    silent: bool,
    /// The object's name is not what the stamp would give: a change of ours came
    /// after it.
    moved: bool,
    /// Changes of ours that are being made.
    changing: u32,
    /// Counts the changes beside us that were noticed, and those of them that
    /// the kernel has been told of.
    noticed: u64,
    told: u64,
    version: Version,
}

impl State {
    /// Somebody else has changed the file: what was read before is not its
    /// contents.
    fn notice(&mut self) {
        self.stamp = None;
        self.noticed += 1;
        self.version.whole = self.version.whole.wrapping_add(1);
    }

    /// After a change of ours. Where several are made at once, the latest look
    /// counts; where the file is known not to be what it was, none does.
    fn take_stamp(&mut self, after: Option<&Look>) {
        let Some(known) = self.stamp else {
            return;
        };
        self.moved = true;
        self.stamp = match after.map(|look| (Stamp::of(&look.stat), look)) {
            None => None,
            Some((stamp, look)) if stamp.changed >= known.changed => {
                self.fresh = stamp.is_fresh(look);
                Some(stamp)
            }
            Some(_) => Some(known),
        };
    }

    fn is_certainly_changed(&self, stamp: &Stamp, watched: Watched) -> bool {
        let ours = match watched {
            Watched::Yes => self.changing > 0,
            Watched::No => self.written,
        };
        !ours && self.stamp.is_none_or(|known| stamp.is_after(&known))
    }

    fn is_trusted(&self, stamp: &Stamp, watched: Watched) -> bool {
        let doubtful = watched == Watched::No && (self.fresh || self.written);
        self.stamp == Some(*stamp) && !doubtful && !self.silent
    }

    /// Whether silent changes have to be reckoned with from now on. What changed
    /// and was not told is one; `stale` says that something did.
    fn expects_silence(&self, watched: Watched, stale: bool, occasion: Occasion) -> bool {
        let known = self.silent || stale;
        let never_open = self.version.object == NO_OBJECT;
        match (watched, occasion) {
            (_, Occasion::Open(Writers::Nobody)) => false,
            (Watched::No, _) => true,
            (Watched::Yes, Occasion::Open(Writers::Somebody)) => known || never_open,
            (Watched::Yes, _) => known,
        }
    }
}

/// What a read notes before it reads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Version {
    pub(crate) object: ObjectId,
    whole: u32,
    stripes: [u16; STRIPES as usize],
    /// For the last page, if it is not whole.
    last: u32,
}

/// Before the first open.
const NO_OBJECT: ObjectId = ObjectId([0; 3]);

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
                silent: false,
                moved: false,
                changing: 0,
                noticed: 0,
                told: 0,
                version: Version {
                    object: NO_OBJECT,
                    whole: 0,
                    stripes: [0; STRIPES as usize],
                    last: 0,
                },
            }),
            populated: AtomicBool::new(false),
        }
    }
}

/// What a change of ours touches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Touched {
    /// Pages from the first up to the second.
    Pages(u64, u64),
    /// All contents.
    All,
    /// No contents.
    Attributes,
}

impl Touched {
    /// The pages of a range of bytes.
    pub(crate) fn range(offset: u64, len: u64) -> Touched {
        let first = offset / PAGE_SIZE as u64;
        let end = offset.saturating_add(len).div_ceil(PAGE_SIZE as u64);
        match end - first > TOUCHED_PAGES_MAX {
            true => Touched::All,
            false => Touched::Pages(first, end),
        }
    }
}

/// What a look at a file says of the pages kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// They are right, and so are those of the kernel.
    Right,
    /// They are right, but the kernel's may be older.
    KernelBehind,
    /// They are right as far as this look can tell, which is not a promise.
    Unknown,
    /// Nothing can be promised of them: this object is to be flushed.
    Doubtful(ObjectId),
    /// The file was changed, perhaps beside us: the object is to be flushed, and
    /// the kernel to be told.
    Stale(ObjectId),
}

impl Coherence {
    /// Compares the file with what it was.
    pub(crate) fn compare(
        &self,
        identity: &Identity,
        look: &Look,
        watched: Watched,
        occasion: Occasion,
    ) -> Verdict {
        let stamp = Stamp::of(&look.stat);
        let opening = occasion != Occasion::Other;
        let verdict = |state: &State| {
            if state.is_trusted(&stamp, watched) && !(opening && state.written) {
                return Some(match state.noticed == state.told {
                    true => Verdict::Right,
                    false => Verdict::KernelBehind,
                });
            }
            let changed = state.is_certainly_changed(&stamp, watched);
            (!opening && !changed).then_some(Verdict::Unknown)
        };
        if let Some(verdict) = verdict(&self.read()) {
            return verdict;
        }
        let mut state = self.write();
        if opening && state.is_trusted(&stamp, watched) {
            state.written = false;
        }
        if let Some(verdict) = verdict(&state) {
            return verdict;
        }
        let old = state.version.object;
        let stale = state.stamp.is_some_and(|known| known != stamp);
        state.silent = state.expects_silence(watched, stale, occasion);
        if stale {
            state.notice();
        }
        state.stamp = Some(stamp);
        state.fresh = stamp.is_fresh(look);
        state.written = false;
        state.moved = false;
        state.version.object = object(identity, &stamp, state.fresh || state.silent);
        state.version.whole = state.version.whole.wrapping_add(1);
        self.populated.store(true, Relaxed);
        match stale {
            true => Verdict::Stale(old),
            false => Verdict::Doubtful(old),
        }
    }

    /// Whether the stamp alone says whether the file is what it was; if not, it
    /// takes what a watch has told.
    pub(crate) fn is_known_by_stamp(&self) -> bool {
        let state = self.read();
        !state.moved && !state.fresh
    }

    /// Whether an open that finds the file like this goes on with what is kept.
    pub(crate) fn is_trusted(&self, look: &Look, watched: Watched) -> bool {
        let state = self.read();
        state.is_trusted(&Stamp::of(&look.stat), watched)
    }

    /// Whether a change of ours is being made.
    pub(crate) fn is_changing(&self) -> bool {
        self.read().changing > 0
    }

    /// Whether the file has been changed since it was looked at last, unless what
    /// a watch told explains it.
    pub(crate) fn differs(&self, look: &Look) -> bool {
        let (state, stamp) = (self.read(), Stamp::of(&look.stat));
        state.changing == 0 && state.stamp.is_some_and(|known| stamp.is_after(&known))
    }

    /// Somebody else has changed the file. Gives the object whose pages are to
    /// be flushed, if there may be any.
    pub(crate) fn changed_beside(&self) -> Option<ObjectId> {
        let mut state = self.write();
        state.notice();
        self.flushable(&state)
    }

    /// How many changes beside us were noticed, if the kernel is behind.
    pub(crate) fn untold(&self) -> Option<u64> {
        let state = self.read();
        (state.noticed != state.told).then_some(state.noticed)
    }

    /// The kernel has dropped the pages that it had when so many changes had
    /// been noticed.
    pub(crate) fn told(&self, noticed: u64) {
        let mut state = self.write();
        state.told = state.told.max(noticed);
    }

    /// Whether the file was changed through us since it was opened.
    pub(crate) fn is_written(&self) -> bool {
        self.read().written
    }

    /// To be noted before pages are read.
    pub(crate) fn version(&self) -> Version {
        self.read().version
    }

    /// Runs `put` if the page at this index was not changed since. The last page
    /// of a file may be cut off by its end.
    pub(crate) fn if_unchanged(
        &self,
        since: &Version,
        index: u32,
        cut_off: bool,
        put: impl FnOnce(),
    ) -> bool {
        let state = self.read();
        let stripe = stripe(u64::from(index));
        let unchanged = !state.silent
            && state.version.whole == since.whole
            && state.version.stripes[stripe] == since.stripes[stripe]
            && !(cut_off && state.version.last != since.last);
        if unchanged {
            self.populated.store(true, Relaxed);
            put();
        }
        unchanged
    }

    /// A change of ours is about to be made, and this is how the file looks.
    /// Gives the object whose pages are to be flushed if somebody else changed
    /// it meanwhile.
    pub(crate) fn begin_change(&self, before: Option<&Look>) -> Option<ObjectId> {
        let mut state = self.write();
        let changing = state.changing;
        state.changing += 1;
        let (before, known) = (Stamp::of(&before?.stat), state.stamp?);
        if changing > 0 || !before.is_after(&known) {
            return None;
        }
        // Nobody told.
        state.silent = true;
        state.notice();
        self.flushable(&state)
    }

    /// The change has been made, to these pages or to nothing but attributes,
    /// and this is how the file looks now. Without a look the stamp says nothing
    /// any more. Gives the object whose pages are to be flushed, if there may be
    /// any.
    pub(crate) fn end_change(
        &self,
        after: Option<&Look>,
        watched: Watched,
        touched: Touched,
    ) -> Option<ObjectId> {
        let mut state = self.write();
        state.changing -= 1;
        if watched == Watched::Yes {
            state.take_stamp(after);
        }
        if let Touched::Pages(first, end) = touched {
            let stripes = &mut state.version.stripes;
            let (from, to) = (first >> STRIPE_BITS, end.div_ceil(1 << STRIPE_BITS));
            for number in from..to.min(from + STRIPES) {
                let count = &mut stripes[(number % STRIPES) as usize];
                *count = count.wrapping_add(1);
            }
        }
        if touched == Touched::All {
            state.version.whole = state.version.whole.wrapping_add(1);
        }
        if touched == Touched::Attributes {
            return None;
        }
        state.version.last = state.version.last.wrapping_add(1);
        state.written = true;
        self.flushable(&state)
    }

    /// The object whose pages nobody can be promised when the file is opened
    /// again, if there is one.
    pub(crate) fn not_to_be_kept(&self) -> Option<ObjectId> {
        let state = self.read();
        (state.written || state.moved || state.fresh || state.silent)
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
/// file later; one that cannot has an object of its own.
fn object(identity: &Identity, stamp: &Stamp, doubtful: bool) -> ObjectId {
    static DOUBTFUL_ONES: AtomicU64 = AtomicU64::new(1);
    let mut hasher = DefaultHasher::new();
    identity.key.name.hash(&mut hasher);
    stamp.hash(&mut hasher);
    if doubtful {
        DOUBTFUL_ONES.fetch_add(1, Relaxed).hash(&mut hasher);
    }
    ObjectId([identity.device, identity.number, hasher.finish()])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unchanged(coherence: &Coherence, since: &Version, index: u32, cut_off: bool) -> bool {
        coherence.if_unchanged(since, index, cut_off, || ())
    }

    #[test]
    fn a_last_page_is_not_kept_when_something_was_written_behind_it() {
        let coherence = Coherence::default();
        let since = coherence.version();
        assert!(unchanged(&coherence, &since, 0, true));
        coherence.begin_change(None);
        coherence.end_change(None, Watched::No, Touched::Pages(40, 41));
        assert!(unchanged(&coherence, &since, 0, false), "it is whole");
        assert!(!unchanged(&coherence, &since, 0, true));
        assert!(!unchanged(&coherence, &since, 40, false));
        assert!(unchanged(&coherence, &coherence.version(), 0, true));
    }

    #[test]
    fn nothing_is_believed_while_somebody_may_write_silently() {
        let file =
            std::os::fd::OwnedFd::from(std::fs::File::open("/proc/self/exe").expect("a file"));
        let mut look = crate::source::look(&file).expect("attributes");
        // The program may have been built a moment ago.
        look.before += 2 * FRESH;
        let identity = Identity::of(&file, &look.stat, false).expect("an identity");
        let coherence = Coherence::default();
        let open = |watched, writers| {
            coherence.compare(&identity, &look, watched, Occasion::Open(writers));
            coherence.is_trusted(&look, watched)
        };
        // Met for the first time while somebody has it open for writing.
        assert!(!open(Watched::Yes, Writers::Somebody));
        let since = coherence.version();
        assert!(!unchanged(&coherence, &since, 0, false));
        assert!(!open(Watched::Yes, Writers::Unknown));
        assert!(open(Watched::Yes, Writers::Nobody));
        // What changes from here on has a later time, or a watch tells of it.
        assert!(open(Watched::Yes, Writers::Somebody));
        coherence.changed_beside();
        assert!(open(Watched::Yes, Writers::Somebody));
        // Without a watch nobody tells.
        coherence.changed_beside();
        assert!(!open(Watched::No, Writers::Somebody));
        assert!(open(Watched::No, Writers::Nobody));
    }
}
