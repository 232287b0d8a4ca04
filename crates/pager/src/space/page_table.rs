//! The page table of one address space: what the pager knows of each page.
//!
//! Stage on the data path: between a fault and the store. Invariants:
//! `resident() == pages whose state is Resident or Moving`;
//! a `Stored` or `Loading` state owns exactly one reference to its zpage;
//! a page that is not in the table is `Absent` and reads as zeros.
//!
//! What it does not do: lock (its space does), call the kernel, or free zpages:
//! states that leave the table are handed back to the caller.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use zcache::Handle;

use crate::budget::balance::Epoch;

/// Small, so that memory of which little is touched costs little.
const LEAF_PAGES: u64 = 64;
/// Leaves that are visited under one lock.
const LEAVES_AT_ONCE: usize = 256;
const TAG_SHIFT: u32 = 29;
const PAYLOAD: u32 = (1 << TAG_SHIFT) - 1;

/// Number of a virtual page: address / 4096.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Vpn(pub(crate) u64);

impl Vpn {
    pub(crate) fn of(address: u64) -> Vpn {
        Vpn(address >> 12)
    }

    pub(crate) fn address(self) -> u64 {
        self.0 << 12
    }
}

impl fmt::Debug for Vpn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "V{:x}", self.0)
    }
}

/// The pages that `[address, address + len)` touches.
pub(crate) fn pages(address: u64, len: u64) -> Range<u64> {
    let end = address.saturating_add(len).saturating_add(4095) >> 12;
    (address >> 12)..end.max(address >> 12)
}

/// Number of a page in the shadow range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Slot(pub(crate) u32);

/// What the pager knows of one page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// Never touched or given up by the program: zeros.
    Absent,
    /// In the program's memory.
    Resident,
    /// On its way to the shadow; faults wait.
    Moving,
    /// In the shadow, whole and still in RAM: its second chance.
    Shadow(Slot),
    /// In the store.
    Stored(Handle),
    /// In the store, being decoded for a fault.
    Loading(Handle),
    /// Lost for a reason that was reported; touching it raises SIGBUS.
    Poisoned,
}

impl State {
    fn encode(self) -> u32 {
        let (tag, payload) = match self {
            State::Absent => (0, 0),
            State::Resident => (1, 0),
            State::Moving => (2, 0),
            State::Shadow(slot) => (3, slot.0),
            State::Stored(handle) => (4, handle.to_bits()),
            State::Loading(handle) => (5, handle.to_bits()),
            State::Poisoned => (6, 0),
        };
        debug_assert!(payload <= PAYLOAD);
        tag << TAG_SHIFT | payload
    }

    fn decode(bits: u32) -> State {
        let payload = bits & PAYLOAD;
        match bits >> TAG_SHIFT {
            0 => State::Absent,
            1 => State::Resident,
            2 => State::Moving,
            3 => State::Shadow(Slot(payload)),
            4 => State::Stored(Handle::from_bits(payload)),
            5 => State::Loading(Handle::from_bits(payload)),
            _ => State::Poisoned,
        }
    }
}

struct Leaf {
    used: u32,
    states: Box<[u32; LEAF_PAGES as usize]>,
    /// When pages were evicted last; there since the first eviction.
    epochs: Option<Box<[u16; LEAF_PAGES as usize]>>,
}

/// See the module's description.
#[derive(Default)]
pub(crate) struct Table {
    leaves: BTreeMap<u64, Leaf>,
    resident: u64,
}

impl Table {
    /// Pages that are `Resident` or `Moving`.
    pub(crate) fn resident(&self) -> u64 {
        self.resident
    }

    /// Pages that are not `Absent`.
    pub(crate) fn pages(&self) -> u64 {
        self.leaves.values().map(|leaf| u64::from(leaf.used)).sum()
    }

    pub(crate) fn get(&self, page: Vpn) -> State {
        match self.leaves.get(&(page.0 / LEAF_PAGES)) {
            Some(leaf) => State::decode(leaf.states[(page.0 % LEAF_PAGES) as usize]),
            None => State::Absent,
        }
    }

