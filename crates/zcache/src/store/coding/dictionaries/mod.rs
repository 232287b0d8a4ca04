//! The dictionaries that pages of a store were made with, and which one new
//! pages get.
//!
//! Stage on the data path: beside the codec. The pages of the pager's handles
//! share one current dictionary, and each tmem pool has its own. A codec id
//! names a slot here.
//!
//! - `id`: what a codec id says
//! - `slots`: which dictionary is in which slot, and when it goes
//! - `scope`: pages that share a dictionary
//! - `pace`: when a scope's next round of training is due
//!
//! - A slot keeps its dictionary while a page of any shard, in RAM or in the
//!   tier, names it; the shards count these. One that is not current and that
//!   no page names goes with the next [`Store::train`],
//!   [`Store::use_dictionary`] or [`Store::destroy_pool`].
//! - Who reads takes its reference while the shard that holds the page is
//!   locked, and who writes holds a lease until the page is in: so no slot is
//!   emptied between a look at a page and its decoding.
//! - One thread at a time takes a slot. From its first look on, slots can only
//!   become free, so where it finds none, there was none.
//!
//! Lock order: who takes a slot, then pools, then a shard, then slots, then the
//! state of a scope.

mod id;
mod pace;
mod scope;
mod slots;

use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};
use crate::sync::{Arc, Mutex, PoisonError, lock};

use zcache_core::PoolId;

use crate::codec::{Dictionary, DictionaryError, Encoder};
use crate::config::CodecChoice;
use crate::frames::Budget;
use crate::store::Store;

pub(in crate::store) use id::Coding;
pub(in crate::store) use scope::{Current, Scope};
#[cfg(test)]
pub(in crate::store) use slots::SLOTS;
use slots::Slots;

/// All dictionaries of a store.
pub(in crate::store) struct Dictionaries {
    slots: Slots,
    /// Held by the thread that takes a slot.
    taking: Mutex<()>,
    pub(in crate::store) handles: Arc<Scope>,
    pub(in crate::store) budget: Arc<Budget>,
    /// Whether dictionaries are trained at all.
    pub(in crate::store) enabled: bool,
    pub(in crate::store) adoptions: AtomicU64,
}

impl Dictionaries {
    pub(in crate::store) fn new(
        codec: CodecChoice,
        wanted: bool,
        budget: &Arc<Budget>,
    ) -> Dictionaries {
        Dictionaries {
            slots: Slots::default(),
            taking: Mutex::new(()),
            handles: Scope::new(budget),
            budget: Arc::clone(budget),
            enabled: wanted && codec.shrinks(),
            adoptions: AtomicU64::new(0),
        }
    }

    /// The dictionary of a slot. Call it with the shard locked whose page names
    /// the slot.
    pub(in crate::store) fn of_slot(&self, slot: u8) -> Option<Arc<Dictionary>> {
        self.slots.dictionary(slot)
    }

    /// Whose pages the dictionary of a slot is for.
    pub(in crate::store) fn scope_of_slot(&self, slot: u8) -> Option<Arc<Scope>> {
        self.slots.scope(slot)
    }

    /// The scopes that have a dictionary: no more than there are slots.
    pub(in crate::store) fn scopes_with(&self) -> Vec<Arc<Scope>> {
        self.slots.scopes()
    }

    /// The only scope that has a dictionary: what pages without one can be made
    /// harder with, whosever they are.
    pub(in crate::store) fn only_scope(&self) -> Option<Arc<Scope>> {
        let mut with = self.scopes_with().into_iter();
        let first = with.next()?;
        with.next().is_none().then_some(first)
    }

    pub(in crate::store) fn has_free_slot(&self) -> bool {
        self.slots.has_free()
    }

    /// How many dictionaries are kept, and their RAM with that of the tables
    /// that write with them.
    pub(in crate::store) fn kept(&self) -> (u64, u64) {
        let (count, bytes) = self.slots.usage();
        let scopes = self.scopes_with();
        let tables = scopes.iter().map(|scope| scope.tables_bytes());
        (count, bytes + tables.sum::<u64>())
    }
}

impl Store {
    /// Has pages that come from now on, of handles or of a pool, be made with
    /// this dictionary, as one that was saved by an earlier process. Training
    /// goes on and may replace it. Any number of threads may call it.
    ///
    /// A store has seven slots for dictionaries. One is taken as long as pages
    /// get its dictionary, or pages that were made with it are stored.
    ///
    /// # Errors
    /// [`DictionaryError::NotUsed`], [`DictionaryError::NoSuchPool`],
    /// [`DictionaryError::NoSlot`], [`DictionaryError::Refused`].
    pub fn use_dictionary(
        &self,
        pool: Option<PoolId>,
        dictionary: Arc<Dictionary>,
    ) -> Result<(), DictionaryError> {
        if !self.dictionaries.enabled {
            return Err(DictionaryError::NotUsed);
        }
        let scope = match pool {
            None => Arc::clone(&self.dictionaries.handles),
            Some(pool) => {
                let mut pools = self.pools.write().unwrap_or_else(PoisonError::into_inner);
                let scope = pools.make_scope(pool);
                scope.ok_or(DictionaryError::NoSuchPool)?
            }
        };
        let encoder = Encoder::new(dictionary, Encoder::LEVEL_FRESH)?;
        self.adopt(&scope, encoder)
    }

    /// The dictionary that pages of handles, or of a pool, are made with now.
    #[must_use]
    pub fn dictionary(&self, pool: Option<PoolId>) -> Option<Arc<Dictionary>> {
        let scope = match pool {
            None => Some(Arc::clone(&self.dictionaries.handles)),
            Some(pool) => {
                let pools = self.pools.read().unwrap_or_else(PoisonError::into_inner);
                pools.scope(pool)
            }
        };
        let current = scope?.current()?;
        Some(Arc::clone(current.encoder.dictionary()))
    }

    /// Gives a dictionary a slot and makes it the scope's.
    pub(in crate::store) fn adopt(
        &self,
        scope: &Arc<Scope>,
        encoder: Encoder,
    ) -> Result<(), DictionaryError> {
        let dictionaries = &self.dictionaries;
        let budget = &dictionaries.budget;
        // Until the scope has let its last dictionary go: no slot is in use twice
        // for one scope when another thread looks.
        let _taking = lock(&dictionaries.taking);
        self.retire_dictionaries();
        let dictionary = encoder.dictionary();
        let slot = dictionaries.slots.occupy(scope, dictionary, budget);
        let (slot, lease) = slot.ok_or(DictionaryError::NoSlot)?;
        if !scope.set_current(Current::new(encoder, slot, lease, budget)) {
            // No page was made with it.
            self.retire_dictionaries();
            return Err(DictionaryError::NoSuchPool);
        }
        dictionaries.adoptions.fetch_add(1, Relaxed);
        Ok(())
    }

    /// Drops dictionaries that nothing makes pages with and that no page names.
    pub(in crate::store) fn retire_dictionaries(&self) {
        for disused in self.dictionaries.slots.disused() {
            if !self.is_named(disused.slot) {
                self.dictionaries.slots.empty(disused);
            }
        }
    }

    /// Whether a page names the slot.
    fn is_named(&self, slot: u8) -> bool {
        let ids: Vec<_> = Coding::ids_of_slot(slot).collect();
        (0..self.shards.len()).any(|number| {
            let part = self.part(number);
            ids.iter().any(|id| part.core.zpages_of(*id) > 0)
        })
    }
}
