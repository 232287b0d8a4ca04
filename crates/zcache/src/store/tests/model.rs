//! A naive model beside the store: maps of what must be there, driven by the
//! same random operations over a tier with random faults.

use super::super::coding::dictionaries::SLOTS;
use super::*;
use crate::codec::{Dictionary, DictionaryError};
use crate::config::CodecChoice;
use crate::testing::Rng;
use crate::tier::memory::Faults;
use std::collections::HashMap;

use zcache_core::{ObjectId, PoolId};

#[derive(Default)]
struct Model {
    /// Handle to page number and references.
    handles: Vec<(Handle, u64, u32)>,
    keys: HashMap<Key, u64>,
    faults: Faults,
}

struct Run<'a> {
    rng: &'a mut Rng,
    store: Arc<Store>,
    tier: Arc<MemoryTier>,
    pools: [PoolId; 2],
    model: Model,
    cold: Option<ColdBlock>,
    next: u64,
}

#[test]
fn random_operations_do_what_the_model_says() {
    let rng = &mut Rng::from_env("model");
    for round in 0..12 {
        let config = StoreConfig {
            codec: CodecChoice::ALL[round % CodecChoice::ALL.len()],
            allocator: Allocator::ALL[round / 3 % Allocator::ALL.len()],
            ..StoreConfig::default()
        };
        let swap = [None, Some(1 << 20)][rng.below(2) as usize];
        let (store, tier) = swapping(
            (1 << 20) + rng.below(3 << 20),
            1 << (round % 3),
            swap,
            config,
        );
        let pools = [
            store.create_pool(PoolKind::Ephemeral),
            store.create_pool(PoolKind::Persistent),
        ];
        let mut run = Run {
            rng,
            store,
            tier,
            pools,
            model: Model::default(),
            cold: None,
            next: 0,
        };
        for step in 0..1500 {
            run.step();
            if step % 500 == 0 {
                run.check();
            }
        }
        if run.cold.is_some() {
            run.recompress();
        }
        run.model.faults = Faults::default();
        run.tier.set_faults(Faults::default());
        run.check();
        run.finish();
    }
}

