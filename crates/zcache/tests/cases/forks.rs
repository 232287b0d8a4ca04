//! A store after a fork: its RAM is copied on write, its swap file is shared.
//! The process that opened it goes on as if nothing had been; the other is told.

use std::io::{PipeReader, PipeWriter, Read, Write};

use zcache::{PoolId, PoolKind, Store};
use zcache_sys::process::{Side, fork};

use crate::support::pages;
use crate::{Tally, child, get, key, plain, swapping};

/// Puts pages of its own, flushes a part of those of both, and reads all.
fn use_store(store: &Store, pool: PoolId, before: u64, who: u64) -> Tally {
    let mut there = Vec::new();
    for index in 0..before {
        match index % 3 {
            0 => {
                store.flush_page(&key(pool, 0, index));
            }
            _ => there.push((0, index)),
        }
    }
    for index in 0..before {
        let number = who << 32 | index;
        if store
            .put(&key(pool, who, index), &pages::noise(number))
            .is_ok()
        {
            there.push((who, index));
        }
    }
    let mut tally = Tally::default();
    for (object, index) in there {
        let expected = pages::noise(object << 32 | index);
        tally.add(get(store, &key(pool, object, index)), &expected);
    }
    tally
}

fn after_a_fork(store: &Store, before: u64) {
    let pool = store.create_pool(PoolKind::Persistent);
    for index in 0..before {
        store
            .put(&key(pool, 0, index), &pages::noise(index))
            .unwrap();
    }
    let verdict = Verdict::new();
    let side = fork().unwrap();
    let used = || {
        let used = std::panic::AssertUnwindSafe(|| {
            let who = if side == Side::Child { 2 } else { 1 };
            use_store(store, pool, before, who)
        });
        std::panic::catch_unwind(used)
    };
    match side {
        // Pages may be refused or errors here, but none is wrong, and none that it still
        // acknowledges goes missing.
        Side::Child => match used() {
            Ok(tally) if tally.wrong == 0 && tally.missing == 0 => verdict.tell(b"fine"),
            Ok(tally) => verdict.tell(format!("{tally:?}").as_bytes()),
            Err(_) => verdict.tell(b"a panic"),
        },
        Side::Parent(_) => {
            let tally = used().expect("no panic");
            let heard = verdict.hear();
            assert_eq!(tally, Tally::all_good(tally.good));
            assert!(tally.good > before);
            assert_eq!(heard, "fine");
        }
    }
}

/// What the child of a fork tells its parent through a pipe; nothing when it
/// dies before.
struct Verdict {
    reader: PipeReader,
    writer: PipeWriter,
}

impl Verdict {
    fn new() -> Verdict {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        Verdict { reader, writer }
    }

    fn tell(mut self, what: &[u8]) -> ! {
        self.writer.write_all(what).expect("the parent listens");
        drop(self);
        std::process::exit(0);
    }

    fn hear(self) -> String {
        drop(self.writer);
        let mut heard = String::new();
        let mut reader = self.reader;
        reader.read_to_string(&mut heard).expect("a pipe is read");
        heard
    }
}

#[test]
fn a_fork_over_a_swap_file_costs_the_one_who_opened_it_nothing() {
    if !child::is_child() {
        return child::passes(
            "forks::a_fork_over_a_swap_file_costs_the_one_who_opened_it_nothing",
            "",
        );
    }
    after_a_fork(&Store::open(swapping(2 << 20, None)).unwrap(), 1500);
}

#[test]
fn a_fork_of_a_store_in_ram_gives_both_their_own() {
    if !child::is_child() {
        return child::passes("forks::a_fork_of_a_store_in_ram_gives_both_their_own", "");
    }
    after_a_fork(&Store::open(plain(8 << 20)).unwrap(), 600);
}

#[test]
fn a_child_of_a_fork_opens_stores_of_its_own() {
    if !child::is_child() {
        return child::passes("forks::a_child_of_a_fork_opens_stores_of_its_own", "");
    }
    let first = Store::open(swapping(2 << 20, None)).unwrap();
    let pool = first.create_pool(PoolKind::Persistent);
    let put = |store: &Store, pool, who: u64| {
        for index in 0..800 {
            let page = pages::noise(who << 32 | index);
            store.put(&key(pool, who, index), &page).unwrap();
        }
    };
    let read = |store: &Store, pool, who: u64| {
        let mut tally = Tally::default();
        for index in 0..800 {
            let expected = pages::noise(who << 32 | index);
            tally.add(get(store, &key(pool, who, index)), &expected);
        }
        tally
    };
    put(&first, pool, 0);
    let verdict = Verdict::new();
    let side = fork().unwrap();
    let second = Store::open(swapping(2 << 20, None)).unwrap();
    let own = second.create_pool(PoolKind::Persistent);
    put(&second, own, 1 + u64::from(side == Side::Child));
    let tally = read(&second, own, 1 + u64::from(side == Side::Child));
    match side {
        Side::Child => verdict.tell(format!("{tally:?}").as_bytes()),
        Side::Parent(_) => {
            assert_eq!(verdict.hear(), format!("{:?}", Tally::all_good(800)));
            assert_eq!(tally, Tally::all_good(800));
            assert_eq!(read(&first, pool, 0), Tally::all_good(800));
        }
    }
}
