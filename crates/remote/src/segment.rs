//! Segments: what lies where in one value of a server.
//!
//! ```text
//! segment = block …            shorter than SEGMENT_BYTES_MAX
//! block   = chunk tag … chunk tag
//! chunk   = CHUNK_BYTES of the block; the last one what is left of it
//! tag     = 16 bytes (sealed) or 4 (checksum)
//! ```
//!
//! Zero bytes at the end of a block are not sent. Nothing in a segment says
//! what it is: the index knows, and the seals verify.
//!
//! - Written once; its number, and so its key, is never used again.
//! - Any part of a block is whole chunks of one segment, so one GETRANGE.

use crate::lender;
use crate::seal::Seal;

/// Just under a size class of the servers' allocator, which 65,536 with its
/// header would be a quarter above.
pub(crate) const SEGMENT_BYTES_MAX: usize = 65_000;

/// What one seal is over.
pub(crate) const CHUNK_BYTES: usize = 2048;

/// The unit of names.
pub(crate) const UNIT_BYTES: usize = zcache::tier::SECTOR_SIZE;

/// The longest block: the largest that fits with every seal.
pub(crate) const BLOCK_BYTES_MAX: usize = 60 << 10;

const _: () = assert!(BLOCK_BYTES_MAX + BLOCK_BYTES_MAX / CHUNK_BYTES * 16 < SEGMENT_BYTES_MAX);

/// A segment's number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SegmentId(pub(crate) u64);

impl SegmentId {
    /// What is no segment but a key that marks a server: chores give it back too.
    pub(crate) const MARK: SegmentId = SegmentId(u64::MAX);
}

impl std::fmt::Debug for SegmentId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "S{}", self.0)
    }
}

/// A block in a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Packed {
    /// Its name: its offset in the tier, in units.
    pub(crate) unit: u32,
    /// Its length in units.
    pub(crate) units: u8,
    /// Where its first chunk lies.
    pub(crate) start: u16,
    /// How many of its bytes were sent.
    pub(crate) sent: u16,
}

impl Packed {
    /// Where the chunks lie that hold these bytes of the block, up to the last
    /// that was sent: from and to in the segment. Empty when all are zeros.
    pub(crate) fn range(&self, from: usize, to: usize, tag_bytes: usize) -> (u32, u32) {
        let sent = usize::from(self.sent);
        let to = to.min(sent);
        if from >= to {
            return (0, 0);
        }
        let first = from / CHUNK_BYTES * (CHUNK_BYTES + tag_bytes);
        let last_chunk = to.div_ceil(CHUNK_BYTES);
        let end = (last_chunk * CHUNK_BYTES).min(sent) + last_chunk * tag_bytes;
        let start = u32::from(self.start);
        (start + first as u32, start + end as u32)
    }

    /// Opens what [`range`](Self::range) gave for the same bytes and copies
    /// them out, zeros where nothing was sent. False when they are not what was
    /// written; then `out` holds anything.
    pub(crate) fn open(
        &self,
        seal: &Seal,
        segment: SegmentId,
        from: usize,
        frames: &mut [u8],
        out: &mut [u8],
    ) -> bool {
        let tag_bytes = seal.tag_bytes();
        let sent = usize::from(self.sent);
        let to = (from + out.len()).min(sent);
        let stored = to.saturating_sub(from);
        out[stored..].fill(0);
        if stored == 0 {
            return true;
        }
        let mut rest = frames;
        for chunk in from / CHUNK_BYTES..to.div_ceil(CHUNK_BYTES) {
            let begin = chunk * CHUNK_BYTES;
            let len = CHUNK_BYTES.min(sent - begin);
            let Some((frame, behind)) = rest.split_at_mut_checked(len + tag_bytes) else {
                return false;
            };
            rest = behind;
            let place = u32::from(self.start) + (chunk * (CHUNK_BYTES + tag_bytes)) as u32;
            let Some(bytes) = seal.open(segment.0, place, frame) else {
                return false;
            };
            let (first, last) = (from.max(begin), to.min(begin + len));
            out[first - from..last - from].copy_from_slice(&bytes[first - begin..last - begin]);
        }
        rest.is_empty()
    }
}

/// A segment that is being filled.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) id: SegmentId,
    pub(crate) bytes: Vec<u8>,
    pub(crate) blocks: Vec<Packed>,
}

impl Draft {
    pub(crate) fn new(id: SegmentId) -> Draft {
        Draft {
            id,
            bytes: Vec::new(),
            blocks: Vec::new(),
        }
    }

