//! Pages by key, with the contract of transcendent memory.

use std::collections::BTreeMap;

use zcache::{Key, LoadError, ObjectId, PAGE_SIZE, Page, PoolId, PoolKind, Rejected};

use crate::client::Client;
use crate::complaints::one_more;
use crate::expect::{Expected, Learned, judge};
use crate::support::pages::page;

/// A key in an order: pool, object by a small number, index.
pub(crate) type Name = (u32, u64, u32);

/// Pages of a run that is read at once.
const RUN_PAGES: u64 = 150;

/// Pages of one word that come at once.
const BURST_PAGES: u32 = 800;

/// The object of a number: ids use all of their words.
fn object(number: u64) -> ObjectId {
    match number % 3 {
        0 => ObjectId([0, 0, number]),
        1 => ObjectId([number, 0, u64::MAX]),
        _ => ObjectId([number << 32, !number, number.wrapping_mul(0x9e37_79b9)]),
    }
}

fn name_of(key: &Key, object: u64) -> Name {
    (key.pool.number(), object, key.index)
}

impl Client<'_> {
    pub(crate) fn key_of(&self, name: Name) -> Key {
        let (pool, number, index) = name;
        let is_it = |one: &&PoolId| one.number() == pool;
        let pool = self.pools.iter().chain(&self.closed).find(is_it);
        Key {
            pool: *pool.expect("a pool of this client"),
            object: object(number),
            index,
        }
    }

    /// A key that may or may not be there: of dense objects, of sparse ones, of
    /// objects with one page.
    fn any_key(&mut self) -> (Name, Key) {
        if self.random.one_in(2)
            && let Some(name) = self.key_there()
        {
            return (name, self.key_of(name));
        }
        let pool = match self.closed.last() {
            Some(closed) if self.random.one_in(40) => *closed,
            _ => self.random.pick(&self.pools),
        };
        let (number, index) = match self.random.below(3) {
            0 => (self.random.below(3), self.random.below(200) as u32),
            1 => {
                let far = self.random.below(60) as u32;
                let index = u32::MAX.wrapping_sub(far.wrapping_mul(71_000_003));
                (10 + self.random.below(2), index)
            }
            _ => (100 + self.random.below(200), 0),
        };
        let name = (pool.number(), number, index);
        (name, self.key_of(name))
    }

    fn key_there(&mut self) -> Option<Name> {
        let (first, ..) = self.keys.first_key_value()?.0;
        let (last, ..) = self.keys.last_key_value()?.0;
        let pool = first + self.random.below(u64::from(last - first) + 1) as u32;
        let from = (pool, self.random.below(300), self.random.next() as u32);
        let later = self.keys.range(from..).next();
        let found = later.or_else(|| self.keys.first_key_value());
        found.map(|(name, _)| *name)
    }

    fn expected(&self, name: Name) -> Expected {
        self.keys.get(&name).copied().unwrap_or(Expected::None)
    }

    /// What an answer says of what will be answered.
    fn learn(&mut self, name: Name, learned: Learned) {
        match (self.expected(name), learned) {
            (_, Learned::Miss) => {
                self.keys.remove(&name);
            }
            (Expected::Maybe(number), Learned::Hit)
                if self.key_of(name).pool.kind() == PoolKind::Persistent =>
            {
                self.keys.insert(name, Expected::Page(number));
            }
            _ => {}
        }
    }

    pub(crate) fn put(&mut self) {
        let (name, key) = self.any_key();
        let number = self.next_page();
        self.put_page(name, &key, number, &page(number));
    }

    fn put_page(&mut self, name: Name, key: &Key, number: u64, page: &Page) {
        let persistent = key.pool.kind() == PoolKind::Persistent;
        let open = self.pools.contains(&key.pool);
        let room = persistent && open && self.shared.has_room(self.pages());
        match self.shared.call(|store| store.put(key, page)) {
            Some(Ok(())) => {
                assert!(open, "a page of a pool that is closed was taken");
                let expected = match persistent {
                    true => Expected::Page(number),
                    false => Expected::Maybe(number),
                };
                self.keys.insert(name, expected);
            }
            Some(Err(Rejected::NoSuchPool)) => {
                assert!(!open, "an open pool is said to be none");
                self.keys.remove(&name);
            }
            Some(Err(refused)) => {
                one_more(&self.shared.complaints.seen.refusals);
                self.keys.remove(&name);
                if refused == Rejected::PoolFull {
                    self.shared.refused_as_full();
                }
                if room {
                    let what = format!("{refused}; {:?}", self.shared.shape);
                    let kind = "a persistent page is refused although the tier has room";
                    self.shared.complaints.add(kind, what);
                } else if persistent && open && self.random.one_in(16) {
                    self.ephemeral_are_gone();
                }
            }
            // The older one is gone, the newer one may be there.
            None => {
                self.keys.insert(name, Expected::Maybe(number));
            }
        }
    }

    fn pages(&self) -> u64 {
        (self.keys.len() + self.handles.len()) as u64
    }

    /// After a persistent page was refused no ephemeral one can be left.
    fn ephemeral_are_gone(&mut self) {
        if !self.shared.alone() {
            return;
        }
        let maybe = self
            .keys
            .iter()
            .filter(|(_, expected)| matches!(expected, Expected::Maybe(_)));
        let names: Vec<Name> = maybe.map(|(name, _)| *name).collect();
        let mut left = 0;
        for name in names {
            let key = self.key_of(name);
            if key.pool.kind() == PoolKind::Ephemeral {
                left += u64::from(self.get_this(name, &key) == Some(Learned::Hit));
            }
        }
        if left > 0 {
            let what = format!("{left} are left in {:?}", self.shared.shape);
            let kind = "a persistent page is refused beside ephemeral ones";
            self.shared.complaints.add(kind, what);
        }
    }

    pub(crate) fn get(&mut self) {
        let (name, key) = self.any_key();
        self.get_this(name, &key);
    }

    fn get_this(&mut self, name: Name, key: &Key) -> Option<Learned> {
        let since = self.shared.now();
        let mut out = [0xa5; PAGE_SIZE];
        let got = self.shared.call(|store| store.get(key, &mut out))?;
        let answer = got.map(|hit| hit.then_some(&out));
        let learned = judge(self.shared, key, self.expected(name), answer, since);
        self.learn(name, learned);
        Some(learned)
    }

    pub(crate) fn get_exclusive(&mut self) {
        let (name, key) = self.any_key();
        let since = self.shared.now();
        let mut out = [0xa5; PAGE_SIZE];
        let got = self
            .shared
            .call(|store| store.get_exclusive(&key, &mut out));
        let Some(got) = got else { return };
        let answer = got.map(|hit| hit.then_some(&out));
        let learned = judge(self.shared, &key, self.expected(name), answer, since);
        self.learn(name, learned);
        if learned == Learned::Hit {
            self.keys.remove(&name);
            self.get_this(name, &key);
        }
    }

    pub(crate) fn get_run(&mut self) {
        let ((_, number, _), first) = self.any_key();
        let count = 1 + self.random.below(RUN_PAGES) as usize;
        let mut out = vec![[0xa5; PAGE_SIZE]; count];
        let mut results = vec![Err(LoadError::Gone); count];
        let since = self.shared.now();
        let got = self
            .shared
            .call(|store| store.get_run(&first, &mut out, &mut results));
        if got.is_none() {
            return;
        }
        for (ahead, (out, result)) in out.iter().zip(results).enumerate() {
            // Beyond the last index there is nothing.
            let Some(index) = first.index.checked_add(ahead as u32) else {
                assert_eq!(result, Ok(false));
                continue;
            };
            let key = Key { index, ..first };
            let name = name_of(&key, number);
            let answer = result.map(|hit| hit.then_some(out));
            let learned = judge(self.shared, &key, self.expected(name), answer, since);
            self.learn(name, learned);
        }
    }

    pub(crate) fn flush_page(&mut self) {
        let (name, key) = self.any_key();
        let expected = self.keys.remove(&name).unwrap_or(Expected::None);
        let flushed = self.shared.store.flush_page(&key);
        match expected {
            Expected::Page(_) => assert!(flushed, "{key:?} was there"),
            Expected::Maybe(_) => {}
            Expected::None => assert!(!flushed, "{key:?} was not there"),
        }
        self.get_this(name, &key);
    }

    pub(crate) fn flush_object(&mut self) {
        let ((pool, number, _), key) = self.any_key();
        let flushed = self.shared.store.flush_object(key.pool, key.object);
        self.went((pool, number, 0)..=(pool, number, u32::MAX), flushed);
    }

    pub(crate) fn flush_pool(&mut self) {
        let pool = self.random.pick(&self.pools);
        let flushed = self.shared.store.flush_pool(pool);
        self.went(all_of(pool), flushed);
    }

    pub(crate) fn destroy_pool(&mut self) {
        if self.pools.len() < 3 {
            return;
        }
        let at = self.random.below(self.pools.len() as u64) as usize;
        let pool = self.pools.swap_remove(at);
        let flushed = self.shared.store.destroy_pool(pool);
        self.went(all_of(pool), flushed);
        // Its keys miss, but the model looks for a few pools only.
        self.closed.push(pool);
        if self.closed.len() > 4 {
            self.closed.remove(0);
        }
    }

    /// Names that were flushed at once, and how many the store says there were.
    fn went(&mut self, range: std::ops::RangeInclusive<Name>, flushed: u64) {
        let gone: BTreeMap<Name, Expected> =
            self.keys.range(range).map(|(n, e)| (*n, *e)).collect();
        let sure = |expected: &&Expected| matches!(expected, Expected::Page(_));
        let least = gone.values().filter(sure).count() as u64;
        assert!(
            (least..=gone.len() as u64).contains(&flushed),
            "{flushed} pages were flushed of {least} to {} in {:?}",
            gone.len(),
            self.shared.shape
        );
        for name in gone.keys() {
            self.keys.remove(name);
        }
    }

    /// Many pages of one word each, which need a place in the tables and no
    /// other; sometimes a misuse instead.
    pub(crate) fn burst(&mut self) {
        if self.shared.alone() && self.random.one_in(3) {
            return self.misuse_a_handle();
        }
        let pool = self.random.pick(&self.pools);
        for index in 0..BURST_PAGES {
            // Numbers that are multiples of 16 are pages of one word.
            let number = loop {
                let number = self.next_page();
                if number.is_multiple_of(16) {
                    break number;
                }
            };
            let name = (pool.number(), 400, index);
            let key = self.key_of(name);
            self.put_page(name, &key, number, &page(number));
        }
    }

    /// Reads every page that is there.
    pub(crate) fn read_all(&mut self) {
        for held in self.handles.clone().chunks(64) {
            self.load_these(held);
        }
        let names: Vec<Name> = self.keys.keys().copied().collect();
        for name in names {
            let key = self.key_of(name);
            self.get_this(name, &key);
        }
    }

    /// How many pages are there at least and at most.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let sure = |expected: &&Expected| matches!(expected, Expected::Page(_));
        let handles = self.handles.len() as u64;
        let least = self.keys.values().filter(sure).count() as u64;
        (handles + least, handles + self.keys.len() as u64)
    }

    /// Releases and flushes everything.
    pub(crate) fn leave(&mut self) {
        for held in std::mem::take(&mut self.handles) {
            for _ in 0..held.references {
                self.shared.store.release(held.handle);
            }
        }
        for pool in std::mem::take(&mut self.pools) {
            let flushed = self.shared.store.destroy_pool(pool);
            self.went(all_of(pool), flushed);
        }
        assert!(self.keys.is_empty());
    }
}

/// Every name of a pool.
fn all_of(pool: PoolId) -> std::ops::RangeInclusive<Name> {
    let pool = pool.number();
    (pool, 0, 0)..=(pool, u64::MAX, u32::MAX)
}
