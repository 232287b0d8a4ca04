//! Training of Zstandard dictionaries by the reference library's own trainer
//! (`ZDICT_trainFromBuffer_fastCover`, zdict.h; RFC 8878, section 5).
//!
//! The simple entry point of that library tries many parameters, takes five
//! times as long and ten times the memory, and on pages of memory finds slightly
//! worse dictionaries than the parameters given here.

/// How a dictionary is trained.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Training {
    /// Length of the segments that are chosen, in bytes.
    pub segment_bytes: u32,
    /// Two to this power counters of substrings; 1 to 31. Six bytes each.
    pub counters_log2: u32,
    /// Compression level that the entropy tables are made for.
    pub level: i32,
}

/// Length of the substrings that are counted; the library takes 6 or 8.
const SUBSTRING_BYTES: u32 = 8;

/// What the library needs beside its counters to make the entropy tables: two
/// contexts and a block.
const TABLES_BYTES: u64 = 1 << 20;

impl Training {
    /// RAM that training needs beside samples and result, in bytes, at most.
    #[must_use]
    pub fn working_bytes(&self) -> u64 {
        (6 << self.counters_log2) + TABLES_BYTES
    }
}

/// Trains a dictionary of at most `bytes_max` bytes on samples of
/// `sample_bytes` each, which lie one after the other. `None` when they are too
/// few, too much alike or too different, or when there is no memory.
///
/// # Panics
/// When `samples` is not a whole number of samples.
#[must_use]
pub fn train(
    samples: &[u8],
    sample_bytes: usize,
    bytes_max: usize,
    how: Training,
) -> Option<Vec<u8>> {
    assert!(samples.len().is_multiple_of(sample_bytes), "whole samples");
    let sizes = vec![sample_bytes; samples.len() / sample_bytes];
    let count = u32::try_from(sizes.len()).ok()?;
    let mut dictionary = vec![0u8; bytes_max];
    // SAFETY: the parameters are integers, for which zero is a value: "default".
    let mut parameters: zstd_sys::ZDICT_fastCover_params_t = unsafe { std::mem::zeroed() };
    parameters.k = how.segment_bytes;
    parameters.d = SUBSTRING_BYTES;
    parameters.f = how.counters_log2;
    parameters.accel = 1;
    parameters.zParams.compressionLevel = how.level;
    // SAFETY: `dictionary` has the length that is given and is written; `samples`
    // has the sum of the `count` lengths in `sizes`; all live across the call.
    let len = unsafe {
        zstd_sys::ZDICT_trainFromBuffer_fastCover(
            dictionary.as_mut_ptr().cast(),
            bytes_max,
            samples.as_ptr().cast(),
            sizes.as_ptr(),
            count,
            parameters,
        )
    };
    // SAFETY: takes a number.
    let failed = unsafe { zstd_sys::ZDICT_isError(len) } != 0;
    if failed {
        return None;
    }
    dictionary.truncate(len);
    dictionary.shrink_to_fit();
    Some(dictionary)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOW: Training = Training {
        segment_bytes: 512,
        counters_log2: 16,
        level: 1,
    };

    #[test]
    fn what_repeats_between_samples_is_learned() {
        let word = |seed: u64| seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
        let samples: Vec<u8> = (0..64 * 512u64)
            .flat_map(|at| word(at % 512 % 300 + at / 512 % 7))
            .collect();
        let dictionary = train(&samples, 4096, 4096, HOW).expect("a dictionary");
        assert!(dictionary.len() <= 4096);
        assert_eq!(dictionary[..4], 0xEC30_A437_u32.to_le_bytes());
    }

    #[test]
    fn nothing_to_learn_from_is_no_dictionary() {
        assert_eq!(train(&[], 4096, 4096, HOW), None);
        assert_eq!(train(&[0; 4096], 4096, 4096, HOW), None);
        assert_eq!(train(&[0; 64 * 4096], 4096, 10, HOW), None);
    }
}
