//! What the tests of several modules share: a seeded generator and pages that
//! look like memory.

use crate::page::{PAGE_SIZE, Page};

/// A seeded generator (SplitMix64); it prints its seed, and `ZCACHE_SEED`
/// replays one.
pub(crate) struct Rng(u64);

impl Rng {
    /// From `ZCACHE_SEED` or the clock. The seed is printed, and shown when the
    /// test fails.
    pub(crate) fn from_env(test: &str) -> Rng {
        let seed = match std::env::var("ZCACHE_SEED") {
            Ok(seed) => seed.parse().expect("ZCACHE_SEED is a number"),
            Err(_) => std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(1, |time| time.as_nanos() as u64),
        };
        println!("{test}: ZCACHE_SEED={seed}");
        Rng(seed)
    }

    pub(crate) fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// A page made from a number: always the same for the same number, of any
/// compressibility, sometimes same-filled, sometimes random throughout.
pub(crate) fn page(number: u64) -> Page {
    let mut page = [0; PAGE_SIZE];
    let mut rng = Rng::new(number);
    let words = page.as_chunks_mut::<8>().0;
    match number % 16 {
        0 => words.fill((number / 16 % 5).to_le_bytes()),
        1 => words.fill_with(|| rng.next().to_le_bytes()),
        n => {
            // Runs of random bytes between copies of a few words.
            let random = rng.below(PAGE_SIZE as u64 / 8) * n / 16;
            let word = rng.next();
            for (at, slot) in words.iter_mut().enumerate() {
                *slot = if (at as u64) < random {
                    rng.next().to_le_bytes()
                } else {
                    (word ^ (at as u64 % n)).to_le_bytes()
                };
            }
            words[0] = number.to_le_bytes();
        }
    }
    page
}

/// Pages of records whose words come from one vocabulary.
pub(crate) fn records(count: u64) -> Vec<Page> {
    let page = |number| {
        let mut rng = Rng::new(number);
        let mut page = [0; PAGE_SIZE];
        for record in page.chunks_exact_mut(32) {
            let word = Rng::new(rng.below(200)).next();
            record[..8].copy_from_slice(&word.to_le_bytes());
            record[8..16].copy_from_slice(&Rng::new(word).next().to_le_bytes());
            record[16] = rng.below(256) as u8;
        }
        page
    };
    (0..count).map(page).collect()
}
