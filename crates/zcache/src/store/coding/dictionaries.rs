//! The dictionaries that pages of a store were made with, and which one new
//! pages get.
//!
//! Stage on the data path: beside the codec. The pages of the pager's handles
//! share one current dictionary, and each tmem pool has its own. A codec id
//! names a slot here:
//!
//! ```text
//! bits 0-1  kind (raw 1, lz4 2, zstd 3)
//!      2    compressed harder since it became cold
//!      3-5  slot of the dictionary, 0 for none
//! ```
//!
//! - A slot keeps its dictionary while a page of any shard, in RAM or in the
//!   tier, names it; the shards count these. One that is not current and that
//!   no page names is dropped by the next [`Store::train`].
//! - Who reads takes its reference while the shard that holds the page is
//!   locked, and who writes holds its own until the page is in: so no slot is
//!   emptied between a look at a page and its decoding.
//!
//! Lock order: after a shard.

use crate::sync::atomic::{AtomicU64, Ordering::Relaxed, fence};
use crate::sync::{Arc, PoisonError, RwLock, Weak};
use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::BuildHasherDefault;

use zcache_core::{CodecId, PoolId};

use super::training::Training;
use crate::codec::{Codec, Dictionary, DictionaryError, Encoder, Kind, ZSTD_LEVEL};
use crate::config::CodecChoice;
use crate::frames::Budget;
use crate::store::Store;

/// Dictionaries that pages may name at a time.
pub(in crate::store) const SLOTS: usize = 7;

/// What a codec id says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::store) struct Coding {
    pub(in crate::store) kind: Kind,
    /// Compressed harder since it became cold.
    pub(in crate::store) hard: bool,
    /// Slot of the dictionary; zero for none.
    pub(in crate::store) slot: u8,
}

impl Coding {
    pub(in crate::store) fn id(self) -> CodecId {
        CodecId::new(self.kind as u8 | u8::from(self.hard) << 2 | self.slot << 3)
    }

    /// `None` for an id that this version does not make.
    pub(in crate::store) fn of(id: CodecId) -> Option<Coding> {
        let (bits, slot) = (id.get() & 3, id.get() >> 3);
        let hard = id.get() & 4 != 0;
        let kind = Kind::from_bits(bits).filter(|kind| *kind != Kind::Same)?;
        let known = match slot {
            0 => !hard,
            _ => kind == Kind::Zstd,
        };
        known.then_some(Coding { kind, hard, slot })
    }

    /// That of fresh pages.
    pub(in crate::store) fn fresh(kind: Kind, slot: u8) -> Coding {
        Coding {
            kind,
            hard: false,
            slot,
        }
    }

    /// That of cold pages.
    pub(in crate::store) fn harder(slot: u8) -> Coding {
        Coding {
            kind: Kind::Zstd,
            hard: true,
            slot,
        }
    }
}

/// RAM that is counted while this lives.
#[derive(Debug)]
pub(in crate::store) struct Charge {
    bytes: u64,
    budget: Arc<Budget>,
}

impl Charge {
    pub(in crate::store) fn new(budget: &Arc<Budget>, bytes: u64) -> Charge {
        budget.charge_overhead(bytes);
        Charge {
            bytes,
            budget: Arc::clone(budget),
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.discharge_overhead(self.bytes);
    }
}

/// A dictionary that pages may name.
struct Kept {
    dictionary: Arc<Dictionary>,
    /// Whose pages it was trained for.
    scope: Weak<Scope>,
    charge: Charge,
}

/// What new pages are made with.
pub(in crate::store) struct Current {
    pub(in crate::store) encoder: Encoder,
    pub(in crate::store) slot: u8,
    // Held for its drop.
    _charge: Charge,
}

/// Pages that share a dictionary: those of handles, or those of a pool.
pub(in crate::store) struct Scope {
    current: RwLock<Option<Arc<Current>>>,
    /// The same dictionary with the tables of cold pages, once there are any.
    harder: RwLock<Option<Arc<Current>>>,
    pub(in crate::store) training: Training,
}

impl Scope {
    fn new() -> Scope {
        Scope {
            current: RwLock::new(None),
            harder: RwLock::new(None),
            training: Training::default(),
        }
    }

