//! The content of a page, as a pure function of (seed, page, version).
//!
//! First stage of the workload: fills memory, and says later what every word must be.
//!
//! A page is 64 lines of 8 words. In each line the first words are *literals* (bytes drawn from 64
//! symbols, so that an entropy coder gains over lz4 as it does on real pages) and the others repeat
//! the line before, as the fields of an array of structures do. The number of literals sets the
//! ratio; the tests measure it with lz4 and zstd level 1:
//!
//! | `--ratio` | literal words a line | lz4 | zstd 1 |
//! |---|---|---|---|
//! | 2 | 3, and 4 in each fourth line | 2.0 | 2.7 |
//! | 3 | 2 | 3.0 | 4.1 |
//!
//! Invariants: `word(p, v, w)` differs from `word(p, v', w)` for `v != v'` exactly at the version
//! words, so a write touches [`VERSION_WORDS`] words and leaves the ratio as it was; any word of any
//! page can be checked without the others. It is not a model of any one program's memory.

/// Bytes in a page, the unit of every access.
pub(crate) const PAGE_SIZE: usize = 4096;
/// Words of 8 bytes in a page.
pub(crate) const WORDS: usize = PAGE_SIZE / 8;
/// Words of a page that change with its version.
pub(crate) const VERSION_WORDS: usize = 8;

const LINE_WORDS: usize = 8;
const VERSION_STRIDE: usize = WORDS / VERSION_WORDS;

const _: () = assert!(VERSION_STRIDE.is_multiple_of(LINE_WORDS));

/// One page of the measured memory. The alignment makes it one page of the address space.
#[repr(C, align(4096))]
pub(crate) struct Page {
    /// The page's content.
    pub(crate) words: [u64; WORDS],
}

/// How well the data compresses under lz4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ratio {
    /// About 2:1.
    Two,
    /// About 3:1.
    Three,
}

impl Ratio {
    /// The ratio for `2` or `3`.
    pub(crate) fn from_number(number: u32) -> Option<Ratio> {
        match number {
            2 => Some(Ratio::Two),
            3 => Some(Ratio::Three),
            _ => None,
        }
    }

    fn literals(self, line: usize) -> usize {
        match self {
            Ratio::Two if line % 4 == 3 => 4,
            Ratio::Two => 3,
            Ratio::Three => 2,
        }
    }
}

/// The generator: everything that content depends on besides the page and its version.
#[derive(Clone, Copy)]
pub(crate) struct Data {
    /// The seed of the run.
    pub(crate) seed: u64,
    /// How well pages compress.
    pub(crate) ratio: Ratio,
}

impl Data {
    /// The word at index `slot`, `0..VERSION_WORDS`, of the words that change with the version.
    pub(crate) fn version_word(self, page: u64, version: u32, slot: usize) -> u64 {
        literal(self.key(page), u64::from(version), slot * VERSION_STRIDE)
    }

    /// Any word of a page at a version.
    pub(crate) fn word(self, page: u64, version: u32, word: usize) -> u64 {
        let key = self.key(page);
        if word.is_multiple_of(VERSION_STRIDE) {
            literal(key, u64::from(version), word)
        } else if word % LINE_WORDS < self.ratio.literals(word / LINE_WORDS) {
            literal(key, 0, word)
        } else {
            field(key, word % LINE_WORDS)
        }
    }

    /// The whole page at a version.
    pub(crate) fn page(self, page: u64, version: u32) -> Page {
        Page {
            words: std::array::from_fn(|word| self.word(page, version, word)),
        }
    }

    fn key(self, page: u64) -> u64 {
        mix(self.seed ^ mix(page))
    }
}

/// Word index of the version word number `slot`.
pub(crate) const fn version_index(slot: usize) -> usize {
    slot * VERSION_STRIDE
}

/// Bytes drawn from 64 symbols from the space up, so a byte carries 6 bits.
fn literal(key: u64, version: u64, word: usize) -> u64 {
    let bits = mix(key ^ (version << 16) ^ word as u64);
    (bits & 0x3f3f_3f3f_3f3f_3f3f) + 0x2020_2020_2020_2020
}

/// A field that is the same in every line of the page.
fn field(key: u64, column: usize) -> u64 {
    mix(key ^ 0x5bd1_e995) >> (column * 7)
}

/// Bijective 64-bit mixer (splitmix64, Steele, Lea and Flood 2014).
pub(crate) fn mix(value: u64) -> u64 {
    let z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(page: &Page) -> Vec<u8> {
        page.words
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect()
    }

    fn measured(ratio: Ratio) -> (f64, f64) {
        let data = Data { seed: 1, ratio };
        let (mut original, mut lz4, mut zstd) = (0, 0, 0);
        for page in 0..256 {
            let bytes = bytes(&data.page(page, page as u32 % 3));
            original += bytes.len();
            lz4 += lz4_flex::block::compress(&bytes).len();
            let mut out = vec![0; 2 * PAGE_SIZE];
            zstd += zstd_safe::compress(out.as_mut_slice(), &bytes, 1).unwrap();
        }
        (original as f64 / lz4 as f64, original as f64 / zstd as f64)
    }

    #[test]
    fn the_ratio_is_the_one_documented() {
        let (lz4, zstd) = measured(Ratio::Two);
        assert!(
            (2.0..2.1).contains(&lz4) && (2.7..2.8).contains(&zstd),
            "lz4 {lz4} zstd {zstd}"
        );
        let (lz4, zstd) = measured(Ratio::Three);
        assert!(
            (2.9..3.1).contains(&lz4) && (4.0..4.2).contains(&zstd),
            "lz4 {lz4} zstd {zstd}"
        );
    }

    #[test]
    fn a_write_changes_the_version_words_only() {
        let data = Data {
            seed: 7,
            ratio: Ratio::Two,
        };
        let (old, new) = (data.page(3, 0), data.page(3, 1));
        let changed: Vec<usize> = (0..WORDS)
            .filter(|&w| old.words[w] != new.words[w])
            .collect();
        let expected: Vec<usize> = (0..VERSION_WORDS).map(version_index).collect();
        assert_eq!(changed, expected);
        for slot in 0..VERSION_WORDS {
            assert_eq!(
                new.words[version_index(slot)],
                data.version_word(3, 1, slot)
            );
        }
    }

    #[test]
    fn pages_differ() {
        let data = Data {
            seed: 7,
            ratio: Ratio::Three,
        };
        assert_ne!(data.page(3, 0).words, data.page(4, 0).words);
    }
}
