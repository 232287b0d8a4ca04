//! What makes a chunk of a segment the one that was written: a seal, so that no
//! other byte, segment, place or run passes, and with a key no peer reads it.
//!
//! Stage on the data path: over each chunk, last before it is sent and first
//! when it comes back. Sources: AES-256-GCM, NIST SP 800-38D; CRC-32C, RFC 3720.
//!
//! - The key is drawn for the run and is only in this process's RAM.
//! - A nonce is (segment, offset). Segment numbers are drawn once each and a
//!   chunk is sealed once, so no nonce comes twice with the key.
//! - Bound to epoch, segment and offset, with a key or without.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};

/// The system has no random bytes to give.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NoRandom;

/// Draws a random number from the system.
pub(crate) fn random() -> Result<u64, NoRandom> {
    let mut bytes = [0; 8];
    SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandom)?;
    Ok(u64::from_le_bytes(bytes))
}

/// Seals and opens chunks.
pub(crate) struct Seal {
    epoch: u64,
    key: Option<LessSafeKey>,
}

impl Seal {
    /// With a key of its own, or by checksum only.
    pub(crate) fn new(epoch: u64, keyed: bool) -> Result<Seal, NoRandom> {
        let mut key = None;
        if keyed {
            let mut bytes = [0; 32];
            SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandom)?;
            let unbound = UnboundKey::new(&AES_256_GCM, &bytes).map_err(|_| NoRandom)?;
            bytes.fill(0);
            key = Some(LessSafeKey::new(unbound));
        }
        Ok(Seal { epoch, key })
    }

    /// Whether a peer can read nothing.
    pub(crate) fn is_keyed(&self) -> bool {
        self.key.is_some()
    }

    /// Bytes that a seal adds to each chunk.
    pub(crate) fn tag_bytes(&self) -> usize {
        if self.is_keyed() { 16 } else { 4 }
    }

    /// Seals a chunk in place; its last [`tag_bytes`](Self::tag_bytes) are for
    /// the tag.
    ///
    /// # Panics
    /// When the frame is shorter than a tag.
    pub(crate) fn seal(&self, segment: u64, offset: u32, frame: &mut [u8]) {
        let (chunk, tag) = frame.split_at_mut(frame.len() - self.tag_bytes());
        match &self.key {
            Some(key) => {
                let aad = Aad::from(self.epoch.to_le_bytes());
                let sealed = key.seal_in_place_separate_tag(nonce(segment, offset), aad, chunk);
                // It fails beyond 64 GiB only.
                tag.copy_from_slice(sealed.expect("a chunk is short").as_ref());
            }
            None => tag.copy_from_slice(&self.checksum(segment, offset, chunk).to_le_bytes()),
        }
    }

    /// Opens a chunk in place, if it is the one that was sealed.
    pub(crate) fn open<'a>(
        &self,
        segment: u64,
        offset: u32,
        frame: &'a mut [u8],
    ) -> Option<&'a [u8]> {
        match &self.key {
            Some(key) => {
                let aad = Aad::from(self.epoch.to_le_bytes());
                let opened = key.open_in_place(nonce(segment, offset), aad, frame);
                opened.ok().map(|chunk| &*chunk)
            }
            None => {
                let (chunk, tag) = frame.split_at(frame.len().checked_sub(4)?);
                let sum = self.checksum(segment, offset, chunk);
                (tag == sum.to_le_bytes()).then_some(chunk)
            }
        }
    }

    fn checksum(&self, segment: u64, offset: u32, chunk: &[u8]) -> u32 {
        let mut head = [0; 20];
        head[..8].copy_from_slice(&self.epoch.to_le_bytes());
        head[8..16].copy_from_slice(&segment.to_le_bytes());
        head[16..].copy_from_slice(&offset.to_le_bytes());
        crc32c::crc32c_append(crc32c::crc32c(&head), chunk)
    }
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seal")
            .field("keyed", &self.is_keyed())
            .finish_non_exhaustive()
    }
}

fn nonce(segment: u64, offset: u32) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    bytes[..8].copy_from_slice(&segment.to_le_bytes());
    bytes[8..].copy_from_slice(&offset.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_chunk_opens() {
        for keyed in [true, false] {
            let seal = Seal::new(7, keyed).unwrap();
            let mut frame = vec![9; 100 + seal.tag_bytes()];
            seal.seal(3, 64, &mut frame);
            assert_eq!(
                frame[..100] == [9; 100],
                !keyed,
                "sealed with a key is other bytes"
            );
            let opens = |seal: &Seal, segment, offset, frame: &[u8]| {
                let opened = seal
                    .open(segment, offset, &mut frame.to_vec())
                    .map(<[u8]>::to_vec);
                assert!(opened.as_ref().is_none_or(|chunk| *chunk == [9; 100]));
                opened.is_some()
            };
            assert!(opens(&seal, 3, 64, &frame));
            assert!(!opens(&seal, 4, 64, &frame), "another segment");
            assert!(!opens(&seal, 3, 65, &frame), "another place");
            assert!(
                !opens(&Seal::new(8, keyed).unwrap(), 3, 64, &frame),
                "another run"
            );
            assert!(!opens(&seal, 3, 64, &frame[..frame.len() - 1]), "cut off");
            assert!(!opens(&seal, 3, 64, &[]));
            for at in 0..frame.len() {
                let mut wrong = frame.clone();
                wrong[at] ^= 1;
                assert!(!opens(&seal, 3, 64, &wrong), "byte {at}");
            }
        }
    }
}
