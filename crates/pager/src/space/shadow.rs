//! The shadow: a range in the target where pages wait between leaving the
//! program's reach and being compressed. A fault there is cheap: the second
//! chance before compression.
//!
//! A circular range of page slots. Invariant: `head <= claimed <= tail <= head +
//! capacity`; slots in `[head, tail)` may hold RAM. Slots are claimed in order
//! by evictors and may be finished out of order; `head` passes finished ones.

use std::collections::VecDeque;

use crate::space::page_table::{Slot, Vpn};

/// Holds RAM that nobody owns any more.
const NOBODY: u64 = u64::MAX;
/// A page may be on its way there: not to be claimed yet.
const PENDING: u64 = u64::MAX - 3;
/// Holds no RAM, since no page came.
const EMPTY: u64 = u64::MAX - 1;
/// Held RAM that the kernel has back.
const FREED: u64 = u64::MAX - 2;

/// A run of neighbouring slots taken by one evictor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    sequence: u64,
    /// The first slot.
    pub(crate) first: Slot,
    /// How many.
    pub(crate) count: u64,
}

fn holds_ram(owner: u64) -> bool {
    owner != EMPTY && owner != FREED && owner != PENDING
}

/// See the module's description.
pub(crate) struct Shadow {
    capacity: u64,
    head: u64,
    claimed: u64,
    owners: VecDeque<u64>,
    /// Claims that could not be finished, to be taken up again as they are.
    returned: VecDeque<Claim>,
}

impl Shadow {
    pub(crate) fn new(capacity: u64) -> Shadow {
        Shadow {
            capacity,
            head: 0,
            claimed: 0,
            owners: VecDeque::new(),
            returned: VecDeque::new(),
        }
    }

    fn tail(&self) -> u64 {
        self.head + self.owners.len() as u64
    }

    fn slot(&self, sequence: u64) -> Slot {
        Slot((sequence % self.capacity) as u32)
    }

    /// Slots that nobody has claimed yet.
    pub(crate) fn waiting(&self) -> u64 {
        let returned: u64 = self.returned.iter().map(|claim| claim.count).sum();
        self.tail() - self.claimed + returned
    }

    /// True when no slot holds anything.
    pub(crate) fn is_empty(&self) -> bool {
        self.owners.is_empty()
    }

    /// Slots that hold RAM.
    pub(crate) fn held(&self) -> u64 {
        self.owners
            .iter()
            .filter(|owner| holds_ram(**owner))
            .count() as u64
    }

    /// Slots of `claim` that hold RAM.
    pub(crate) fn charged(&self, claim: Claim) -> u64 {
        let from = (claim.sequence - self.head) as usize;
        let slots = self.owners.range(from..from + claim.count as usize);
        slots.filter(|owner| holds_ram(**owner)).count() as u64
    }

    /// Takes a run of at most `wanted` neighbouring slots at the young end;
    /// `None` when the shadow is full. Each must get an owner or be set empty
    /// before it can be claimed.
    pub(crate) fn allocate(&mut self, wanted: u64) -> Option<(Slot, u64)> {
        let tail = self.tail();
        let room = self.capacity - self.owners.len() as u64;
        let until_wrap = self.capacity - tail % self.capacity;
        let count = wanted.min(room).min(until_wrap);
        if count == 0 {
            return None;
        }
        self.owners.extend((0..count).map(|_| PENDING));
        Some((self.slot(tail), count))
    }

    fn index(&self, slot: Slot) -> Option<usize> {
        let head_slot = self.head % self.capacity;
        let ahead = (u64::from(slot.0) + self.capacity - head_slot) % self.capacity;
        (ahead < self.owners.len() as u64).then_some(ahead as usize)
    }

    /// Says whose page lies in `slot`, or nobody's.
    pub(crate) fn set_owner(&mut self, slot: Slot, owner: Option<Vpn>) {
        if let Some(index) = self.index(slot) {
            self.owners[index] = owner.map_or(NOBODY, |page| page.0);
        }
    }

    /// No page came to `slot`.
    pub(crate) fn set_empty(&mut self, slot: Slot) {
        if let Some(index) = self.index(slot) {
            self.owners[index] = EMPTY;
        }
    }

    /// Whose page lies in `slot`.
    pub(crate) fn owner(&self, slot: Slot) -> Option<Vpn> {
        let owner = self.owners[self.index(slot)?];
        (owner < PENDING).then_some(Vpn(owner))
    }

