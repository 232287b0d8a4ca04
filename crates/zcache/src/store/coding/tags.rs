//! What is kept beside the bytes of a zpage: by what it was made, and its checksum.
//!
//! Stage on the data path: between the codec and the core, both ways.
//!
//! - Bytes are decoded only if they match their checksum.

use zcache_core::{CodecId, Zpage};

use super::dictionaries::{Coding, Current, Dictionaries};
use crate::codec::{self, Dictionary, Encoded, Kind};
use crate::page::Page;
use crate::sync::Arc;

/// A zpage's tags.
#[derive(Clone)]
pub(in crate::store) struct Tags {
    pub(in crate::store) codec: CodecId,
    pub(in crate::store) checksum: u32,
    /// The dictionary that the codec id names, if there is one.
    dictionary: Option<Arc<Dictionary>>,
}

impl Tags {
    /// Call it with the shard locked that holds the page.
    pub(in crate::store) fn new(
        codec: CodecId,
        checksum: u32,
        dictionaries: &Dictionaries,
    ) -> Tags {
        Tags {
            codec,
            checksum,
            dictionary: Coding::of(codec).and_then(|coding| dictionaries.of_slot(coding.slot)),
        }
    }

    /// Decodes bytes that match their checksum.
    pub(in crate::store) fn decode(&self, bytes: &[u8], out: &mut Page) -> Result<(), Unreadable> {
        let kind = self.verify(bytes)?;
        let decoded = match self.dictionary.as_deref() {
            Some(dictionary) => codec::decode_with(dictionary, kind, bytes, out),
            None => codec::decode(kind, bytes, out),
        };
        decoded.map_err(|_| Unreadable::Corrupt)
    }

    /// Whether bytes match their checksum; what they are.
    pub(in crate::store) fn verify(&self, bytes: &[u8]) -> Result<Kind, Unreadable> {
        let Coding { kind, slot, .. } = Coding::of(self.codec).ok_or(Unreadable::Corrupt)?;
        let found = match (self.dictionary.as_deref(), slot) {
            (Some(dictionary), _) => dictionary.checksum(bytes),
            (None, 0) => codec::checksum(kind, bytes),
            (None, _) => return Err(Unreadable::Corrupt),
        };
        match found == self.checksum {
            true => Ok(kind),
            false => Err(Unreadable::Checksum { found }),
        }
    }
}

/// Why bytes are no page.
pub(in crate::store) enum Unreadable {
    /// Another checksum than was kept.
    Checksum { found: u32 },
    /// They are the bytes that were kept, and no page.
    Corrupt,
}

/// A zpage in the core's words, with its checksum. `current` is the dictionary
/// that it was made with, if it is of a kind that has one.
pub(in crate::store) fn zpage<'a>(encoded: Encoded<'a>, current: Option<&Current>) -> Zpage<'a> {
    let current = current.filter(|_| encoded.kind.has_dictionaries());
    match encoded.kind {
        Kind::Same => {
            let mut word = [0; 8];
            word.copy_from_slice(encoded.bytes);
            Zpage::Same {
                word: u64::from_le_bytes(word),
            }
        }
        kind => Zpage::Bytes {
            bytes: encoded.bytes,
            codec: Coding::fresh(kind, current.map_or(0, |current| current.slot)).id(),
            checksum: match current {
                Some(current) => current.encoder.dictionary().checksum(encoded.bytes),
                None => codec::checksum(kind, encoded.bytes),
            },
        },
    }
}
