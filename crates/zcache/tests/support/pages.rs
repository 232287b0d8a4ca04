//! Pages made from numbers: always the same for the same number.

use std::sync::{Arc, LazyLock};

use zcache::codec::Dictionary;
use zcache::{PAGE_SIZE, Page};

use super::random::Random;

/// A page of any compressibility, sometimes one word over and over, sometimes
/// random throughout.
pub(crate) fn page(number: u64) -> Page {
    let mut random = Random(number);
    match number % 16 {
        0 => same(number / 16 % 5),
        1 => noise(number),
        2 | 3 => record(number),
        kind => {
            let mut page = [0; PAGE_SIZE];
            let words = page.as_chunks_mut::<8>().0;
            let noisy = random.below(PAGE_SIZE as u64 / 8) * kind / 16;
            let word = random.next();
            for (at, slot) in words.iter_mut().enumerate() {
                *slot = match (at as u64) < noisy {
                    true => random.next().to_le_bytes(),
                    false => (word ^ (at as u64 % kind)).to_le_bytes(),
                };
            }
            words[0] = number.to_le_bytes();
            page
        }
    }
}

/// One word over and over.
pub(crate) fn same(word: u64) -> Page {
    let mut page = [0; PAGE_SIZE];
    page.as_chunks_mut::<8>().0.fill(word.to_le_bytes());
    page
}

/// Random bytes throughout: no codec shrinks them.
pub(crate) fn noise(number: u64) -> Page {
    let mut page = [0; PAGE_SIZE];
    let mut random = Random(number ^ 0x5eed);
    let words = page.as_chunks_mut::<8>().0;
    words.fill_with(|| random.next().to_le_bytes());
    page
}

/// Random bytes up to some place, zeros after it.
pub(crate) fn noise_up_to(number: u64, bytes: usize) -> Page {
    let mut page = noise(number);
    page[bytes..].fill(0);
    page
}

/// Records whose words come from one vocabulary: what dictionaries are for.
pub(crate) fn record(number: u64) -> Page {
    let mut random = Random(number);
    let mut page = [0; PAGE_SIZE];
    for record in page.chunks_exact_mut(32) {
        let word = Random(random.below(200)).next();
        record[..8].copy_from_slice(&word.to_le_bytes());
        record[8..16].copy_from_slice(&Random(word).next().to_le_bytes());
        record[16] = random.below(256) as u8;
    }
    page
}

/// Lines of hexadecimal numbers of one kind: pages of different kinds train
/// different dictionaries.
pub(crate) fn text(number: u64, kind: u64) -> Page {
    let mut random = Random(number);
    let mut page = [0; PAGE_SIZE];
    for line in page.chunks_exact_mut(16) {
        let value = random.below(97) * (kind + 3) * 0x1234_5678_9abc;
        line.copy_from_slice(format!("{value:016x}").as_bytes());
    }
    page
}

/// More dictionaries than a store tells apart at a time.
pub(crate) static DICTIONARIES: LazyLock<Vec<Arc<Dictionary>>> = LazyLock::new(|| {
    let trained = |kind| {
        let pages: Vec<Page> = (0..96).map(|number| text(number, kind)).collect();
        let dictionary = Dictionary::train(&pages, 4096);
        Arc::new(dictionary.expect("alike pages train a dictionary"))
    };
    (0..9).map(trained).collect()
});