    /// Sets a state and returns the one that was there.
    pub(crate) fn set(&mut self, page: Vpn, state: State) -> State {
        let key = page.0 / LEAF_PAGES;
        if state == State::Absent && !self.leaves.contains_key(&key) {
            return State::Absent;
        }
        let leaf = self.leaves.entry(key).or_insert_with(|| Leaf {
            used: 0,
            states: Box::new([0; LEAF_PAGES as usize]),
            epochs: None,
        });
        let word = &mut leaf.states[(page.0 % LEAF_PAGES) as usize];
        let old = State::decode(*word);
        *word = state.encode();
        leaf.used += u32::from(state != State::Absent);
        leaf.used -= u32::from(old != State::Absent);
        if leaf.used == 0 {
            self.leaves.remove(&key);
        }
        self.count(old, false);
        self.count(state, true);
        old
    }

    /// Notes when a page of the table was evicted.
    pub(crate) fn set_epoch(&mut self, page: Vpn, epoch: Epoch) {
        if let Some(leaf) = self.leaves.get_mut(&(page.0 / LEAF_PAGES)) {
            let epochs = leaf
                .epochs
                .get_or_insert_with(|| Box::new([0; LEAF_PAGES as usize]));
            epochs[(page.0 % LEAF_PAGES) as usize] = epoch.0;
        }
    }

    /// When a page was evicted last, if it ever was.
    pub(crate) fn epoch(&self, page: Vpn) -> Epoch {
        let leaf = self.leaves.get(&(page.0 / LEAF_PAGES));
        let epochs = leaf.and_then(|leaf| leaf.epochs.as_ref());
        epochs.map_or(Epoch(0), |epochs| {
            Epoch(epochs[(page.0 % LEAF_PAGES) as usize])
        })
    }

    /// Calls `visit` with the epoch of each page that is out, for some of the
    /// table from page `from` on. Returns where to go on, `None` at the end.
    pub(crate) fn visit_out(&self, from: u64, mut visit: impl FnMut(Epoch)) -> Option<u64> {
        let mut leaves = self.leaves.range(from / LEAF_PAGES..);
        for (_, leaf) in leaves.by_ref().take(LEAVES_AT_ONCE) {
            let Some(epochs) = &leaf.epochs else { continue };
            for (word, epoch) in leaf.states.iter().zip(epochs.iter()) {
                if matches!(State::decode(*word), State::Stored(_)) {
                    visit(Epoch(*epoch));
                }
            }
        }
        leaves.next().map(|(key, _)| key * LEAF_PAGES)
    }

    fn count(&mut self, state: State, more: bool) {
        match state {
            State::Resident | State::Moving if more => self.resident += 1,
            State::Resident | State::Moving => self.resident -= 1,
            _ => {}
        }
    }

    /// Takes all states out of `range`, handing each to `gone`.
    pub(crate) fn clear(&mut self, range: Range<u64>, mut gone: impl FnMut(Vpn, State)) {
        for page in self.present(range) {
            let old = self.set(page, State::Absent);
            gone(page, old);
        }
    }

    /// The pages of `range` that are not `Absent`, in order.
    pub(crate) fn present(&self, range: Range<u64>) -> Vec<Vpn> {
        let mut found = Vec::new();
        self.for_each(range, |page, _| found.push(page));
        found
    }

    /// Calls `visit` for each page of `range` that is not `Absent`, in order.
    pub(crate) fn for_each(&self, range: Range<u64>, mut visit: impl FnMut(Vpn, State)) {
        if range.is_empty() {
            return;
        }
        let leaves = range.start / LEAF_PAGES..=(range.end - 1) / LEAF_PAGES;
        for (key, leaf) in self.leaves.range(leaves) {
            for (index, word) in leaf.states.iter().enumerate() {
                let page = key * LEAF_PAGES + index as u64;
                if *word != 0 && range.contains(&page) {
                    visit(Vpn(page), State::decode(*word));
                }
            }
        }
    }

