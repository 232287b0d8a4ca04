//! What a codec has to be and to do. One file a codec implements it.

use super::{Codec, Kind};
use crate::page::Page;

/// What a codec costs, on average.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct CodecCost {
    /// Time to compress a page, in nanoseconds.
    pub encode_ns: f64,
    /// Time to give one back, in nanoseconds.
    pub decode_ns: f64,
    /// Length of a zpage, in bytes. Only the codecs' lengths beside each other
    /// mean something: all are of the same pages.
    pub zpage_bytes: f64,
}

/// One codec. What it needs beside page and zpage it borrows for the call.
pub(super) trait Method: Sync {
    /// The name by which users choose it.
    fn name(&self) -> &'static str;

    /// Why one would choose it, in a few words.
    fn about(&self) -> &'static str;

    /// Whether it makes pages smaller at all.
    fn shrinks(&self) -> bool {
        true
    }

    /// Whether its zpages can be made with a dictionary, and then be recompressed
    /// harder.
    fn has_dictionaries(&self) -> bool {
        false
    }

    /// What it costs, for as long as that has not been measured in the process.
    /// Measured once on pages of eight programs (docs/decisions/dictionaries.md).
    fn first_cost(&self) -> CodecCost;

    /// Makes sure that it can decompress whatever memory there is later. False
    /// when the system gives none now.
    fn prepare(&self) -> bool {
        true
    }

    /// Compresses a page into `out`, which has room for the worst of its results,
    /// and returns the length. `None` when it does not shrink the page or gets no
    /// memory.
    fn compress(&self, page: &Page, out: &mut [u8]) -> Option<usize>;

    /// Decompresses a zpage and returns how many bytes came of it; `None` when it
    /// is none of this codec's.
    fn decompress(&self, bytes: &[u8], out: &mut Page) -> Option<usize>;
}

impl Codec {
    /// The name by which users choose it.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.method().name()
    }

    /// Why one would choose it, in a few words for help texts.
    #[must_use]
    pub fn about(self) -> &'static str {
        self.method().about()
    }

    /// Whether it makes pages smaller at all.
    #[must_use]
    pub fn shrinks(self) -> bool {
        self.method().shrinks()
    }

    /// Whether its zpages can be made with a [`Dictionary`](super::Dictionary).
    #[must_use]
    pub fn has_dictionaries(self) -> bool {
        self.method().has_dictionaries()
    }

    /// The codecs that make pages smaller, in the order of [`Codec::ALL`].
    pub fn shrinking() -> impl Iterator<Item = Codec> {
        Codec::ALL.into_iter().filter(|codec| codec.shrinks())
    }

    pub(crate) fn first_cost(self) -> CodecCost {
        self.method().first_cost()
    }
}

impl Kind {
    /// Whether zpages of this kind can be made with a
    /// [`Dictionary`](super::Dictionary).
    #[must_use]
    pub fn has_dictionaries(self) -> bool {
        self.codec().is_some_and(Codec::has_dictionaries)
    }

    /// A number below eight for a zpage of this kind, one with a dictionary also
    /// for having been compressed `hard`. Codec ids are made of it.
    pub(crate) fn number(self, hard: bool) -> u8 {
        debug_assert!(!hard || self.has_dictionaries());
        self as u8 | u8::from(hard) << HARD_BIT
    }

    /// What [`Kind::number`] made this number of.
    pub(crate) fn of_number(number: u8) -> Option<(Kind, bool)> {
        let fresh = Kind::from_bits(number).map(|kind| (kind, false));
        fresh.or_else(|| {
            let kind = Kind::from_bits(number ^ 1 << HARD_BIT)?;
            kind.has_dictionaries().then_some((kind, true))
        })
    }
}

/// Of a kind with dictionaries, the number that says hard; such a kind has a number
/// below four, and no other kind has the number of its hard zpages.
const HARD_BIT: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_say_which_kind_and_how_hard() {
        let mut numbers = Vec::new();
        for kind in Kind::ALL {
            numbers.push((kind.number(false), (kind, false)));
            if kind.has_dictionaries() {
                numbers.push((kind.number(true), (kind, true)));
            }
        }
        for number in 0..8 {
            let said = numbers.iter().filter(|(known, _)| *known == number);
            let said: Vec<_> = said.map(|(_, says)| *says).collect();
            assert!(said.len() <= 1, "{number} says {said:?}");
            assert_eq!(Kind::of_number(number), said.first().copied());
        }
        assert!(numbers.iter().all(|(number, _)| *number < 8));
    }
}
