//! Feeds the fuzz targets for some seconds with bytes from a seed: random ones,
//! structured ones and mutations of both. `ZCACHE_SEED` replays a run,
//! `ZCACHE_FUZZ_SECONDS` sets its length.

use std::time::{Duration, Instant};

/// How long each target runs unless the environment says otherwise.
const SECONDS: u64 = 5;

struct Rng(u64);

impl Rng {
    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

fn run(name: &str, length_max: usize, target: fn(&[u8])) {
    let clock = Duration::from_secs(number("ZCACHE_FUZZ_SECONDS", SECONDS));
    let seed = number("ZCACHE_SEED", std::process::id().into());
    println!("{name}: ZCACHE_SEED={seed}");
    let start = Instant::now();
    let mut rng = Rng(seed);
    let mut kept: Vec<Vec<u8>> = vec![Vec::new()];
    let mut inputs = 0;
    while start.elapsed() < clock {
        let mut input = match rng.below(3) {
            0 => (0..rng.below(length_max))
                .map(|_| rng.next() as u8)
                .collect(),
            // Few different bytes: runs of one operation, pages that compress.
            1 => {
                let some = [rng.next() as u8, rng.next() as u8, rng.next() as u8, 0];
                (0..rng.below(length_max))
                    .map(|_| some[rng.below(4)])
                    .collect()
            }
            _ => kept[rng.below(kept.len())].clone(),
        };
        mutate(&mut rng, &mut input);
        target(&input);
        inputs += 1;
        if kept.len() < 64 {
            kept.push(input);
        } else {
            let at = rng.below(64);
            kept[at] = input;
        }
    }
    println!("{name}: {inputs} inputs");
    assert!(inputs > 10, "too slow to say anything");
}

fn mutate(rng: &mut Rng, input: &mut Vec<u8>) {
    for _ in 0..rng.below(4) {
        if input.is_empty() {
            input.push(rng.next() as u8);
        }
        let at = rng.below(input.len());
        match rng.below(4) {
            0 => input[at] ^= 1 << rng.below(8),
            1 => input.truncate(at),
            2 => input.insert(at, rng.next() as u8),
            _ => {
                let end = at + rng.below(input.len() - at);
                input.extend_from_within(at..end);
            }
        }
    }
}

#[test]
fn codec_keeps_its_promises() {
    run("codec", 6000, zcache_fuzz::fuzz_codec);
}

#[test]
fn shard_keeps_its_promises() {
    run("shard_ops", 3000, zcache_fuzz::fuzz_shard_ops);
}

#[test]
fn store_keeps_its_promises() {
    run("store_ops", 2000, zcache_fuzz::fuzz_store_ops);
}

/// The targets can fail: a promise that is false is noticed.
#[test]
#[should_panic(expected = "canary")]
fn a_failing_target_fails_the_run() {
    run("canary", 100, |data| {
        assert!(!data.contains(&0x42), "canary")
    });
}