impl Run<'_> {
    fn step(&mut self) {
        match self.rng.below(100) {
            0..35 => self.insert(),
            35..45 => self.with_handle(|run, at| {
                run.store.retain(run.model.handles[at].0);
                run.model.handles[at].2 += 1;
            }),
            45..60 => self.with_handle(Run::release),
            60..65 => self.with_handle(|run, at| {
                let (handle, number, _) = run.model.handles[at];
                let result = load(&run.store, handle);
                run.expect(result, number);
            }),
            65..68 => self.load_many(),
            68..71 => {
                let bytes = self.rng.below(1 << 20);
                self.store.reclaim(bytes);
            }
            71..72 => {
                self.store.compact(8);
                self.recompress();
            }
            72 if self.rng.below(2) == 0 => self.change_dictionary(),
            72 => {
                let codec = Codec::ALL[self.rng.below(3) as usize];
                self.store.set_fresh_codec(codec);
            }
            73..84 => self.put(),
            84..86 => self.get(),
            86..88 => self.get_run(),
            88..92 => self.get_exclusive(),
            92..96 => {
                let key = self.key();
                let flushed = self.store.flush_page(&key);
                let expected = self.model.keys.remove(&key).is_some();
                assert!(flushed == expected || self.may_miss(key));
            }
            96 => {
                let key = self.key();
                self.store.flush_object(key.pool, key.object);
                self.model
                    .keys
                    .retain(|k, _| k.pool != key.pool || k.object != key.object);
            }
            97 => {
                let pool = self.key().pool;
                self.store.flush_pool(pool);
                self.model.keys.retain(|k, _| k.pool != pool);
            }
            98 => self.set_faults(),
            _ => self
                .store
                .set_pool_bytes_max((1 << 20) + self.rng.below(3 << 20)),
        }
    }

    /// Begins a recompression or ends the one that was begun.
    fn recompress(&mut self) {
        match self.cold.take() {
            Some(mut cold) => {
                cold.compress();
                self.store.finish_cold(cold);
            }
            None => self.cold = self.store.begin_cold(),
        }
    }

    /// A dictionary from other pages takes the place of the current one.
    fn change_dictionary(&mut self) {
        let from = self.rng.below(1000) as usize;
        let dictionary = Dictionary::train(&testing::records(1064)[from..from + 64], 4096);
        let dictionary = Arc::new(dictionary.expect("records train a dictionary"));
        let pool = [None, Some(self.pools[0]), Some(self.pools[1])][self.rng.below(3) as usize];
        match self.store.use_dictionary(pool, dictionary) {
            Ok(()) => {}
            Err(DictionaryError::NoSlot) => {
                assert_eq!(self.store.stats().dictionaries, SLOTS as u64);
            }
            Err(DictionaryError::NotUsed) => assert!(!self.store.dictionaries.enabled),
            Err(other) => panic!("{other}"),
        }
    }

    fn with_handle(&mut self, act: impl FnOnce(&mut Self, usize)) {
        if !self.model.handles.is_empty() {
            let at = self.rng.below(self.model.handles.len() as u64) as usize;
            act(self, at);
        }
    }

    fn insert(&mut self) {
        self.next += 1;
        match self.store.insert(&testing::page(self.next)) {
            Ok(handle) => {
                assert!(
                    self.model
                        .handles
                        .iter()
                        .all(|(other, ..)| *other != handle)
                );
                self.model.handles.push((handle, self.next, 1));
            }
            Err(Rejected::PoolFull) => {
                let max = self.store.budget.max();
                assert!(self.store.budget.used() + 3 * 64 * 1024 * 4 > max);
                self.store.reclaim(128 << 10);
            }
            Err(other) => panic!("{other}"),
        }
    }

    fn release(&mut self, at: usize) {
        let entry = &mut self.model.handles[at];
        self.store.release(entry.0);
        entry.2 -= 1;
        if entry.2 == 0 {
            let (handle, ..) = self.model.handles.swap_remove(at);
            assert_eq!(load(&self.store, handle), Err(LoadError::Gone));
        }
    }

    fn load_many(&mut self) {
        let handles: Vec<_> = self
            .model
            .handles
            .iter()
            .map(|(handle, ..)| *handle)
            .collect();
        let mut out = vec![[0; PAGE_SIZE]; handles.len()];
        let mut results = vec![Err(LoadError::Gone); handles.len()];
        self.store.load_many(&handles, &mut out, &mut results);
        for (n, (result, page)) in results.into_iter().zip(out).enumerate() {
            let number = self.model.handles[n].1;
            self.expect(result.map(|()| page), number);
        }
    }

    fn put(&mut self) {
        self.next += 1;
        let key = self.key();
        match self.store.put(&key, &testing::page(self.next)) {
            Ok(()) => self.model.keys.insert(key, self.next),
            Err(_) => self.model.keys.remove(&key),
        };
    }

    fn get(&mut self) {
        let key = self.key();
        let mut out = [0; PAGE_SIZE];
        let result = self.store.get(&key, &mut out).map(|hit| hit.then_some(out));
        self.expect_key(key, result);
    }

    fn get_run(&mut self) {
        let first = self.key();
        let count = 1 + self.rng.below(150) as usize;
        let mut out = vec![[0; PAGE_SIZE]; count];
        let mut results = vec![Ok(true); count];
        self.store.get_run(&first, &mut out, &mut results);
        for (ahead, (result, page)) in results.into_iter().zip(out).enumerate() {
            let key = Key {
                index: first.index + ahead as u32,
                ..first
            };
            self.expect_key(key, result.map(|hit| hit.then_some(page)));
        }
    }

    fn get_exclusive(&mut self) {
        let key = self.key();
        let mut out = [0; PAGE_SIZE];
        let result = self.store.get_exclusive(&key, &mut out);
        let result = result.map(|hit| hit.then_some(out));
        self.expect_key(key, result);
        if result.is_ok() {
            self.model.keys.remove(&key);
            assert_eq!(self.store.get(&key, &mut out), Ok(false));
        }
    }

    fn set_faults(&mut self) {
        let rate = |rng: &mut Rng| [0, 0, 2000, u16::MAX][rng.below(4) as usize];
        self.model.faults = Faults {
            sectors_max: [None, Some(100)][self.rng.below(2) as usize],
            write_error_rate: rate(self.rng),
            read_error_rate: rate(self.rng),
            bit_flip_rate: rate(self.rng),
            hold_acks: false,
        };
        self.tier.set_faults(self.model.faults);
    }

    fn key(&mut self) -> Key {
        Key {
            pool: self.pools[self.rng.below(2) as usize],
            object: ObjectId([0, self.rng.below(3), 9]),
            index: self.rng.below(200) as u32,
        }
    }

    /// An ephemeral page may be gone.
    fn may_miss(&self, key: Key) -> bool {
        key.pool.kind() == PoolKind::Ephemeral
    }

    fn expect(&self, result: Result<Page, LoadError>, number: u64) {
        match result {
            Ok(page) => assert!(page == testing::page(number), "page {number}"),
            Err(LoadError::Io { errno: 5, .. }) => assert_ne!(self.model.faults.read_error_rate, 0),
            Err(LoadError::Checksum { .. }) => assert_ne!(self.model.faults.bit_flip_rate, 0),
            Err(error) => panic!("{error}"),
        }
    }

    fn expect_key(&self, key: Key, result: Result<Option<Page>, LoadError>) {
        match (result, self.model.keys.get(&key)) {
            (Ok(Some(page)), Some(number)) => self.expect(Ok(page), *number),
            (Ok(None), Some(_)) => assert!(self.may_miss(key), "lost {key:?}"),
            (Ok(None), None) => {}
            (Err(error), Some(number)) => self.expect(Err(error), *number),
            (other, None) => panic!("{key:?}: {:?}", other.map(|page| page.is_some())),
        }
    }

    fn check(&mut self) {
        assert_eq!(self.store.validate(), Ok(()));
        self.load_many();
        let keys: Vec<Key> = self.model.keys.keys().copied().collect();
        for key in keys {
            let mut out = [0; PAGE_SIZE];
            let result = self.store.get(&key, &mut out).map(|hit| hit.then_some(out));
            self.expect_key(key, result);
        }
        let stats = self.store.stats();
        assert_eq!(stats.accepted + stats.rejected(), stats.attempts);
        let most = self.model.handles.len() + self.model.keys.len();
        assert!(stats.stored_pages <= most as u64);
    }

    fn finish(&mut self) {
        for (handle, _, references) in std::mem::take(&mut self.model.handles) {
            for _ in 0..references {
                self.store.release(handle);
            }
        }
        for pool in self.pools {
            self.store.destroy_pool(pool);
        }
        let stats = self.store.stats();
        assert_eq!((stats.stored_pages, stats.swap_bytes), (0, 0));
        assert_eq!(stats.compressed_bytes, 0);
        assert_eq!(self.store.validate(), Ok(()));
    }
}