    /// Seals a block behind the others; false when it has no room.
    pub(crate) fn add(&mut self, seal: &Seal, unit: u32, block: &[u8]) -> bool {
        let sent = sent_bytes(block);
        let tag_bytes = seal.tag_bytes();
        let len = sent + sent.div_ceil(CHUNK_BYTES) * tag_bytes;
        if self.bytes.len() + len >= SEGMENT_BYTES_MAX {
            return false;
        }
        if self.bytes.capacity() == 0 {
            self.bytes.reserve_exact(SEGMENT_BYTES_MAX);
        }
        let start = self.bytes.len();
        for chunk in block[..sent].chunks(CHUNK_BYTES) {
            let place = self.bytes.len();
            self.bytes.extend_from_slice(chunk);
            self.bytes.resize(place + chunk.len() + tag_bytes, 0);
            seal.seal(self.id.0, place as u32, &mut self.bytes[place..]);
        }
        self.blocks.push(Packed {
            unit,
            units: block.len().div_ceil(UNIT_BYTES) as u8,
            start: start as u16,
            sent: sent as u16,
        });
        true
    }
}

/// The length without the zeros at the end.
fn sent_bytes(block: &[u8]) -> usize {
    let words = block
        .rchunks(16)
        .take_while(|word| word.iter().all(|byte| *byte == 0));
    let zeros: usize = words.map(<[u8]>::len).sum();
    let left = &block[..block.len() - zeros];
    left.iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |at| at + 1)
}

/// How keys are called: `prefix:host:epoch:{tag}:segment`. What is in braces
/// says the slot, where there are slots.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    head: String,
    notice: String,
}

impl Keys {
    pub(crate) fn new(prefix: &str, host: &str, epoch: u64) -> Keys {
        Keys {
            head: format!("{prefix}:{host}:{epoch:016x}"),
            notice: lender::notice(prefix),
        }
    }

    pub(crate) fn segment(&self, tag: u16, id: SegmentId) -> String {
        if id == SegmentId::MARK {
            return self.marker(tag);
        }
        format!("{}:{{{tag:x}}}:{:x}", self.head, id.0)
    }

    /// The key that says whether a server still has what it was given.
    pub(crate) fn marker(&self, tag: u16) -> String {
        format!("{}:{{{tag:x}}}:mark", self.head)
    }

    /// The key that is there while a lender wants its RAM back.
    pub(crate) fn notice(&self) -> String {
        self.notice.clone()
    }

    /// The key that rights are tried on.
    pub(crate) fn trial(&self, tag: u16) -> String {
        format!("{}:{{{tag:x}}}:trial", self.head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_block_opens_from_its_range_alone() {
        for keyed in [true, false] {
            let seal = Seal::new(1, keyed).unwrap();
            let mut draft = Draft::new(SegmentId(5));
            let block = |n: usize, sent: usize| {
                let mut block = vec![0; 16384];
                for (at, byte) in block[..sent].iter_mut().enumerate() {
                    *byte = (at * 31 + n) as u8 | 1;
                }
                block
            };
            let lens = [16384, 0, 1, 2048, 2049, 9000, 16000];
            let blocks: Vec<_> = lens
                .iter()
                .enumerate()
                .map(|(n, len)| block(n, *len))
                .collect();
            for (n, block) in blocks.iter().enumerate() {
                assert!(draft.add(&seal, n as u32 * 4, block));
            }
            assert!(draft.bytes.len() < 46_300, "zeros at the end are not there");
            for (packed, block) in draft.blocks.iter().zip(&blocks) {
                for (from, to) in [
                    (0, 16384),
                    (4096, 8192),
                    (0, 1),
                    (2047, 2049),
                    (16383, 16384),
                ] {
                    let range = packed.range(from, to, seal.tag_bytes());
                    let mut frames = draft.bytes[range.0 as usize..range.1 as usize].to_vec();
                    let mut out = vec![7; to - from];
                    assert!(packed.open(&seal, draft.id, from, &mut frames, &mut out));
                    assert_eq!(out, block[from..to], "{packed:?} {from}..{to}");
                    if let Some(byte) = frames.first_mut() {
                        let mut frames = draft.bytes[range.0 as usize..range.1 as usize].to_vec();
                        *byte ^= 1;
                        frames[0] ^= 1;
                        assert!(!packed.open(&seal, draft.id, from, &mut frames, &mut out));
                    }
                }
            }
        }
    }

    #[test]
    fn a_full_segment_takes_no_more() {
        let seal = Seal::new(1, true).unwrap();
        let mut draft = Draft::new(SegmentId(1));
        let full = vec![1; 16384];
        assert!((0..3).all(|n| draft.add(&seal, n, &full)));
        assert!(!draft.add(&seal, 3, &full));
        assert!(
            draft.add(&seal, 3, &full[..15000]),
            "a shorter one has room"
        );
        assert!(draft.bytes.len() < SEGMENT_BYTES_MAX);
        let mut draft = Draft::new(SegmentId(2));
        assert!(draft.add(&seal, 0, &vec![1; BLOCK_BYTES_MAX]));
    }
}
