//! What pages hold, before any codec: one repeated word, the same as another
//! page, or something of their own.

use std::collections::HashSet;

use zcache::Page;
use zcache::codec::{self, Codec, Kind};

use crate::report::Contents;

/// Sorts pages. `tick` is called now and then with the number that is done.
pub(crate) fn look(pages: &[&Page], mut tick: impl FnMut(u64)) -> Contents {
    let mut contents = Contents::default();
    let mut seen: HashSet<&Page> = HashSet::with_capacity(pages.len());
    for (number, page) in pages.iter().enumerate() {
        if is_same_filled(page) {
            contents.same_filled_pages += 1;
            contents.zero_pages += u64::from(page[..8] == [0; 8]);
        } else if !seen.insert(page) {
            contents.duplicate_pages += 1;
        }
        tick(number as u64 + 1);
    }
    contents
}

/// Whether the page repeats one word, so that no codec is asked.
pub(crate) fn is_same_filled(page: &Page) -> bool {
    codec::encode(Codec::PLAIN, page, |encoded| encoded.kind == Kind::Same)
}

#[cfg(test)]
mod tests {
    use super::*;
    use zcache::PAGE_SIZE;

    #[test]
    fn each_page_is_one_thing() {
        let zero = [0; PAGE_SIZE];
        let same = [7; PAGE_SIZE];
        let mut one = [0; PAGE_SIZE];
        one[9] = 1;
        let mut other = one;
        other[10] = 1;
        let pages = [&zero, &one, &same, &one, &other, &zero, &one];
        let found = look(&pages, |_| ());
        assert_eq!(
            found,
            Contents {
                same_filled_pages: 3,
                zero_pages: 2,
                duplicate_pages: 2,
            }
        );
    }
}
