//! The numbers of zpages' kinds, of which the core's codec ids are made.
//!
//! - `of_number(kind.number(hard)) == (kind, hard)`, and no other number says that.

use super::list::Kind;

impl Kind {
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
