//! Contents of pages that follow from a number, so that every byte can be checked.

/// What an error about contents says.
pub(crate) const WRONG: &str = "wrong bytes";

/// A small generator of numbers (splitmix64).
#[derive(Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// What kind of memory pages are like.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mix {
    /// All kinds: same-filled and incompressible ones too.
    All,
    /// As the heap of many programs: halves, about.
    Half,
    /// As sources and syntax trees while a kernel is compiled: a quarter, about.
    Quarter,
}

/// Fills a page with what its number says.
pub(crate) fn fill(page: &mut [u64; 512], number: u64, mix: Mix) {
    let mut random = Random::new(number);
    // Of the eight words of a line, so many are new and the others are those of the line before, as in an array of records.
    let new_words: &[usize] = match (mix, random.next() % 16) {
        (Mix::All, 0) => {
            page.fill(number | 1);
            return;
        }
        (Mix::All, 1) => &[8],
        (Mix::All, 2..=5) | (Mix::Quarter, _) => &[1, 2],
        _ => &[3],
    };
    let mut line = [0x7f00_0000_0000 | (number & 0xfff) << 12; 8];
    for (at, words) in page.chunks_exact_mut(8).enumerate() {
        line[..new_words[at % new_words.len()]].fill_with(|| random.next());
        words.copy_from_slice(&line);
    }
}

/// Checks a page against its number.
pub(crate) fn check(page: &[u64; 512], number: u64, mix: Mix, what: &str) -> Result<(), String> {
    let mut expected = [0; 512];
    fill(&mut expected, number, mix);
    if *page == expected {
        return Ok(());
    }
    let at = (0..512).find(|at| page[*at] != expected[*at]).unwrap_or(0);
    Err(format!(
        "{WRONG} in {what}: word {at} is {:#x} and not {:#x}",
        page[at], expected[at]
    ))
}
