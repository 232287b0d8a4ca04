//! The slots that codec ids name: which dictionary is in which, and when it goes.
//!
//! Stage on the data path: beside the codec, at each page that is given back.
//!
//! - A dictionary in a slot has a number that no other ever had or will have.
//! - Whatever makes pages with it holds its lease: the scope, and whoever is
//!   writing a page. Leases are only handed on, so once there is none, none ever
//!   comes, and the pages that name the slot can only become fewer.
//! - A slot is emptied only while the dictionary in it is the very one, by its
//!   number, that was found without leases and without pages.
//!
//! Lock order: last, but for the state of a scope.

use crate::sync::atomic::{Ordering::Acquire, fence};
use crate::sync::{Arc, PoisonError, RwLock, Weak};

use super::scope::{Lease, Scope};
use crate::codec::Dictionary;
use crate::frames::{Budget, Charge};

/// Dictionaries that pages may name at a time.
pub(in crate::store) const SLOTS: usize = 7;

/// A dictionary that pages may name.
struct Kept {
    number: u64,
    dictionary: Arc<Dictionary>,
    /// Whose pages it is for.
    scope: Weak<Scope>,
    lease: Weak<Lease>,
    charge: Charge,
}

#[derive(Default)]
struct Table {
    kept: [Option<Kept>; SLOTS],
    /// The next dictionary's number.
    next: u64,
}

/// A dictionary that nothing can make pages with any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Disused {
    pub(super) slot: u8,
    number: u64,
}

/// See the module's description.
#[derive(Default)]
pub(super) struct Slots(RwLock<Table>);

impl Slots {
    /// Reads one slot, which is counted from one.
    fn with<T>(&self, slot: u8, look: impl FnOnce(&Kept) -> T) -> Option<T> {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let kept = table.kept.get(usize::from(slot).checked_sub(1)?)?;
        kept.as_ref().map(look)
    }

    pub(super) fn dictionary(&self, slot: u8) -> Option<Arc<Dictionary>> {
        self.with(slot, |kept| Arc::clone(&kept.dictionary))
    }

    /// Whose pages the dictionary of a slot is for.
    pub(super) fn scope(&self, slot: u8) -> Option<Arc<Scope>> {
        self.with(slot, |kept| kept.scope.upgrade()).flatten()
    }

    pub(super) fn has_free(&self) -> bool {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        table.kept.iter().any(Option::is_none)
    }

    /// Puts a dictionary into a free slot, if there is one.
    pub(super) fn occupy(
        &self,
        scope: &Arc<Scope>,
        dictionary: &Arc<Dictionary>,
        budget: &Arc<Budget>,
    ) -> Option<(u8, Arc<Lease>)> {
        let mut table = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let free = table.kept.iter().position(Option::is_none)?;
        let number = table.next;
        table.next += 1;
        let lease = Arc::new(Lease::new());
        table.kept[free] = Some(Kept {
            number,
            dictionary: Arc::clone(dictionary),
            scope: Arc::downgrade(scope),
            lease: Arc::downgrade(&lease),
            charge: Charge::new(budget, dictionary.ram_bytes()),
        });
        Some((free as u8 + 1, lease))
    }

    /// The dictionaries without leases. Pages may name them still.
    pub(super) fn disused(&self) -> Vec<Disused> {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let disused = (1..).zip(&table.kept).filter_map(|(slot, kept)| {
            let kept = kept
                .as_ref()
                .filter(|kept| kept.lease.strong_count() == 0)?;
            Some(Disused {
                slot,
                number: kept.number,
            })
        });
        let disused = disused.collect();
        // Who looks at the shards next sees every page that was made with them.
        fence(Acquire);
        disused
    }

    /// Empties the slot of a dictionary that no page names, unless another has
    /// it by now.
    pub(super) fn empty(&self, disused: Disused) {
        let mut table = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let kept =
            table.kept[usize::from(disused.slot) - 1].take_if(|kept| kept.number == disused.number);
        drop(table);
        drop(kept);
    }

    /// The scopes that have a dictionary, each once.
    pub(super) fn scopes(&self) -> Vec<Arc<Scope>> {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let scopes = (1..).zip(&table.kept).filter_map(|(slot, kept)| {
            let scope = kept.as_ref()?.scope.upgrade()?;
            (scope.current_slot() == Some(slot)).then_some(scope)
        });
        scopes.collect()
    }

    /// How many dictionaries there are, and their RAM in bytes.
    pub(super) fn usage(&self) -> (u64, u64) {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let kept = table.kept.iter().flatten();
        kept.fold((0, 0), |(count, bytes), kept| {
            (count + 1, bytes + kept.charge.bytes())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn dictionary() -> Arc<Dictionary> {
        let dictionary = Dictionary::train(&testing::records(64), 4096);
        Arc::new(dictionary.expect("records train a dictionary"))
    }

    #[test]
    fn what_is_emptied_is_what_was_judged() {
        let budget = Arc::new(Budget::new(0));
        let (slots, scope, dictionary) = (Slots::default(), Scope::new(&budget), dictionary());
        let occupy = || slots.occupy(&scope, &dictionary, &budget).unwrap();
        let (slot, lease) = occupy();
        assert_eq!(slots.disused(), []);
        drop(lease);
        let judged = slots.disused();
        assert_eq!(judged.len(), 1);
        // Between the look and the deed, another thread was faster and the slot
        // has another dictionary.
        slots.empty(judged[0]);
        let (same, lease) = occupy();
        assert_eq!(same, slot);
        slots.empty(judged[0]);
        assert!(slots.dictionary(slot).is_some(), "it is another one");
        drop(lease);
        assert_ne!(slots.disused(), judged);
    }

    #[test]
    fn who_reads_or_has_a_dictionary_does_not_keep_its_slot() {
        let budget = Arc::new(Budget::new(0));
        let (slots, scope, dictionary) = (Slots::default(), Scope::new(&budget), dictionary());
        let (slot, lease) = slots.occupy(&scope, &dictionary, &budget).unwrap();
        let read = slots.dictionary(slot).unwrap();
        drop(lease);
        let disused = slots.disused();
        slots.empty(disused[0]);
        assert!(slots.dictionary(slot).is_none());
        assert!(Arc::ptr_eq(&read, &dictionary));
        let of_scope = budget.overhead();
        drop(scope);
        assert!(of_scope > 0 && budget.overhead() == 0);
    }

    #[test]
    fn slots_are_few_and_come_back() {
        let budget = Arc::new(Budget::new(0));
        let (slots, scope, dictionary) = (Slots::default(), Scope::new(&budget), dictionary());
        let leases: Vec<_> = (0..SLOTS)
            .map(|_| slots.occupy(&scope, &dictionary, &budget).unwrap())
            .collect();
        assert!(!slots.has_free());
        assert!(slots.occupy(&scope, &dictionary, &budget).is_none());
        assert_eq!(slots.usage().0, SLOTS as u64);
        drop(leases);
        for disused in slots.disused() {
            slots.empty(disused);
        }
        assert!(slots.has_free());
        assert_eq!(slots.usage(), (0, 0));
    }
}
