//! The tmem pools that are open.
//!
//! Stage on the data path: before every put.
//!
//! - numbers rise and are not used again, so the pools lie in order
//! - the budget counts the list
//!
//! Does not know the pages of a pool.

use zcache_core::{Kind, PoolId};

use crate::frames::Budget;

#[derive(Debug, Default)]
pub(in crate::store) struct Pools {
    open: Vec<PoolId>,
    next: u32,
}

impl Pools {
    /// Opens a pool.
    ///
    /// # Panics
    /// When 2^31 pools have been opened.
    pub(in crate::store) fn open(&mut self, kind: Kind, budget: &Budget) -> PoolId {
        let pool = PoolId::new(self.next, kind);
        self.next += 1;
        let before = self.heap_bytes();
        self.open.push(pool);
        budget.charge_overhead(self.heap_bytes() - before);
        pool
    }

    /// Closes a pool, if it is open.
    pub(in crate::store) fn close(&mut self, pool: PoolId, budget: &Budget) {
        let Some(at) = self.find(pool) else { return };
        self.open.remove(at);
        let before = self.heap_bytes();
        if self.open.len() * 4 <= self.open.capacity() {
            self.open.shrink_to(self.open.len() * 2);
        }
        budget.discharge_overhead(before - self.heap_bytes());
    }

    pub(in crate::store) fn contains(&self, pool: PoolId) -> bool {
        self.find(pool).is_some()
    }

    fn find(&self, pool: PoolId) -> Option<usize> {
        let at = self
            .open
            .binary_search_by_key(&pool.number(), |open| open.number())
            .ok()?;
        (self.open[at] == pool).then_some(at)
    }

    fn heap_bytes(&self) -> u64 {
        (self.open.capacity() * size_of::<PoolId>()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_by_the_hundred_are_counted_and_given_back() {
        let budget = Budget::new(0);
        let mut pools = Pools::default();
        let open: Vec<PoolId> = (0..1000)
            .map(|n| {
                let kind = if n % 3 == 0 {
                    Kind::Ephemeral
                } else {
                    Kind::Persistent
                };
                pools.open(kind, &budget)
            })
            .collect();
        assert!(budget.overhead() >= 1000 * size_of::<PoolId>() as u64);
        let other_kind = PoolId::new(open[0].number(), Kind::Persistent);
        assert!(!pools.contains(other_kind), "another kind is another pool");
        for pool in &open[1..] {
            assert!(pools.contains(*pool));
            pools.close(*pool, &budget);
            assert!(!pools.contains(*pool));
            pools.close(*pool, &budget);
        }
        assert!(pools.contains(open[0]));
        assert!(budget.overhead() < 64 * size_of::<PoolId>() as u64);
        assert_eq!(budget.overhead(), pools.heap_bytes());
        assert_eq!(pools.open(Kind::Ephemeral, &budget).number(), 1000);
    }
}
