//! A store whose calls by key are noted: who called what when, and what it answered.
//!
//! Stage on the data path: before the store, in the place of a client.
//!
//! - A page that comes back is compared with the whole page of the number that it begins with.
//! - An error is a failure of the test, unless the tier's are expected.
//!
//! Does not: judge answers; `history` does, when all is over.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use super::history::{self, Answer, Call, Value};
use super::*;
use crate::error::LoadError;

pub(super) struct Witness {
    pub(super) store: Arc<Store>,
    /// The page of a number, which it begins with.
    page: fn(Value) -> Page,
    /// Whether the tier may fail reads.
    reads_fail: bool,
    // None of these is a point where threads change.
    clock: AtomicU64,
    values: AtomicU64,
    calls: Mutex<Vec<(Key, Call)>>,
}

impl Witness {
    pub(super) fn new(store: Arc<Store>, page: fn(Value) -> Page) -> Witness {
        Witness {
            store,
            page,
            reads_fail: false,
            clock: AtomicU64::new(0),
            values: AtomicU64::new(0),
            calls: Mutex::default(),
        }
    }

    /// The same where the tier may fail reads.
    pub(super) fn with_failing_reads(store: Arc<Store>, page: fn(Value) -> Page) -> Witness {
        Witness {
            reads_fail: true,
            ..Witness::new(store, page)
        }
    }

    /// Puts a page that was never put before; whether it was acknowledged.
    pub(super) fn put(&self, key: Key) -> bool {
        let value = self.values.fetch_add(1, Relaxed);
        let page = (self.page)(value);
        let result = self.noted(key, || {
            let result = self.store.put(&key, &page);
            let answer = match result {
                Err(Rejected::NoSuchPool) => Answer::PutIntoClosed,
                result => Answer::Put {
                    value,
                    stored: result.is_ok(),
                },
            };
            (answer, result)
        });
        result.is_ok()
    }

    pub(super) fn get(&self, key: Key) -> Option<Value> {
        self.read(key, Store::get, Answer::Got)
    }

    pub(super) fn take(&self, key: Key) -> Option<Value> {
        self.read(key, Store::get_exclusive, Answer::Took)
    }

    fn read(
        &self,
        key: Key,
        read: fn(&Store, &Key, &mut Page) -> Result<bool, LoadError>,
        answer: fn(Option<Value>) -> Answer,
    ) -> Option<Value> {
        let mut out = [0xa5; PAGE_SIZE];
        self.noted(key, || match read(&self.store, &key, &mut out) {
            Ok(hit) => {
                let found = hit.then(|| self.value_of(&out));
                (answer(found), found)
            }
            Err(LoadError::Io { .. }) if self.reads_fail => (Answer::Unread, None),
            Err(error) => panic!("{error}"),
        })
    }

    pub(super) fn flush(&self, key: Key) -> bool {
        self.noted(key, || {
            let found = self.store.flush_page(&key);
            (Answer::Flushed(Some(found)), found)
        })
    }

    /// Flushes an object of which only these pages were ever put.
    pub(super) fn flush_object(&self, keys: &[Key]) -> u64 {
        self.flush_many(keys, |store| {
            store.flush_object(keys[0].pool, keys[0].object)
        })
    }

    /// Closes a pool in which only these pages were ever put.
    pub(super) fn destroy_pool(&self, pool: PoolId, keys: &[Key]) -> u64 {
        self.flush_many(keys, |store| store.destroy_pool(pool))
    }

    fn flush_many(&self, keys: &[Key], flush: impl FnOnce(&Store) -> u64) -> u64 {
        let begun = self.now();
        let flushed = flush(&self.store);
        let ended = self.now();
        for key in keys {
            let answer = Answer::Flushed(None);
            self.note(*key, begun, ended, answer);
        }
        flushed
    }

    /// When nobody calls on these keys any more: looks at them once more and judges the calls on each. How many there
    /// are.
    pub(super) fn judge(&self, keys: &[Key]) -> u64 {
        let there = keys.iter().filter(|key| self.get(**key).is_some()).count();
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        for key in keys {
            let of_key = calls.iter().filter(|(of, _)| of == key);
            let of_key: Vec<Call> = of_key.map(|(_, call)| *call).collect();
            let lines: Vec<String> = of_key.iter().map(Call::to_string).collect();
            assert!(
                history::is_right(key.pool.kind(), &of_key),
                "no order of these calls on {key:?} explains their answers:\n{}",
                lines.join("\n")
            );
        }
        there as u64
    }

    /// When all is quiet: judges the calls on all keys there are, checks the store itself, and empties it.
    pub(super) fn settle(&self, keys: &[Key]) {
        let there = self.judge(keys);
        check_at_rest(&self.store);
        assert_eq!(self.store.stats().stored_pages, there);
        for key in keys {
            self.store.flush_page(key);
        }
        check_empty(&self.store);
    }

    fn value_of(&self, page: &Page) -> Value {
        let value = u64::from_le_bytes(page[..8].try_into().expect("eight bytes"));
        assert!(*page == (self.page)(value), "wrong bytes after {value}");
        value
    }

    fn noted<R>(&self, key: Key, call: impl FnOnce() -> (Answer, R)) -> R {
        let begun = self.now();
        let (answer, result) = call();
        self.note(key, begun, self.now(), answer);
        result
    }

    fn note(&self, key: Key, begun: u64, ended: u64, answer: Answer) {
        let call = Call {
            begun,
            ended,
            answer,
        };
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.push((key, call));
    }

    fn now(&self) -> u64 {
        self.clock.fetch_add(1, Relaxed)
    }
}
