//! Pages that share a dictionary: those of handles, or those of a pool.
//!
//! Stage on the data path: beside the codec, at each page that is stored.
//!
//! - A scope that was closed has no dictionary and gets none any more.
//! - The tables of cold pages belong to the very dictionary that they are of,
//!   and go with it.

use crate::sync::atomic::{AtomicBool, Ordering::Relaxed};
use crate::sync::{Arc, PoisonError, RwLock};

use super::pace::Pace;
use crate::codec::Encoder;
use crate::frames::{Budget, Charge};

/// RAM of a scope in bytes, with the allocator's and the reference counts'.
const RAM_BYTES: u64 = size_of::<Scope>() as u64 + 32;

/// The right to make pages that name a slot: as long as there is one, the slot
/// keeps its dictionary.
pub(super) struct Lease(());

impl Lease {
    pub(super) fn new() -> Lease {
        Lease(())
    }
}

/// What new pages are made with.
pub(in crate::store) struct Current {
    pub(in crate::store) encoder: Encoder,
    pub(in crate::store) slot: u8,
    /// The same dictionary with the tables of cold pages, once there are any.
    harder: RwLock<Option<Arc<Current>>>,
    lease: Arc<Lease>,
    // Held for its drop.
    _charge: Charge,
}

impl Current {
    pub(super) fn new(encoder: Encoder, slot: u8, lease: Arc<Lease>, budget: &Arc<Budget>) -> Self {
        Current {
            slot,
            harder: RwLock::new(None),
            lease,
            _charge: Charge::new(budget, encoder.ram_bytes()),
            encoder,
        }
    }

    /// What cold pages are made with: the same dictionary at another level.
    /// `None` when there is no memory for its tables.
    fn harder(&self, level: i32, budget: &Arc<Budget>) -> Option<Arc<Current>> {
        let harder = self.harder.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(harder) = &*harder {
            return Some(Arc::clone(harder));
        }
        drop(harder);
        let encoder = Encoder::new(Arc::clone(self.encoder.dictionary()), level).ok()?;
        let made = Current::new(encoder, self.slot, Arc::clone(&self.lease), budget);
        let mut place = self.harder.write().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have been faster.
        Some(Arc::clone(place.get_or_insert_with(|| Arc::new(made))))
    }

    fn take_harder(&self) -> Option<Arc<Current>> {
        let mut place = self.harder.write().unwrap_or_else(PoisonError::into_inner);
        place.take()
    }

    fn tables_bytes(&self) -> u64 {
        let harder = self.harder.read().unwrap_or_else(PoisonError::into_inner);
        let harder = harder.as_ref();
        self.encoder.ram_bytes() + harder.map_or(0, |harder| harder.encoder.ram_bytes())
    }
}

enum State {
    Open(Option<Arc<Current>>),
    Closed,
}

/// See the module's description.
pub(in crate::store) struct Scope {
    state: RwLock<State>,
    pub(in crate::store) pace: Pace,
    /// Whether its pages are being collected. A hint that costs one load.
    pub(in crate::store) is_collecting: AtomicBool,
    // Held for its drop.
    _charge: Charge,
}

impl Scope {
    pub(in crate::store) fn new(budget: &Arc<Budget>) -> Arc<Scope> {
        Arc::new(Scope {
            state: RwLock::new(State::Open(None)),
            pace: Pace::new(),
            is_collecting: AtomicBool::new(false),
            _charge: Charge::new(budget, RAM_BYTES),
        })
    }

    /// What a new page is made with; `None` is the codec alone.
    pub(in crate::store) fn current(&self) -> Option<Arc<Current>> {
        self.with_current(Arc::clone)
    }

    /// Looks at what new pages are made with and does not keep it in use.
    fn with_current<T>(&self, look: impl FnOnce(&Arc<Current>) -> T) -> Option<T> {
        match &*self.state.read().unwrap_or_else(PoisonError::into_inner) {
            State::Open(current) => current.as_ref().map(look),
            State::Closed => None,
        }
    }

    pub(super) fn current_slot(&self) -> Option<u8> {
        self.with_current(|current| current.slot)
    }

    /// RAM of the tables that new and cold pages are made with, in bytes.
    pub(super) fn tables_bytes(&self) -> u64 {
        self.with_current(|current| current.tables_bytes())
            .unwrap_or(0)
    }

    /// False when the scope was closed.
    pub(super) fn set_current(&self, current: Current) -> bool {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let State::Open(place) = &mut *state else {
            return false;
        };
        let before = place.replace(Arc::new(current));
        drop(state);
        drop(before);
        true
    }

    /// Gives its dictionary up and takes no other.
    pub(in crate::store) fn close(&self) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *state, State::Closed);
        drop(state);
        drop(before);
    }

    pub(in crate::store) fn is_closed(&self) -> bool {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        matches!(*state, State::Closed)
    }

    /// What cold pages are made with: its current dictionary, harder.
    pub(in crate::store) fn harder(
        &self,
        level: i32,
        budget: &Arc<Budget>,
    ) -> Option<Arc<Current>> {
        self.current()?.harder(level, budget)
    }

    pub(in crate::store) fn drop_harder(&self) {
        drop(self.with_current(|current| current.take_harder()));
    }

    /// The length of its dictionary, if the tables of cold pages are still to be
    /// made.
    pub(in crate::store) fn len_without_harder(&self) -> Option<usize> {
        self.with_current(|current| {
            let harder = current
                .harder
                .read()
                .unwrap_or_else(PoisonError::into_inner);
            let dictionary = current.encoder.dictionary();
            harder.is_none().then(|| dictionary.len())
        })
        .flatten()
    }

    pub(in crate::store) fn is_collecting(&self) -> bool {
        self.is_collecting.load(Relaxed)
    }
}