    /// True when every page of `range` is `Absent`.
    pub(crate) fn is_absent(&self, range: Range<u64>) -> bool {
        let mut absent = true;
        self.for_each(range, |_, _| absent = false);
        absent
    }

    /// How many pages from `first` on, at most `limit`, are in a state that
    /// `wanted` accepts.
    pub(crate) fn run(&self, first: Vpn, limit: u64, wanted: impl Fn(State) -> bool) -> u64 {
        (0..limit)
            .take_while(|ahead| wanted(self.get(Vpn(first.0 + ahead))))
            .count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn random(seed: &mut u64) -> u64 {
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        *seed
    }

    fn any_state(seed: &mut u64) -> State {
        let bits = (random(seed) & 0xfff_ffff) as u32;
        match random(seed) % 7 {
            0 => State::Absent,
            1 => State::Resident,
            2 => State::Moving,
            3 => State::Shadow(Slot(bits)),
            4 => State::Stored(Handle::from_bits(bits)),
            5 => State::Loading(Handle::from_bits(bits)),
            _ => State::Poisoned,
        }
    }

    #[test]
    fn agrees_with_a_map_under_random_operations() {
        for start in 1..40u64 {
            let mut seed = start.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut table = Table::default();
            let mut model: HashMap<u64, State> = HashMap::new();
            for _ in 0..3000 {
                let page = random(&mut seed) % 3000 + (random(&mut seed) % 3) * 1_000_000;
                if random(&mut seed).is_multiple_of(50) {
                    let range = page..page + random(&mut seed) % 2000;
                    let mut gone = HashMap::new();
                    table.clear(range.clone(), |page, state| {
                        gone.insert(page.0, state);
                    });
                    let expected: HashMap<u64, State> =
                        model.extract_if(|page, _| range.contains(page)).collect();
                    assert_eq!(gone, expected, "seed {start}");
                } else {
                    let state = any_state(&mut seed);
                    let old = table.set(Vpn(page), state);
                    let expected = if state == State::Absent {
                        model.remove(&page)
                    } else {
                        model.insert(page, state)
                    };
                    assert_eq!(old, expected.unwrap_or(State::Absent), "seed {start}");
                }
                let resident = model
                    .values()
                    .filter(|state| matches!(state, State::Resident | State::Moving))
                    .count();
                assert_eq!(table.resident(), resident as u64, "seed {start}");
            }
            let mut all = HashMap::new();
            table.for_each(0..u64::MAX >> 12, |page, state| {
                all.insert(page.0, state);
            });
            assert_eq!(all, model, "seed {start}");
        }
    }

    #[test]
    fn an_emptied_table_holds_no_leaf() {
        let mut table = Table::default();
        table.set(Vpn(7), State::Resident);
        table.set(Vpn(7), State::Absent);
        assert!(table.leaves.is_empty());
    }

    #[test]
    fn epochs_are_kept_with_their_pages_and_visited_in_parts() {
        let mut table = Table::default();
        let pages: Vec<Vpn> = (0..100).map(|index| Vpn(index * 700)).collect();
        for (index, page) in pages.iter().enumerate() {
            table.set(*page, State::Stored(Handle::from_bits(index as u32)));
            table.set_epoch(*page, Epoch(index as u16));
        }
        table.set(pages[3], State::Resident);
        let mut seen = Vec::new();
        let mut from = Some(0);
        let mut parts = 0;
        while let Some(at) = from {
            from = table.visit_out(at, |epoch| seen.push(epoch.0));
            parts += 1;
        }
        let expected: Vec<u16> = (0..100).filter(|index| *index != 3).collect();
        assert_eq!(seen, expected);
        assert_eq!(parts, 100usize.div_ceil(LEAVES_AT_ONCE));
        assert_eq!(table.epoch(pages[3]), Epoch(3));
        assert_eq!(table.epoch(Vpn(u64::MAX >> 12)), Epoch(0));
    }

    #[test]
    fn a_range_covers_partly_touched_pages() {
        assert_eq!(pages(4095, 2), 0..2);
        assert_eq!(pages(4096, 0), 1..1);
        assert_eq!(pages(4096, 4096), 1..2);
    }
}
