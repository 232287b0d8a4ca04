//! Zstandard with a dictionary trained on a part of the sample.
//!
//! - A ratio is measured on pages that did not train the dictionary: what was
//!   trained on them would flatter itself.
//! - Sizes and levels are those of the engine's plan: 4 KiB within the first
//!   seconds, then 64 KiB; level 1 for fresh pages, 6 for cold ones.
//!
//! The trainer is ZDICT of the reference library (RFC 8878, section 5).

use zcache::{PAGE_SIZE, Page};
use zstd_safe::{CCtx, CDict, CParameter, DCtx, DDict};

/// Bytes of pages that train a dictionary, for each of its own: what the
/// trainer's authors advise.
const TRAINING_FACTOR: usize = 100;

/// Pages that have to be left to measure on.
const LEFT_LEAST: usize = 64;

/// A dictionary with the contexts that use it.
pub(crate) struct Dictionary {
    pub(crate) bytes: usize,
    pub(crate) level: i32,
    compress: CCtx<'static>,
    decompress: DCtx<'static>,
    encoder: CDict<'static>,
    decoder: DDict<'static>,
}

/// Divides pages into those that train a dictionary of so many bytes and the
/// others, on which it is measured: of neighbours, which are alike, some go to
/// each side. None when the pages do not suffice.
pub(crate) fn divide<'a>(
    pages: &[&'a Page],
    dictionary_bytes: usize,
) -> Option<(Vec<&'a Page>, Vec<&'a Page>)> {
    let wanted = (dictionary_bytes * TRAINING_FACTOR).div_ceil(PAGE_SIZE);
    let most = pages.len() / 2;
    if pages.len() < most + LEFT_LEAST {
        return None;
    }
    let wanted = wanted.min(most);
    let (mut train, mut measure) = (Vec::new(), Vec::new());
    for (number, page) in pages.iter().enumerate() {
        // So that `wanted` of all are spread evenly.
        let trains = (number + 1) * wanted / pages.len() > number * wanted / pages.len();
        match trains {
            true => train.push(*page),
            false => measure.push(*page),
        }
    }
    Some((train, measure))
}

/// Trains a dictionary; none when the trainer finds too little that repeats.
pub(crate) fn train(pages: &[&Page], bytes_max: usize) -> Option<Vec<u8>> {
    let samples: Vec<u8> = pages.iter().flat_map(|page| page.iter().copied()).collect();
    let mut dictionary = vec![0; bytes_max];
    let sizes = vec![PAGE_SIZE; pages.len()];
    let len = zstd_safe::train_from_buffer(&mut dictionary[..], &samples, &sizes).ok()?;
    dictionary.truncate(len);
    Some(dictionary)
}

impl Dictionary {
    /// None when the library has no memory.
    pub(crate) fn new(dictionary: &[u8], level: i32) -> Option<Dictionary> {
        let mut compress = CCtx::try_create()?;
        // As the engine's frames: checksum and size are kept beside the zpage.
        for parameter in [
            CParameter::ChecksumFlag(false),
            CParameter::ContentSizeFlag(true),
            CParameter::DictIdFlag(false),
        ] {
            compress.set_parameter(parameter).ok()?;
        }
        Some(Dictionary {
            bytes: dictionary.len(),
            level,
            compress,
            decompress: DCtx::try_create()?,
            encoder: CDict::try_create(dictionary, level)?,
            decoder: DDict::try_create(dictionary)?,
        })
    }

    /// Compresses a page into `out` and returns the length; a page that does
    /// not shrink is copied.
    pub(crate) fn encode(&mut self, page: &Page, out: &mut Page) -> usize {
        let len = self
            .compress
            .compress_using_cdict(&mut out[..], page, &self.encoder);
        match len {
            Ok(len) if len < PAGE_SIZE => len,
            _ => {
                *out = *page;
                PAGE_SIZE
            }
        }
    }

    /// Whether `zpage`, made by [`Dictionary::encode`], gives a page.
    pub(crate) fn decode(&mut self, zpage: &[u8], out: &mut Page) -> bool {
        if let Ok(page) = <&Page>::try_from(zpage) {
            *out = *page;
            return true;
        }
        let len = self
            .decompress
            .decompress_using_ddict(&mut out[..], zpage, &self.decoder);
        len == Ok(PAGE_SIZE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// Pages of records whose words come from one vocabulary.
    fn records(count: u64) -> Vec<Page> {
        let page = |number| {
            let mut random = Random::new(number);
            let mut page = [0; PAGE_SIZE];
            for record in page.chunks_exact_mut(32) {
                let word = Random::new(random.below(200)).next();
                record[..8].copy_from_slice(&word.to_le_bytes());
                record[8..16].copy_from_slice(&Random::new(word).next().to_le_bytes());
                record[16] = random.below(256) as u8;
            }
            page
        };
        (0..count).map(page).collect()
    }

    #[test]
    fn no_page_is_on_both_sides() {
        let pages = records(1000);
        let pages: Vec<&Page> = pages.iter().collect();
        for bytes in [4096, 65536] {
            let (train, measure) = divide(&pages, bytes).expect("enough pages");
            assert_eq!(train.len() + measure.len(), pages.len());
            assert_eq!(train.len(), (bytes / 4096 * 100).min(500));
            let both = train.iter().filter(|page| measure.contains(page));
            assert_eq!(both.count(), 0);
        }
        assert!(divide(&pages[..100], 4096).is_none());
    }

    #[test]
    fn a_dictionary_helps_pages_that_it_has_not_seen_and_gives_them_back() {
        let pages = records(1200);
        let pages: Vec<&Page> = pages.iter().collect();
        let (seen, unseen) = divide(&pages, 8192).expect("enough pages");
        let trained = train(&seen, 8192).expect("a dictionary");
        assert!(trained.len() <= 8192);
        let mut with = Dictionary::new(&trained, 1).expect("memory");
        let mut without = Dictionary::new(&[], 1).expect("memory");
        let (mut zpage, mut out) = ([0; PAGE_SIZE], [0; PAGE_SIZE]);
        let mut bytes = [0, 0];
        for page in unseen {
            bytes[0] += without.encode(page, &mut zpage);
            let len = with.encode(page, &mut zpage);
            assert!(with.decode(&zpage[..len], &mut out) && out == *page);
            bytes[1] += len;
        }
        assert!(bytes[1] * 10 < bytes[0] * 9, "{bytes:?}");
        // Cut off, it gives no page.
        let len = with.encode(pages[0], &mut zpage);
        assert!(!with.decode(&zpage[..len / 2], &mut out));
        // Noise has nothing to train on, and stays as it is.
        let mut random = Random::new(3);
        let noise: Page = std::array::from_fn(|_| random.next() as u8);
        assert_eq!(with.encode(&noise, &mut zpage), PAGE_SIZE);
        assert!(with.decode(&zpage, &mut out) && out == noise);
    }
}
