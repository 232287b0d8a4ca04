//! The second speed: pages that stay are compressed harder, block by block from
//! the oldest on, while nobody needs the processor.
//!
//! Stage on the data path: between the store and the tier. A block is copied
//! under its shard's lock ([`Store::begin_cold`]), its pages are decoded and
//! encoded again without any lock ([`ColdBlock::compress`]), and what is still
//! alive is replaced under the lock again ([`Store::finish_cold`]). Loads and
//! releases of its pages go on meanwhile.
//!
//! - Only the older seven eighths of a shard's blocks are cold: what is wanted
//!   back soon keeps the fast codec.
//! - A page whose bytes do not match their checksum is left as it is: who loads
//!   it is told.
//! - Only with a dictionary: without one, level 6 gains 3%.
//!
//! Does not: limit its CPU time; the client's thread does.

use crate::sync::Arc;

use zcache_core::{BlockToken, Frames, Kind as PoolKind, LiveZpage, Replacement, Zpage};

use super::dictionaries::{Coding, Current};
use crate::codec;
use crate::lend;
use crate::store::counts::add;
use crate::store::load::Tags;
use crate::store::{Part, Store};

/// Level of cold pages: 9 and more gain 1% for twice the time.
const LEVEL_COLD: i32 = 6;

/// Bytes that a page has to shrink by to be rewritten: two granules of a block.
const WORTH_BYTES: usize = 32;

/// Of eight blocks of a shard, at most so many are cold.
const COLD_EIGHTHS: u32 = 7;
/// Shards with fewer blocks are left alone.
const BLOCKS_MIN: u32 = 8;

/// A page of a block that is recompressed.
struct ColdPage {
    live: LiveZpage,
    tags: Tags,
    /// What encodes it harder, if anything does.
    harder: Option<Arc<Current>>,
    /// What was made: where in the bytes made, and its checksum.
    made: Option<(std::ops::Range<usize>, u32)>,
}

/// A block that is recompressed. Give it back with [`Store::finish_cold`];
/// until then its pages can be loaded and freed but do not leave RAM.
#[must_use = "the block stays in RAM until it is given back"]
pub struct ColdBlock {
    shard: usize,
    block: BlockToken,
    bytes: Vec<u8>,
    pages: Vec<ColdPage>,
    made: Vec<u8>,
}

/// What recompressing a block came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Recompressed {
    /// Pages that are smaller now.
    pub pages: u64,
    /// Compressed bytes saved.
    pub bytes_saved: u64,
}

impl std::fmt::Debug for ColdBlock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ColdBlock({} pages)", self.pages.len())
    }
}

impl Store {
    /// RAM in bytes that the next [`Store::begin_cold`] takes and counts, beside
    /// a block of its own; `None` when no block is cold, or there is no
    /// dictionary.
    #[must_use]
    pub fn cold_due_bytes(&self) -> Option<u64> {
        let scopes = self.dictionaries.scopes();
        let mut with = scopes
            .iter()
            .filter_map(|scope| Some((scope, scope.current()?)));
        let (scope, current) = with.next()?;
        let any = (0..self.shards.len()).any(|number| self.cold_kind(&self.part(number)).is_some());
        let tables = match scope.is_harder_ready() {
            true => 0,
            // Measured: 11 bytes for each of a dictionary of 64 KiB.
            false => current.encoder.dictionary().len() as u64 * 16,
        };
        any.then_some(tables)
    }

    /// The oldest block that has not been recompressed, of the next shard that
    /// has one; `None` when no block is cold.
    pub fn begin_cold(&self) -> Option<ColdBlock> {
        self.shards_in_turn()
            .find_map(|number| self.begin_cold_in(number))
    }

    fn begin_cold_in(&self, number: usize) -> Option<ColdBlock> {
        let mut part = self.part(number);
        let kind = self.cold_kind(&part)?;
        let Part { core, frames, .. } = &mut *part;
        let plan = core.begin_recompress(frames, kind)?;
        let bytes = frames.bytes(plan.frame, plan.run).to_vec();
        let pages = core
            .live_zpages(frames, plan.block, &bytes)
            .filter_map(|live| {
                let (codec, checksum) = core.tags_of(frames, plan.block, live)?;
                Some((live, Tags::new(codec, checksum, &self.dictionaries)))
            })
            .collect::<Vec<_>>();
        drop(part);
        let pages = pages.into_iter().map(|(live, tags)| ColdPage {
            harder: self.harder_for(&tags),
            live,
            tags,
            made: None,
        });
        Some(ColdBlock {
            shard: number,
            block: plan.block,
            pages: pages.collect(),
            made: Vec::with_capacity(bytes.len()),
            bytes,
        })
    }

