//! The tmem pools that are open, and what is learned of each.
//!
//! Stage on the data path: before every put.
//!
//! - A number is not used again.
//! - A pool of which little came has no scope, for no dictionary will be trained
//!   on its pages soon: it costs its entry in the map and nothing else.
//! - The maps are counted in the store's RAM, and shrink.

use std::collections::HashMap;

use zcache_core::{Kind, PoolId};

use super::coding::dictionaries::Scope;
use crate::frames::{Budget, Charge};
use crate::sync::Arc;
use crate::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// A map with room for this many pools keeps it.
const ROOM_KEPT: usize = 64;

/// See the module's description.
pub(super) struct Pools {
    /// Those that are open, with the pages that came before there was a scope.
    open: HashMap<PoolId, AtomicU32>,
    /// Of these, those that have one.
    scopes: HashMap<PoolId, Arc<Scope>>,
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
            scopes: HashMap::new(),
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
        self.open.insert(pool, AtomicU32::new(0));
        self.count();
        pool
    }

    /// Closes a pool, if it is open, and gives back its scope, if it had one.
    pub(super) fn close(&mut self, pool: PoolId) -> Option<Arc<Scope>> {
        self.open.remove(&pool)?;
        let scope = self.scopes.remove(&pool);
        shrink(&mut self.open);
        shrink(&mut self.scopes);
        self.count();
        scope
    }

    pub(super) fn contains(&self, pool: PoolId) -> bool {
        self.open.contains_key(&pool)
    }

    /// The scope of a pool that has one.
    pub(super) fn scope(&self, pool: PoolId) -> Option<Arc<Scope>> {
        self.scopes.get(&pool).cloned()
    }

    /// The scope of a pool that is open.
    pub(super) fn make_scope(&mut self, pool: PoolId) -> Option<Arc<Scope>> {
        if !self.contains(pool) {
            return None;
        }
        let made = || Scope::new(&self.budget);
        let scope = Arc::clone(self.scopes.entry(pool).or_insert_with(made));
        self.count();
        Some(scope)
    }

    /// Counts a page that comes, where a scope is made after `puts_max` of them.
    pub(super) fn count_put(&self, pool: PoolId, puts_max: u32) -> Owner {
        if let Some(scope) = self.scope(pool) {
            return Owner::Known(Some(scope));
        }
        match self.open.get(&pool) {
            None => Owner::Known(None),
            Some(puts) if puts.load(Relaxed) < puts_max => {
                puts.fetch_add(1, Relaxed);
                Owner::Known(None)
            }
            Some(_) => Owner::WithoutScope,
        }
    }

    pub(super) fn scopes(&self) -> impl Iterator<Item = Arc<Scope>> {
        self.scopes.values().cloned()
    }

    fn count(&mut self) {
        let bytes = map_bytes(&self.open) + map_bytes(&self.scopes);
        self.charge.set(bytes);
    }
}

fn shrink<T>(map: &mut HashMap<PoolId, T>) {
    if map.capacity() > ROOM_KEPT && map.len() * 4 <= map.capacity() {
        map.shrink_to(map.len() * 2);
    }
}

/// RAM of a map in bytes: a power of two of places, of which seven in eight are
/// used at most, with a byte beside each.
fn map_bytes<T>(map: &HashMap<PoolId, T>) -> u64 {
    let places = match map.capacity() {
        0 => 0,
        usable => (usable * 8 / 7).next_power_of_two(),
    };
    (places * (size_of::<(PoolId, T)>() + 1)) as u64
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
            assert!((9.0..=21.0).contains(&each), "{each} bytes of {count}");
            for pool in &open {
                pools.close(*pool);
            }
            assert!(budget.overhead() <= 128 * 9, "{}", budget.overhead());
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
        // The map of scopes keeps room for a few.
        assert!(budget.overhead() < map + 100);
    }
}
