//! What a codec id says.
//!
//! ```text
//! bits 0-1  kind (raw 1, lz4 2, zstd 3)
//!      2    compressed harder since it became cold
//!      3-5  slot of the dictionary, 0 for none
//! ```

use zcache_core::CodecId;

use crate::codec::{Dictionary, Kind};

/// See the module's description.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::store) struct Coding {
    pub(in crate::store) kind: Kind,
    /// Compressed harder since it became cold.
    pub(in crate::store) hard: bool,
    /// Slot of the dictionary; zero for none.
    pub(in crate::store) slot: u8,
}

impl Coding {
    pub(in crate::store) fn id(self) -> CodecId {
        CodecId::new(self.kind.number(self.hard) | self.slot << 3)
    }

    /// `None` for an id that this version does not make.
    pub(in crate::store) fn of(id: CodecId) -> Option<Coding> {
        let (number, slot) = (id.get() & 7, id.get() >> 3);
        let (kind, hard) = Kind::of_number(number).filter(|(kind, _)| *kind != Kind::Same)?;
        let known = match slot {
            0 => !hard,
            _ => kind.has_dictionaries(),
        };
        known.then_some(Coding { kind, hard, slot })
    }

    /// That of fresh pages.
    pub(in crate::store) fn fresh(kind: Kind, slot: u8) -> Coding {
        Coding {
            kind,
            hard: false,
            slot,
        }
    }

    /// That of cold pages.
    pub(in crate::store) fn harder(slot: u8) -> Coding {
        Coding {
            kind: Dictionary::KIND,
            hard: true,
            slot,
        }
    }

    /// Every id that names a slot.
    pub(in crate::store) fn ids_of_slot(slot: u8) -> impl Iterator<Item = CodecId> {
        (0..CodecId::COUNT)
            .map(CodecId::new)
            .filter(move |id| Coding::of(*id).is_some_and(|coding| coding.slot == slot))
    }
}

#[cfg(test)]
mod tests {
    use super::super::SLOTS;
    use super::*;

    #[test]
    fn codec_ids_are_what_they_say_and_those_of_the_future_are_nothing() {
        let mut known = 0;
        for bits in 0..CodecId::COUNT {
            let id = CodecId::new(bits);
            if let Some(coding) = Coding::of(id) {
                assert_eq!(coding.id(), id);
                assert!(Coding::ids_of_slot(coding.slot).any(|other| other == id));
                known += 1;
            }
        }
        // Raw, lz4 and zstd without a dictionary, zstd with each of seven, fresh
        // and cold.
        assert_eq!(known, 3 + 2 * SLOTS);
    }
}
