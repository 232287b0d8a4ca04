//! A store under limits on address space. Each test runs itself again in a process
//! that has the limit.

use std::process::Command;

use zcache::{Codec, Handle, PAGE_SIZE, Page, Rejected, Store, StoreConfig};

/// Says in the child which test it runs.
const CHILD: &str = "ZCACHE_TEST_UNDER_LIMIT";

/// Runs the test of this name again, alone and with so much address space. False
/// in that process.
fn reran_under(test: &str, space_bytes: u64) -> bool {
    if std::env::var_os(CHILD).is_some() {
        return false;
    }
    let kib = space_bytes >> 10;
    let program = std::env::current_exe().unwrap();
    let output = Command::new("sh")
        .args(["-c", &format!("ulimit -v {kib}; exec \"$0\" \"$@\"")])
        .arg(program)
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(CHILD, test)
        // The C library reserves 64 MiB for each thread's heap otherwise.
        .env("MALLOC_ARENA_MAX", "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{test}: {said}");
    true
}

/// A page that no codec shrinks.
fn noise(number: u64) -> Page {
    let mut state = number;
    let mut page = [0; PAGE_SIZE];
    page.as_chunks_mut::<8>().0.fill_with(|| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (word ^ (word >> 27)).to_le_bytes()
    });
    page
}

fn fill(store: &Store) -> (Vec<Handle>, Rejected) {
    let mut handles = Vec::with_capacity(1 << 20);
    loop {
        match store.insert(&noise(handles.len() as u64)) {
            Ok(handle) => handles.push(handle),
            Err(rejected) => return (handles, rejected),
        }
    }
}

fn check(store: &Store, handles: &[Handle]) {
    let mut out = [0; PAGE_SIZE];
    for (number, handle) in handles.iter().enumerate() {
        store.load(*handle, &mut out).unwrap();
        assert_eq!(out, noise(number as u64));
    }
    assert_eq!(store.validate(), Ok(()));
}

fn open(pool_bytes_max: u64, shards: usize) -> Store {
    Store::open(StoreConfig {
        pool_bytes_max,
        shards,
        codec: Codec::Lz4.into(),
        ..StoreConfig::default()
    })
    .unwrap()
}

#[test]
fn a_store_of_64_mib_opens_and_fills_in_256_mib_of_address_space() {
    let test = "a_store_of_64_mib_opens_and_fills_in_256_mib_of_address_space";
    if reran_under(test, 256 << 20) {
        return;
    }
    for shards in [1, 4, 64] {
        let store = open(64 << 20, shards);
        let (handles, rejected) = fill(&store);
        assert_eq!(rejected, Rejected::PoolFull);
        // The rest is tables, and blocks that three such pages fill.
        assert!(handles.len() * PAGE_SIZE > 44 << 20, "{}", handles.len());
        check(&store, &handles);
    }
}

#[test]
fn where_address_space_ends_before_the_limit_pages_are_refused_for_want_of_memory() {
    let test = "where_address_space_ends_before_the_limit_pages_are_refused_for_want_of_memory";
    if reran_under(test, 128 << 20) {
        return;
    }
    let store = open(1 << 30, 4);
    let (handles, rejected) = fill(&store);
    assert_eq!(rejected, Rejected::NoMemory);
    assert!(handles.len() * PAGE_SIZE > 32 << 20, "{}", handles.len());
    check(&store, &handles);
    let stats = store.stats();
    assert_eq!((stats.rejected_no_memory, stats.rejected_pool_full), (1, 0));
    // What is given up makes room again.
    for handle in &handles[handles.len() / 2..] {
        store.release(*handle);
    }
    for number in 0..1000 {
        store.insert(&noise(number)).unwrap();
    }
    check(&store, &handles[..handles.len() / 2]);
}

#[test]
fn an_open_store_has_reserved_next_to_nothing() {
    let test = "an_open_store_has_reserved_next_to_nothing";
    // Alone in its process, so that only the stores change the figure.
    if reran_under(test, 1 << 40) {
        return;
    }
    let reserved_bytes = || {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        let pages: u64 = statm.split(' ').next().unwrap().parse().unwrap();
        pages * 4096
    };
    drop(open(1 << 30, 1));
    for shards in [4, 64] {
        let before = reserved_bytes();
        let store = open(1 << 30, shards);
        let more = reserved_bytes() - before;
        assert!(more <= 8 << 20, "{more} bytes for {shards} shards");
        drop(store);
    }
}
