//! One thread of a run: its own pages, what it knows of them, and which operation
//! it does next.

use std::collections::BTreeMap;
use std::sync::Arc;

use zcache::codec::DictionaryError;
use zcache::{Chooser, Codec, ColdBlock, Handle, PoolId, PoolKind};

use crate::complaints::one_more;
use crate::expect::Expected;
use crate::keys::Name;
use crate::shared::Shared;
use crate::support::counts::undisturbed;
use crate::support::pages::DICTIONARIES;
use crate::support::random::Random;

/// Dictionaries that a store tells apart at a time.
const DICTIONARIES_MAX: u64 = 7;

/// A page by handle.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub(crate) handle: Handle,
    pub(crate) number: u64,
    pub(crate) references: u32,
}

/// A thread with its model.
pub(crate) struct Client<'a> {
    pub(crate) shared: &'a Shared<'a>,
    pub(crate) random: Random,
    /// The number of its next page; no two threads have one in common.
    next: u64,
    pub(crate) pools: Vec<PoolId>,
    /// Pools that it destroyed lately.
    pub(crate) closed: Vec<PoolId>,
    /// What is there by key: [`Expected::None`] is left out.
    pub(crate) keys: BTreeMap<Name, Expected>,
    pub(crate) handles: Vec<Held>,
    cold: Vec<ColdBlock>,
    chooser: Chooser,
}

impl<'a> Client<'a> {
    pub(crate) fn new(shared: &'a Shared<'a>, number: u64, random: Random) -> Client<'a> {
        let mut client = Client {
            shared,
            random,
            next: number << 40,
            pools: Vec::new(),
            closed: Vec::new(),
            keys: BTreeMap::new(),
            handles: Vec::new(),
            cold: Vec::new(),
            chooser: Chooser::new(),
        };
        client.create_pools(4);
        client
    }

    pub(crate) fn next_page(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Does one operation and compares its outcome.
    pub(crate) fn step(&mut self) {
        if self.shared.alone()
            && let Some(tier) = &self.shared.tier
        {
            tier.forget_past();
        }
        match self.random.below(100) {
            0..14 => self.insert(),
            14..17 => self.retain(),
            17..26 => self.release(),
            26..31 => self.load(),
            31..33 => self.load_many(),
            33..57 => self.put(),
            57..65 => self.get(),
            65..69 => self.get_exclusive(),
            69..72 => self.get_run(),
            72..77 => self.flush_page(),
            77 => self.flush_object(),
            78 => self.flush_pool(),
            79..82 => self.pools(),
            82..86 => self.reclaim(),
            86..89 => self.recompress(),
            89..91 => self.dictionaries(),
            91..93 => self.codec(),
            93..95 => self.limit(),
            95..97 => self.shared.draw_faults(&mut self.random),
            97 => self.shared.damage(&mut self.random),
            98 => self.burst(),
            _ => self.look_around(),
        }
        if self.shared.alone() {
            self.shared.check_ram();
        }
    }

    fn pools(&mut self) {
        match self.random.below(8) {
            0 => self.create_pools(30),
            1 | 2 => self.create_pools(1),
            _ if self.pools.len() > 100 => {
                for _ in 0..40 {
                    self.destroy_pool();
                }
            }
            _ => self.destroy_pool(),
        }
    }

    fn create_pools(&mut self, count: u64) {
        let kinds = [PoolKind::Ephemeral, PoolKind::Persistent];
        for _ in 0..count {
            let kind = self.random.pick(&kinds);
            let pool = self.shared.store.create_pool(kind);
            assert_eq!(pool.kind(), kind);
            one_more(&self.shared.complaints.seen.pools);
            self.pools.push(pool);
        }
    }

    fn reclaim(&mut self) {
        let bytes = self.random.pick(&[0, 1, 4096, 64 << 10, 1 << 20, u64::MAX]);
        let what = self.random.below(8);
        self.shared.call(|store| match what {
            0 => drop(store.balance()),
            1 => {
                store.compact(8);
            }
            2 => {
                store.compact(usize::MAX);
            }
            3 | 4 => drop(store.write_back_ephemeral(bytes)),
            _ => drop(store.reclaim(bytes)),
        });
    }

    /// Begins a recompression, or ends one that was begun some operations ago.
    fn recompress(&mut self) {
        let store = &self.shared.store;
        match self.random.below(8) {
            0 => store.rest_cold(),
            1..4 if self.cold.len() < 3 => {
                let _due = store.cold_due_bytes();
                self.cold.extend(store.begin_cold());
            }
            4 => drop(self.cold.pop()),
            _ => {
                if let Some(mut cold) = self.cold.pop() {
                    cold.compress();
                    store.finish_cold(cold);
                }
            }
        }
    }

    /// Ends what is begun, so that the client rests.
    pub(crate) fn end_recompressions(&mut self) {
        for mut cold in self.cold.drain(..) {
            cold.compress();
            self.shared.store.finish_cold(cold);
        }
    }

    fn dictionaries(&mut self) {
        if self.random.one_in(2) {
            self.shared.store.train();
            let _due = self.shared.store.training_due_bytes();
            return;
        }
        let dictionary = Arc::clone(&self.random.pick(&DICTIONARIES));
        let pool = match self.random.below(3) {
            0 => None,
            1 => self.closed.last().copied(),
            _ => Some(self.random.pick(&self.pools)),
        };
        let closed = pool.is_some_and(|pool| self.closed.contains(&pool));
        let used = self.shared.store.use_dictionary(pool, dictionary);
        let fine = match used {
            Ok(()) => !closed && self.shared.shape.config.dictionaries,
            Err(DictionaryError::NoSuchPool) => closed,
            Err(DictionaryError::NoSlot) => {
                !self.shared.alone() || self.shared.store.stats().dictionaries == DICTIONARIES_MAX
            }
            // A store that compresses nothing uses none either.
            Err(DictionaryError::NotUsed) => true,
            Err(_) => false,
        };
        if !fine {
            let what = format!("{used:?} of {pool:?} in {:?}", self.shared.shape);
            self.shared.complaints.add("use_dictionary", what);
        }
    }

    fn codec(&mut self) {
        match self.random.below(3) {
            0 => self.chooser.look(&self.shared.store),
            _ => {
                let codec = self.random.pick(&Codec::ALL);
                self.shared.store.set_fresh_codec(codec);
            }
        }
    }

    fn limit(&mut self) {
        match self.random.below(6) {
            0 => {
                let beyond = self.random.pick(&[0, 64 << 10]);
                self.shared.set_beyond(beyond);
            }
            1 => self.shared.set_limit(self.shared.shape.pool_bytes_max),
            _ => {
                let bytes = (512 << 10) + self.random.below(3 << 20);
                self.shared.set_limit(bytes);
            }
        }
    }

    /// Questions that change nothing.
    fn look_around(&mut self) {
        let store = &self.shared.store;
        let _stats = store.stats();
        if self.shared.alone() {
            let both = || (store.unwritable_bytes(), store.ram_bytes());
            let (unwritable, ram) = undisturbed(store, both);
            assert!(unwritable <= ram);
        }
        let _trouble = store.swap_trouble();
        if self.random.one_in(4) {
            assert_eq!(store.validate(), Ok(()));
        }
    }
}
