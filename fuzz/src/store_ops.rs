//! A small store over a memory tier with faults, driven by bytes: each operation
//! is a byte and its arguments the next ones. A map says what must come back.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use zcache::codec::Dictionary;
use zcache::tier::memory::{Faults, MemoryTier};
use zcache::{
    Allocator, Codec, CodecChoice, ColdBlock, Handle, Key, LoadError, ObjectId, PAGE_SIZE, Page,
    PoolId, PoolKind, Rejected, Store, StoreConfig,
};

/// Operations of one run; longer inputs only repeat what shorter ones find.
const STEPS_MAX: usize = 4096;

struct Run {
    store: Store,
    tier: Arc<MemoryTier>,
    pools: [PoolId; 2],
    handles: Vec<(Handle, u64)>,
    keys: HashMap<Key, u64>,
    /// A cold block that is out to be compressed harder.
    cold: Option<ColdBlock>,
    faulty: bool,
    next: u64,
}

/// Dictionaries that are used in turn: more than pages can name at a time.
static DICTIONARIES: LazyLock<Vec<Arc<Dictionary>>> = LazyLock::new(|| {
    let trained = |argument: u8| {
        let pages: Vec<Page> = (0..48)
            .map(|number| page(number % 5, 40 + argument))
            .collect();
        let dictionary = Dictionary::train(&pages, 1024).expect("alike pages train a dictionary");
        Arc::new(dictionary)
    };
    (0..9).map(trained).collect()
});

/// Runs the operations that the bytes spell.
///
/// # Panics
/// When a page comes back wrong, is lost, or an equation of the store breaks.
pub fn fuzz_store_ops(data: &[u8]) {
    let mut bytes = data.iter().copied();
    let Some(head) = bytes.next() else { return };
    let mut run = Run::new(head, bytes.next().unwrap_or(0));
    for _ in 0..STEPS_MAX {
        let Some(op) = bytes.next() else { break };
        let argument = bytes.next().unwrap_or(0);
        run.step(op, argument);
    }
    run.tier.set_faults(Faults::default());
    run.faulty = false;
    if run.cold.is_some() {
        run.turn_cold();
    }
    run.check();
}

impl Run {
    fn new(head: u8, allocator: u8) -> Run {
        let tier = Arc::new(MemoryTier::new(head.into()));
        let config = StoreConfig {
            pool_bytes_max: 256 << 10 << (head & 3),
            codec: CodecChoice::ALL[usize::from(head >> 2 & 7) % CodecChoice::ALL.len()],
            allocator: Allocator::ALL[usize::from(allocator) % Allocator::ALL.len()],
            shards: 1 << (head >> 6),
            dictionaries: true,
            tiers: Vec::new(),
        };
        let limit = (head & 32 != 0).then_some(128 << 10);
        let store = Store::with_tier(&config, Box::new(Arc::clone(&tier)), limit);
        let store = store.expect("address space for a small store");
        let pools = [PoolKind::Ephemeral, PoolKind::Persistent].map(|kind| store.create_pool(kind));
        Run {
            store,
            tier,
            pools,
            handles: Vec::new(),
            keys: HashMap::new(),
            cold: None,
            faulty: false,
            next: 0,
        }
    }

    fn step(&mut self, op: u8, argument: u8) {
        let mut out = [0; PAGE_SIZE];
        match op % 16 {
            0..4 => self.insert(argument),
            4 | 5 if !self.handles.is_empty() => {
                let at = usize::from(argument) % self.handles.len();
                self.store.release(self.handles.swap_remove(at).0);
            }
            6 if !self.handles.is_empty() => {
                let (handle, number) = self.handles[usize::from(argument) % self.handles.len()];
                let result = self.store.load(handle, &mut out);
                self.expect(result.map(|()| Some(out)), Some(number), false);
            }
            7 => self.load_many(usize::from(argument)..usize::from(argument) + 32),
            8 | 9 => {
                self.next += 1;
                let key = self.key(argument);
                match self.store.put(&key, &page(self.next, argument)) {
                    Ok(()) => self.keys.insert(key, self.next << 8 | u64::from(argument)),
                    Err(_) => self.keys.remove(&key),
                };
            }
            10 => {
                let key = self.key(argument);
                let result = self.store.get(&key, &mut out);
                self.expect_key(key, result.map(|hit| hit.then_some(out)));
            }
            11 => {
                let key = self.key(argument);
                let result = self.store.get_exclusive(&key, &mut out);
                self.expect_key(key, result.map(|hit| hit.then_some(out)));
                if result.is_ok() {
                    self.keys.remove(&key);
                }
            }
            12 => {
                let key = self.key(argument);
                self.store.flush_object(key.pool, key.object);
                let other = |k: &Key| k.pool != key.pool || k.object != key.object;
                self.keys.retain(|k, _| other(k));
            }
            13 => {
                self.store.reclaim(u64::from(argument) << 10);
            }
            14 if argument >= 224 => self.use_dictionary(argument),
            14 if argument >= 192 => self
                .store
                .set_fresh_codec(Codec::ALL[usize::from(argument) % 3]),
            14 => {
                self.store.compact(usize::from(argument % 8));
            }
            _ if argument >= 128 => self.turn_cold(),
            _ => self.set_faults(argument),
        }
    }

