//! Time of insert, load, release, put and get in the core alone: no codec, no lock, no thread.
//!
//! Corpus: 200,000 synthetic zpages, mean about 1.6 KB, in RAM; order of loads and releases shuffled. Prints nanoseconds
//! per operation, the best and the worst of five rounds. `cargo bench -p zcache-core`.

#[path = "../tests/common/mod.rs"]
mod common;

use std::hint::black_box;
use std::time::Instant;

use common::{Arena, Random};
use zcache_core::{Allocator, CodecId, Found, Key, Kind, ObjectId, PoolId, Shard, Zpage};

const PAGES: usize = 200_000;
const ROUNDS: usize = 5;

struct Spread {
    name: &'static str,
    ns: Vec<f64>,
}

impl Spread {
    fn time(&mut self, operations: usize, run: impl FnOnce()) {
        let start = Instant::now();
        run();
        self.ns
            .push(start.elapsed().as_nanos() as f64 / operations as f64);
    }
}

fn main() {
    // cargo test runs bench targets too; there is nothing to measure then.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    for allocator in Allocator::ALL {
        measure(allocator);
    }
}

fn measure(allocator: Allocator) {
    let names = [
        "insert, fresh",
        "load + copy, random",
        "release + insert, random",
        "release, random",
        "put, fresh",
        "get + copy, random",
        "flush, random",
    ];
    let mut spreads = names.map(|name| Spread {
        name,
        ns: Vec::new(),
    });
    for round in 0..ROUNDS {
        let [insert, load, churn, release, put, get, flush] = &mut spreads;
        let mut random = Random(round as u64);
        let mut arena = Arena::fast(300_000);
        let mut shard = Shard::new(allocator);
        let lens: Vec<_> = (0..PAGES).map(|_| random.zpage_len()).collect();
        let source = random.bytes(4096);
        let zpage = |len: usize| Zpage::Bytes {
            bytes: &source[..len],
            codec: CodecId::new(1),
            checksum: 1,
        };
        let mut order: Vec<_> = (0..PAGES).collect();
        for i in (1..PAGES).rev() {
            order.swap(i, random.below(i as u64 + 1) as usize);
        }
        let mut page = [0; 4096];
        let mut copy = |found: Option<Found<'_>>| {
            let Some(Found::InRam { bytes, .. }) = found else {
                panic!("{found:?}")
            };
            page[..bytes.len()].copy_from_slice(bytes);
            black_box(&page);
        };

        // A first pass makes the arena touch its memory, so that page faults of the bench are not counted.
        let warm: Vec<_> = lens
            .iter()
            .map(|len| shard.insert(&mut arena, zpage(*len)).unwrap())
            .collect();
        warm.into_iter()
            .for_each(|token| assert_eq!(shard.release(&mut arena, token), Some(0)));

        let mut tokens = Vec::with_capacity(PAGES);
        insert.time(PAGES, || {
            tokens.extend(
                lens.iter()
                    .map(|len| shard.insert(&mut arena, zpage(*len)).unwrap()),
            )
        });
        load.time(PAGES, || {
            order
                .iter()
                .for_each(|i| copy(shard.load(&arena, tokens[*i])))
        });
        churn.time(PAGES, || {
            for (i, len) in order.iter().zip(&lens) {
                shard.release(&mut arena, tokens[*i]);
                tokens[*i] = shard.insert(&mut arena, zpage(*len)).unwrap();
            }
        });
        release.time(PAGES, || {
            order
                .iter()
                .for_each(|i| assert_eq!(shard.release(&mut arena, tokens[*i]), Some(0)))
        });

        let key = |i: usize| Key {
            pool: PoolId::new(1, Kind::Persistent),
            object: ObjectId([(i / 256) as u64, 0, 0]),
            index: (i % 256) as u32,
        };
        put.time(PAGES, || {
            (0..PAGES).for_each(|i| shard.put(&mut arena, &key(i), zpage(lens[i])).unwrap())
        });
        get.time(PAGES, || {
            order.iter().for_each(|i| copy(shard.get(&arena, &key(*i))))
        });
        flush.time(PAGES, || {
            order
                .iter()
                .for_each(|i| assert!(shard.flush_page(&mut arena, &key(*i))))
        });
        shard.destroy(&mut arena);
    }
    for Spread { name, mut ns } in spreads {
        ns.sort_by(f64::total_cmp);
        println!(
            "{allocator:?}: {name}: {:.0} to {:.0} ns",
            ns[0],
            ns[ROUNDS - 1]
        );
    }
}