    /// Takes at most `limit` of the oldest slots to be compressed and freed.
    pub(crate) fn claim(&mut self, limit: u64) -> Option<Claim> {
        self.claim_fresh(limit)
            .or_else(|| self.returned.pop_front())
    }

    /// Claims that came back are behind those that nobody has tried.
    fn claim_fresh(&mut self, limit: u64) -> Option<Claim> {
        let until_wrap = self.capacity - self.claimed % self.capacity;
        let most = (self.tail() - self.claimed).min(limit).min(until_wrap);
        let from = (self.claimed - self.head) as usize;
        let count = self
            .owners
            .range(from..from + most as usize)
            .take_while(|owner| **owner != PENDING)
            .count() as u64;
        if count == 0 {
            return None;
        }
        let claim = Claim {
            sequence: self.claimed,
            first: self.slot(self.claimed),
            count,
        };
        self.claimed += count;
        Some(claim)
    }

    /// A claim could not be finished: it waits to be taken up again, whole, since
    /// others may hold claims before and behind it.
    pub(crate) fn unclaim(&mut self, claim: Claim) {
        self.returned.push_back(claim);
    }

    /// The slots of a claim hold no RAM any more.
    pub(crate) fn finish(&mut self, claim: Claim) {
        for sequence in claim.sequence..claim.sequence + claim.count {
            self.owners[(sequence - self.head) as usize] = FREED;
        }
        while self.owners.front() == Some(&FREED) {
            self.owners.pop_front();
            self.head += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_reused_only_after_all_before_them_are_finished() {
        let mut shadow = Shadow::new(8);
        assert_eq!(shadow.allocate(6), Some((Slot(0), 6)));
        for index in 0..6 {
            shadow.set_owner(Slot(index), Some(Vpn(100 + u64::from(index))));
        }
        let first = shadow.claim(2).expect("six wait");
        let second = shadow.claim(3).expect("four wait");
        assert_eq!(
            (second.first, second.count, shadow.waiting()),
            (Slot(2), 3, 1)
        );
        shadow.finish(second);
        assert_eq!(shadow.allocate(8), Some((Slot(6), 2)));
        assert_eq!(shadow.allocate(8), None);
        shadow.finish(first);
        assert_eq!(shadow.allocate(8), Some((Slot(0), 5)));
        assert_eq!(shadow.owner(Slot(5)), Some(Vpn(105)));
        assert_eq!(shadow.owner(Slot(0)), None);
    }

    fn fill(shadow: &mut Shadow, wanted: u64) {
        let (first, count) = shadow.allocate(wanted).expect("there is room");
        for ahead in 0..count as u32 {
            shadow.set_owner(Slot(first.0 + ahead), Some(Vpn(7)));
        }
    }

    #[test]
    fn a_slot_whose_page_is_on_its_way_is_not_claimed() {
        let mut shadow = Shadow::new(8);
        fill(&mut shadow, 2);
        let (pending, _) = shadow.allocate(1).expect("there is room");
        fill(&mut shadow, 2);
        assert_eq!(shadow.claim(8).map(|claim| claim.count), Some(2));
        assert_eq!(shadow.claim(8), None);
        shadow.set_empty(pending);
        let rest = shadow.claim(8).expect("three wait");
        assert_eq!((rest.count, shadow.charged(rest)), (3, 2));
    }

    #[test]
    fn a_claim_that_comes_back_is_finished_once() {
        let mut shadow = Shadow::new(8);
        fill(&mut shadow, 6);
        let first = shadow.claim(2).expect("six wait");
        let second = shadow.claim(2).expect("four wait");
        shadow.unclaim(first);
        assert_eq!(shadow.waiting(), 4);
        shadow.finish(second);
        let rest = shadow.claim(8).expect("two wait");
        assert_eq!((rest.first, rest.count), (Slot(4), 2));
        assert_eq!(shadow.claim(8), Some(first));
        shadow.finish(rest);
        shadow.finish(first);
        assert!(shadow.is_empty());
    }

    #[test]
    fn a_claim_never_wraps() {
        let mut shadow = Shadow::new(8);
        fill(&mut shadow, 8);
        let most = shadow.claim(6).expect("eight wait");
        shadow.finish(most);
        fill(&mut shadow, 4);
        let end = shadow.claim(8).expect("six wait");
        assert_eq!((end.first, end.count), (Slot(6), 2));
        let start = shadow.claim(8).expect("four wait");
        assert_eq!((start.first, start.count), (Slot(0), 4));
        shadow.finish(end);
        shadow.finish(start);
        assert!(shadow.is_empty());
    }
}