    /// Gives the tables of cold pages back, when there are none for a while. The
    /// next cold block has them made again.
    pub fn rest_cold(&self) {
        for scope in self.dictionaries.scopes() {
            scope.drop_harder();
        }
    }

    /// Which kind of blocks of a shard has one to be recompressed.
    fn cold_kind(&self, part: &Part) -> Option<PoolKind> {
        [PoolKind::Persistent, PoolKind::Ephemeral]
            .into_iter()
            .find(|kind| {
                let (cold, all) = part.core.cold_blocks(*kind);
                all >= BLOCKS_MIN && cold < all / 8 * COLD_EIGHTHS
            })
    }

    /// What encodes a page harder than it is.
    fn harder_for(&self, tags: &Tags) -> Option<Arc<Current>> {
        let coding = Coding::of(tags.codec)?;
        if coding.hard {
            return None;
        }
        let scope = match coding.slot {
            0 => self.dictionaries.only_scope()?,
            slot => self.dictionaries.scope_of_slot(slot)?,
        };
        self.dictionaries.harder(&scope, LEVEL_COLD)
    }

    /// Puts what was made of a cold block in the place of what is still alive of
    /// it.
    pub fn finish_cold(&self, cold: ColdBlock) -> Recompressed {
        let saved = cold.pages.iter().any(|page| page.made.is_some());
        let replacements = cold.pages.iter().filter(|_| saved).filter_map(|page| {
            let (bytes, coding, checksum) = match (&page.made, &page.harder) {
                (Some((range, checksum)), Some(harder)) => {
                    let slot = harder.slot;
                    let coding = Coding::harder(slot);
                    (&cold.made[range.clone()], coding.id(), *checksum)
                }
                // The others move along, so that the block becomes free.
                _ => (
                    page.bytes(&cold.bytes)?,
                    page.tags.codec,
                    page.tags.checksum,
                ),
            };
            let by = Zpage::Bytes {
                bytes,
                codec: coding,
                checksum,
            };
            Some(Replacement { of: page.live, by })
        });
        let mut part = self.part(cold.shard);
        let Part { core, frames, .. } = &mut *part;
        let done = core.finish_recompress(frames, cold.block, replacements);
        frames.trim();
        drop(part);
        let pages = u64::from(done.shrunk_zpages);
        add(&self.counts.cold_blocks, 1);
        add(&self.counts.cold_pages, pages);
        add(&self.counts.cold_bytes_saved, done.zbytes_saved);
        Recompressed {
            pages,
            bytes_saved: done.zbytes_saved,
        }
    }
}

impl ColdPage {
    fn bytes<'a>(&self, block: &'a [u8]) -> Option<&'a [u8]> {
        let from = self.live.offset_bytes as usize;
        block.get(from..from + self.live.len_bytes as usize)
    }
}

impl ColdBlock {
    /// Decodes and encodes again what a harder codec may shrink. Takes about
    /// 60 µs a page and no lock.
    pub fn compress(&mut self) {
        let (mut page, mut again) = (lend::room(), lend::room());
        let (page, again) = (page.page_mut(), again.page_mut());
        for cold in &mut self.pages {
            let Some(harder) = &cold.harder else { continue };
            let Some(bytes) = cold.bytes(&self.bytes) else {
                continue;
            };
            if cold.tags.decode(bytes, page).is_err() {
                continue;
            }
            let start = self.made.len();
            let made = &mut self.made;
            let kind = codec::encode_with(&harder.encoder, page, |zpage| {
                made.extend_from_slice(zpage.bytes);
                zpage.kind
            });
            let dictionary = harder.encoder.dictionary();
            let worth =
                kind.has_dictionaries() && self.made.len() - start + WORTH_BYTES <= bytes.len();
            // The bytes that are there are good: others have to prove the same.
            let decoded = codec::decode_with(dictionary, kind, &self.made[start..], again);
            if !worth || decoded.is_err() || again != page {
                self.made.truncate(start);
                continue;
            }
            cold.made = Some((
                start..self.made.len(),
                dictionary.checksum(&self.made[start..]),
            ));
        }
    }
}
