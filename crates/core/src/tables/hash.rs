//! Hashes of keys, and seals of records.
//!
//! Stage on the data path: under the indices. A hash is seeded, so that whoever chooses keys cannot choose collisions
//! without the seed; it folds the 128-bit product of two words that the seed has been mixed into (as wyhash does; Wang Yi,
//! 2019). A seal is the same fold with fixed numbers over the fields of a record.
//!
//! Does not: withstand somebody who can measure single lookups; it is no cryptographic hash.

use crate::ids::{ObjectId, PoolId};

/// Numbers without structure: the fraction of pi.
const PI: [u64; 4] = [
    0x243f_6a88_85a3_08d3,
    0x1319_8a2e_0370_7344,
    0xa409_3822_299f_31d0,
    0x082e_fa98_ec4e_6c89,
];

/// The two halves of a product, folded.
const fn fold(a: u64, b: u64) -> u64 {
    let product = (a as u128).wrapping_mul(b as u128);
    product as u64 ^ (product >> 64) as u64
}

/// What hashes of a shard depend on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seed([u64; 2]);

impl Seed {
    /// Where nobody chooses keys.
    pub(crate) const FIXED: Seed = Seed([PI[2], PI[3]]);

    pub(crate) const fn new(words: [u64; 2]) -> Seed {
        Seed([words[0] ^ PI[2], words[1] ^ PI[3]])
    }

    /// The hash of a pool.
    pub(crate) fn pool(self, pool: PoolId) -> u32 {
        self.last(u64::from(pool.to_bits()), PI[0])
    }

    /// The hash of an object, given its pool's number in the table.
    pub(crate) fn object(self, pool: u32, id: ObjectId) -> u32 {
        let [a, b, c] = id.0;
        let first = fold(a ^ self.0[0], b ^ self.0[1]);
        self.last(c ^ first, u64::from(pool) ^ PI[1])
    }

    /// The hash of a page, given its object's number in the table.
    pub(crate) fn page(self, object: u32, index: u32) -> u32 {
        self.last(u64::from(object) << 32 | u64::from(index), PI[2])
    }

    fn last(self, a: u64, b: u64) -> u32 {
        let once = fold(a ^ self.0[0], b ^ self.0[1]);
        (fold(once ^ PI[0], self.0[1] | 1) >> 32) as u32
    }
}

/// The seal of six words: every bit of them changes about half of its bits.
pub(crate) const fn seal(words: [u32; 6]) -> u32 {
    const fn pair(low: u32, high: u32) -> u64 {
        (high as u64) << 32 | low as u64
    }
    let first = fold(
        pair(words[0], words[1]) ^ PI[0],
        pair(words[2], words[3]) ^ PI[1],
    );
    (fold(first ^ PI[2], pair(words[4], words[5]) ^ PI[3]) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_flipped_bit_breaks_a_seal() {
        for bits in [14, 32] {
            let mask = u32::MAX >> (32 - bits);
            let mut kept = 0;
            for number in 0..200u32 {
                let words = [
                    1,
                    number,
                    0x8000_0000 | number << 12,
                    number ^ 77,
                    number % 7,
                    0,
                ];
                for bit in 0..192 {
                    let mut flipped = words;
                    flipped[bit / 32] ^= 1 << (bit % 32);
                    kept += u32::from(seal(words) & mask == seal(flipped) & mask);
                }
            }
            // 38,400 flips: with 14 bits one in 16,384 is missed by chance.
            assert!(kept <= if bits == 14 { 12 } else { 0 }, "{kept}");
        }
    }

    #[test]
    fn neighbours_spread_over_the_low_bits() {
        for seed in [Seed::FIXED, Seed::new([1, 2]), Seed::new([u64::MAX, 3])] {
            let mut buckets = [0u32; 256];
            for index in 0..25_600 {
                buckets[seed.page(5, index) as usize % 256] += 1;
            }
            // A hundred expected, ten the standard deviation.
            assert!(
                buckets.iter().all(|count| (50..150).contains(count)),
                "{buckets:?}"
            );
        }
    }
}
