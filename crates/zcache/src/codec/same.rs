//! Pages that repeat one word of eight bytes. No codec sees them.

use crate::page::{PAGE_SIZE, Page};

/// The word that a page repeats.
pub(super) fn repeated_word(page: &Page) -> Option<[u8; 8]> {
    let (words, _) = page.as_chunks::<8>();
    let first = words[0];
    // The middle and the end differ in most pages that are not same-filled.
    if words[words.len() / 2] != first || words[words.len() - 1] != first {
        return None;
    }
    words.iter().all(|word| *word == first).then_some(first)
}

/// Fills a page with the word that these bytes are.
pub(super) fn fill(bytes: &[u8], out: &mut Page) -> Option<usize> {
    let word = <[u8; 8]>::try_from(bytes).ok()?;
    out.as_chunks_mut::<8>().0.fill(word);
    Some(PAGE_SIZE)
}
