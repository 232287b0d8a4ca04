//! The tmem pools that are open, and what is learned of each.
//!
//! Stage on the data path: before every put.
//!
//! - A number is not used again.
//! - A pool of which little came has no scope, for no dictionary will be trained
//!   on its pages soon: it costs its entry in the map and nothing else.
//! - The map is counted in the store's RAM, and shrinks.

use std::collections::HashMap;

use zcache_core::{Kind, PoolId};

use super::coding::dictionaries::Scope;
use crate::frames::{Budget, Charge};
use crate::sync::Arc;
use crate::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// A map with room for this many pools keeps it.
const ROOM_KEPT: usize = 64;

#[derive(Default)]
struct Pool {
    /// Pages that came before there was a scope.
    puts: AtomicU32,
    scope: Option<Arc<Scope>>,
}

/// See the module's description.
pub(super) struct Pools {
    open: HashMap<PoolId, Pool>,
    /// The next pool's number.
    next: u32,
    charge: Charge,
    budget: Arc<Budget>,
}

/// Whose pages a put's are.
pub(super) enum Owner {
    /// They have a scope, or the pool is not open, or no dictionary is wanted.
    Known(Option<Arc<Scope>>),
    /// So many came that the pool is to get a scope.
    WithoutScope,
}

impl Pools {
    pub(super) fn new(budget: &Arc<Budget>) -> Pools {
        Pools {
            open: HashMap::new(),
            next: 0,
            charge: Charge::new(budget, 0),
            budget: Arc::clone(budget),
        }
    }

    /// Opens a pool.
    ///
    /// # Panics
    /// When 2^31 pools have been opened.
    pub(super) fn open(&mut self, kind: Kind) -> PoolId {
        let pool = PoolId::new(self.next, kind);
        self.next += 1;
        self.open.insert(pool, Pool::default());
        self.charge.set(self.map_bytes());
        pool
    }

    /// Closes a pool, if it is open, and gives back its scope, if it had one.
    pub(super) fn close(&mut self, pool: PoolId) -> Option<Arc<Scope>> {
        let closed = self.open.remove(&pool)?;
        if self.open.capacity() > ROOM_KEPT && self.open.len() * 4 <= self.open.capacity() {
            self.open.shrink_to(self.open.len() * 2);
        }
        self.charge.set(self.map_bytes());
        closed.scope
    }

    pub(super) fn contains(&self, pool: PoolId) -> bool {
        self.open.contains_key(&pool)
    }

    /// The scope of a pool that has one.
    pub(super) fn scope(&self, pool: PoolId) -> Option<Arc<Scope>> {
        self.open.get(&pool)?.scope.clone()
    }

    /// The scope of a pool that is open.
    pub(super) fn make_scope(&mut self, pool: PoolId) -> Option<Arc<Scope>> {
        let scope = &mut self.open.get_mut(&pool)?.scope;
        let scope = scope.get_or_insert_with(|| Scope::new(&self.budget));
        Some(Arc::clone(scope))
    }

    /// Counts a page that comes, where a scope is made after `puts_max` of them.
    pub(super) fn count_put(&self, pool: PoolId, puts_max: u32) -> Owner {
        let Some(pool) = self.open.get(&pool) else {
            return Owner::Known(None);
        };
        if let Some(scope) = &pool.scope {
            return Owner::Known(Some(Arc::clone(scope)));
        }
        match pool.puts.load(Relaxed) < puts_max {
            true => {
                pool.puts.fetch_add(1, Relaxed);
                Owner::Known(None)
            }
            false => Owner::WithoutScope,
        }
    }

    pub(super) fn scopes(&self) -> impl Iterator<Item = Arc<Scope>> {
        self.open.values().filter_map(|pool| pool.scope.clone())
    }

    /// RAM of the map in bytes: a power of two of places, of which seven in eight
    /// are used at most, with a byte beside each.
    fn map_bytes(&self) -> u64 {
        let places = match self.open.capacity() {
            0 => 0,
            usable => (usable * 8 / 7).next_power_of_two(),
        };
        (places * (size_of::<(PoolId, Pool)>() + 1)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_costs_little_and_gives_it_back() {
        let budget = Arc::new(Budget::new(0));
        let mut pools = Pools::new(&budget);
        for count in [100, 100_000] {
            let open: Vec<PoolId> = (0..count).map(|_| pools.open(Kind::Ephemeral)).collect();
            let each = budget.overhead() as f64 / f64::from(count);
            assert!((17.0..=40.0).contains(&each), "{each} bytes of {count}");
            for pool in &open {
                pools.close(*pool);
            }
            assert!(budget.overhead() <= 128 * 17, "{}", budget.overhead());
        }
        assert_eq!(pools.open(Kind::Persistent).number(), 100_100);
        drop(pools);
        assert_eq!(budget.overhead(), 0);
    }

    #[test]
    fn a_pool_of_another_kind_is_another_pool() {
        let budget = Arc::new(Budget::new(0));
        let mut pools = Pools::new(&budget);
        let pool = pools.open(Kind::Ephemeral);
        assert!(pools.contains(pool));
        assert!(!pools.contains(PoolId::new(pool.number(), Kind::Persistent)));
    }

    #[test]
    fn a_scope_is_made_once_enough_came_and_goes_with_its_pool() {
        let budget = Arc::new(Budget::new(0));
        let mut pools = Pools::new(&budget);
        let pool = pools.open(Kind::Persistent);
        let map = budget.overhead();
        for _ in 0..10 {
            assert!(matches!(pools.count_put(pool, 10), Owner::Known(None)));
        }
        assert!(matches!(pools.count_put(pool, 10), Owner::WithoutScope));
        let scope = pools.make_scope(pool).unwrap();
        assert!(matches!(pools.count_put(pool, 10), Owner::Known(Some(_))));
        assert!(budget.overhead() > map);
        assert!(Arc::ptr_eq(&pools.close(pool).unwrap(), &scope));
        assert!(pools.make_scope(pool).is_none());
        assert!(matches!(pools.count_put(pool, 10), Owner::Known(None)));
        drop(scope);
        assert_eq!(budget.overhead(), map);
    }
}