    /// What a new page is made with; `None` is the codec alone.
    pub(in crate::store) fn current(&self) -> Option<Arc<Current>> {
        let current = self.current.read();
        current.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_current(&self, current: Arc<Current>) {
        let mut place = self.current.write().unwrap_or_else(PoisonError::into_inner);
        *place = Some(current);
        drop(place);
        self.drop_harder();
    }

    pub(in crate::store) fn drop_harder(&self) {
        *self.harder.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Whether the tables of cold pages are there.
    pub(in crate::store) fn is_harder_ready(&self) -> bool {
        let harder = self.harder.read();
        harder.unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

/// The scope of each pool. Pools are numbered by the store, so nobody chooses numbers that collide; the hash is the same
/// in each process, so that scopes have one order.
type Pools = HashMap<PoolId, Arc<Scope>, BuildHasherDefault<DefaultHasher>>;

/// All dictionaries of a store.
pub(in crate::store) struct Dictionaries {
    slots: RwLock<[Option<Kept>; SLOTS]>,
    pub(in crate::store) handles: Arc<Scope>,
    pools: RwLock<Pools>,
    pub(in crate::store) budget: Arc<Budget>,
    /// Whether dictionaries are trained at all.
    pub(in crate::store) enabled: bool,
    pub(in crate::store) trainings: AtomicU64,
    pub(in crate::store) adoptions: AtomicU64,
    pub(in crate::store) training_ns: AtomicU64,
}

impl Dictionaries {
    pub(in crate::store) fn new(
        codec: CodecChoice,
        wanted: bool,
        budget: &Arc<Budget>,
    ) -> Dictionaries {
        Dictionaries {
            slots: RwLock::default(),
            handles: Arc::new(Scope::new()),
            pools: RwLock::default(),
            budget: Arc::clone(budget),
            enabled: wanted && codec != CodecChoice::Always(Codec::Raw),
            trainings: AtomicU64::new(0),
            adoptions: AtomicU64::new(0),
            training_ns: AtomicU64::new(0),
        }
    }

    pub(in crate::store) fn open_pool(&self, pool: PoolId) {
        if self.enabled {
            let mut pools = self.pools.write().unwrap_or_else(PoisonError::into_inner);
            pools.insert(pool, Arc::new(Scope::new()));
        }
    }

    pub(in crate::store) fn close_pool(&self, pool: PoolId) {
        let mut pools = self.pools.write().unwrap_or_else(PoisonError::into_inner);
        pools.remove(&pool);
    }

    pub(in crate::store) fn of_pool(&self, pool: PoolId) -> Option<Arc<Scope>> {
        let pools = self.pools.read().unwrap_or_else(PoisonError::into_inner);
        pools.get(&pool).cloned()
    }

    fn scope(&self, pool: Option<PoolId>) -> Option<Arc<Scope>> {
        match pool {
            None => Some(Arc::clone(&self.handles)),
            Some(pool) => self.of_pool(pool),
        }
    }

    /// Every scope: that of the handles first.
    pub(in crate::store) fn scopes(&self) -> Vec<Arc<Scope>> {
        let pools = self.pools.read().unwrap_or_else(PoisonError::into_inner);
        let first = Arc::clone(&self.handles);
        std::iter::once(first)
            .chain(pools.values().cloned())
            .collect()
    }

    /// The dictionary of a slot. Call it with the shard locked whose page names
    /// the slot.
    pub(in crate::store) fn of_slot(&self, slot: u8) -> Option<Arc<Dictionary>> {
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        let kept = slots.get(usize::from(slot).checked_sub(1)?)?.as_ref()?;
        Some(Arc::clone(&kept.dictionary))
    }

    /// Whose pages the dictionary of a slot is for.
    pub(in crate::store) fn scope_of_slot(&self, slot: u8) -> Option<Arc<Scope>> {
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        let kept = slots.get(usize::from(slot).checked_sub(1)?)?.as_ref()?;
        kept.scope.upgrade()
    }

    /// The only scope that has a dictionary: what pages without one can be made
    /// harder with, whosever they are.
    pub(in crate::store) fn only_scope(&self) -> Option<Arc<Scope>> {
        let mut with = self
            .scopes()
            .into_iter()
            .filter(|scope| scope.current().is_some());
        let first = with.next()?;
        with.next().is_none().then_some(first)
    }

    /// What cold pages of a scope are made with: its current dictionary, harder.
    pub(in crate::store) fn harder(&self, scope: &Scope, level: i32) -> Option<Arc<Current>> {
        let current = scope.current()?;
        let harder = scope.harder.read();
        let harder = harder.unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(harder) = harder
            && harder.slot == current.slot
        {
            return Some(harder);
        }
        let dictionary = Arc::clone(current.encoder.dictionary());
        let encoder = Encoder::new(dictionary, level).ok()?;
        let made = Arc::new(Current {
            slot: current.slot,
            _charge: Charge::new(&self.budget, encoder.ram_bytes()),
            encoder,
        });
        let mut place = scope.harder.write().unwrap_or_else(PoisonError::into_inner);
        *place = Some(Arc::clone(&made));
        Some(made)
    }

    pub(in crate::store) fn has_free_slot(&self) -> bool {
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        slots.iter().any(Option::is_none)
    }

    /// Gives a dictionary a slot and makes it the scope's. False when no slot is
    /// free.
    pub(in crate::store) fn adopt(&self, scope: &Arc<Scope>, encoder: Encoder) -> bool {
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        let Some(free) = slots.iter().position(Option::is_none) else {
            return false;
        };
        let dictionary = Arc::clone(encoder.dictionary());
        let charge = Charge::new(&self.budget, dictionary.ram_bytes());
        slots[free] = Some(Kept {
            dictionary,
            scope: Arc::downgrade(scope),
            charge,
        });
        drop(slots);
        self.adoptions.fetch_add(1, Relaxed);
        scope.set_current(Arc::new(Current {
            slot: free as u8 + 1,
            _charge: Charge::new(&self.budget, encoder.ram_bytes()),
            encoder,
        }));
        true
    }

    /// How many dictionaries are kept, and their RAM with that of the tables
    /// that write with them.
    pub(in crate::store) fn kept(&self) -> (u64, u64) {
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        let kept = slots.iter().flatten().map(|kept| kept.charge.bytes);
        let (count, bytes) = kept.fold((0, 0), |(count, sum), bytes| (count + 1, sum + bytes));
        drop(slots);
        let current = self
            .scopes()
            .into_iter()
            .filter_map(|scope| scope.current());
        let tables = current.map(|current| current.encoder.ram_bytes());
        (count, bytes + tables.sum::<u64>())
    }
}

impl Store {
    /// Has pages that come from now on, of handles or of a pool, be made with
    /// this dictionary, as one that was saved by an earlier process. Training
    /// goes on and may replace it.
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
        let scope = self.dictionaries.scope(pool);
        let scope = scope.ok_or(DictionaryError::NoSuchPool)?;
        let encoder = Encoder::new(dictionary, ZSTD_LEVEL)?;
        self.retire_dictionaries();
        match self.dictionaries.adopt(&scope, encoder) {
            true => Ok(()),
            false => Err(DictionaryError::NoSlot),
        }
    }

    /// The dictionary that pages of handles, or of a pool, are made with now.
    #[must_use]
    pub fn dictionary(&self, pool: Option<PoolId>) -> Option<Arc<Dictionary>> {
        let current = self.dictionaries.scope(pool)?.current()?;
        Some(Arc::clone(current.encoder.dictionary()))
    }

    /// Drops dictionaries that are not current and that no page names.
    pub(in crate::store) fn retire_dictionaries(&self) {
        for slot in 1..=SLOTS as u8 {
            if self.is_out_of_use(slot) {
                let all = &self.dictionaries.slots;
                let mut slots = all.write().unwrap_or_else(PoisonError::into_inner);
                slots[usize::from(slot) - 1] = None;
            }
        }
    }

    fn is_out_of_use(&self, slot: u8) -> bool {
        let slots = self.dictionaries.slots.read();
        let slots = slots.unwrap_or_else(PoisonError::into_inner);
        let Some(kept) = &slots[usize::from(slot) - 1] else {
            return false;
        };
        // Scopes and whoever is writing a page hold a reference; once only the
        // slot has one, no page can come to name it any more.
        if Arc::strong_count(&kept.dictionary) > 1 {
            return false;
        }
        drop(slots);
        fence(crate::sync::atomic::Ordering::Acquire);
        let ids = [Coding::fresh(Kind::Zstd, slot), Coding::harder(slot)].map(Coding::id);
        (0..self.shards.len()).all(|number| {
            let part = self.part(number);
            ids.iter().all(|id| part.core.zpages_of(*id) == 0)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codec_ids_are_what_they_say_and_those_of_the_future_are_nothing() {
        let mut known = 0;
        for bits in 0..CodecId::COUNT {
            let id = CodecId::new(bits);
            if let Some(coding) = Coding::of(id) {
                assert_eq!(coding.id(), id);
                known += 1;
            }
        }
        // Raw, lz4 and zstd without a dictionary, zstd with each of seven, fresh
        // and cold.
        assert_eq!(known, 3 + 2 * SLOTS);
    }
}
