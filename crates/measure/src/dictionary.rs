//! Zstandard with a dictionary trained on a part of the sample.
//!
//! - A ratio is measured on pages that did not train the dictionary: what was
//!   trained on them would flatter itself.
//! - Sizes and levels are those of the engine's plan: 4 KiB within the first
//!   seconds, then 64 KiB; level 1 for fresh pages, 6 for cold ones.
//!
//! The trainer is the engine's.

use std::sync::Arc;

use zcache::codec::Dictionary;
use zcache::{PAGE_SIZE, Page};

/// Bytes of pages that train a dictionary, for each of its own: what the
/// trainer's authors advise.
const TRAINING_FACTOR: usize = 100;

/// Pages that have to be left to measure on.
const LEFT_LEAST: usize = 64;

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

/// Trains a dictionary as the engine does; none when too little repeats.
pub(crate) fn train(pages: &[&Page], bytes_max: usize) -> Option<Arc<Dictionary>> {
    let pages: Vec<Page> = pages.iter().map(|page| **page).collect();
    Dictionary::train(&pages, bytes_max).map(Arc::new)
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
    fn one_side_trains_a_dictionary() {
        let pages = records(600);
        let pages: Vec<&Page> = pages.iter().collect();
        let (seen, _) = divide(&pages, 4096).expect("enough pages");
        let trained = train(&seen, 4096).expect("a dictionary");
        assert!(trained.len() <= 4096);
        assert!(train(&seen[..1], 4096).is_none());
    }
}