    /// Has new pages be made with another dictionary, unless all slots are named.
    fn use_dictionary(&mut self, argument: u8) {
        let dictionary = &DICTIONARIES[usize::from(argument) % DICTIONARIES.len()];
        let pool = [None, Some(self.pools[0]), Some(self.pools[1])][usize::from(argument) % 3];
        self.store.use_dictionary(pool, Arc::clone(dictionary)).ok();
    }

    /// Takes a cold block out, or puts the one that is out back, so that any
    /// operations come between.
    fn turn_cold(&mut self) {
        match self.cold.take() {
            Some(mut cold) => {
                cold.compress();
                self.store.finish_cold(cold);
            }
            None => self.cold = self.store.begin_cold(),
        }
    }

    fn insert(&mut self, argument: u8) {
        self.next += 1;
        match self.store.insert(&page(self.next, argument)) {
            Ok(handle) => {
                let number = self.next << 8 | u64::from(argument);
                self.handles.push((handle, number));
            }
            Err(Rejected::PoolFull) => {}
            Err(other) => panic!("{other}"),
        }
    }

    /// Loads those of the handles in this range that there are.
    fn load_many(&mut self, range: std::ops::Range<usize>) {
        let end = range.end.min(self.handles.len());
        let handles = &self.handles[range.start.min(end)..end];
        let names: Vec<Handle> = handles.iter().map(|(handle, _)| *handle).collect();
        let mut out = vec![[0; PAGE_SIZE]; names.len()];
        let mut results = vec![Err(LoadError::Gone); names.len()];
        self.store.load_many(&names, &mut out, &mut results);
        for ((_, number), (result, page)) in handles.iter().zip(results.iter().zip(out)) {
            self.expect(result.map(|()| Some(page)), Some(*number), false);
        }
    }

    fn set_faults(&mut self, argument: u8) {
        let rate = |bit: u8| u16::from(argument >> bit & 1) * 20_000;
        self.faulty = argument & 7 != 0;
        self.tier.set_faults(Faults {
            sectors_max: (argument & 8 != 0).then_some(16),
            write_error_rate: rate(0),
            read_error_rate: rate(1),
            bit_flip_rate: rate(2),
            hold_acks: false,
        });
    }

    fn key(&self, argument: u8) -> Key {
        Key {
            pool: self.pools[usize::from(argument >> 7)],
            object: ObjectId([0, 1, u64::from(argument >> 5 & 3)]),
            index: u32::from(argument & 31),
        }
    }

    fn expect_key(&self, key: Key, result: Result<Option<Page>, LoadError>) {
        let ephemeral = key.pool.kind() == PoolKind::Ephemeral;
        self.expect(result, self.keys.get(&key).copied(), ephemeral);
    }

    fn expect(&self, result: Result<Option<Page>, LoadError>, number: Option<u64>, may_miss: bool) {
        match (result, number) {
            (Ok(Some(got)), Some(number)) => {
                assert!(got == page(number >> 8, number as u8), "wrong bytes");
            }
            (Ok(None), None) => {}
            (Ok(None), Some(_)) => assert!(may_miss, "a page is lost"),
            (Ok(Some(_)), None) => panic!("a page came back from the dead"),
            (Err(LoadError::Gone), _) => panic!("a page is gone"),
            (Err(error), _) => assert!(self.faulty, "{error} without a fault"),
        }
    }

    fn check(&mut self) {
        self.load_many(0..usize::MAX);
        for (key, _) in self.keys.clone() {
            let mut out = [0; PAGE_SIZE];
            let result = self.store.get(&key, &mut out);
            self.expect_key(key, result.map(|hit| hit.then_some(out)));
        }
        assert_eq!(self.store.validate(), Ok(()));
        for (handle, _) in std::mem::take(&mut self.handles) {
            self.store.release(handle);
        }
        for pool in self.pools {
            self.store.destroy_pool(pool);
        }
        let stats = self.store.stats();
        assert_eq!((stats.stored_pages, stats.swap_bytes), (0, 0));
        assert_eq!(stats.accepted + stats.rejected(), stats.attempts);
        assert_eq!(self.store.validate(), Ok(()));
    }
}

/// A page of which the argument says how much is random.
fn page(number: u64, argument: u8) -> Page {
    let mut page = [argument; PAGE_SIZE];
    let mut random = number;
    for byte in page.iter_mut().take(usize::from(argument) * 17) {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        *byte = (random >> 56) as u8;
    }
    page
}
