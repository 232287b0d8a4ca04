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
//! - A block that was begun is given back by whoever drops it, if it was not
//!   finished: unchanged, and as cold, so that what failed is not tried again.
//! - The copy of a block and what is made of it are counted in the store's RAM.
//!   One set of these buffers is kept from block to block.
//!
//! Does not: limit its CPU time; the client's thread does.

use crate::sync::{Arc, Mutex, Weak, lock};

use zcache_core::{BlockToken, Frames, Kind as PoolKind, LiveZpage, Replacement, Run, Zpage};

use super::dictionaries::{Coding, Current};
use super::tags::Tags;
use crate::codec;
use crate::frames::{Budget, Charge};
use crate::lend;
use crate::page::PAGE_SIZE;
use crate::store::Store;
use crate::store::counts::add;
use crate::store::part::Part;

/// Level of cold pages: 9 and more gain 1% for twice the time.
const LEVEL_COLD: i32 = 6;

/// Bytes that a page has to shrink by to be rewritten: two granules of a block.
const WORTH_BYTES: usize = 32;

/// Of eight blocks of a shard, at most so many are cold.
const COLD_EIGHTHS: u32 = 7;
/// Shards with fewer blocks are left alone.
const BLOCKS_MIN: u32 = 8;

/// Pages of a block for which there is room from the beginning.
const PAGES_ROOM: usize = 64;

/// A page of a block that is recompressed.
struct ColdPage {
    live: LiveZpage,
    tags: Tags,
    /// What encodes it harder, if anything does.
    harder: Option<Arc<Current>>,
    /// What was made: where in the bytes made, and its checksum.
    made: Option<(std::ops::Range<usize>, u32)>,
}

/// What a block is copied to, and what is made of it.
struct Buffers {
    bytes: Vec<u8>,
    pages: Vec<ColdPage>,
    made: Vec<u8>,
    charge: Charge,
}

impl Buffers {
    /// RAM of new ones in bytes. Only a block of many small pages takes more.
    const RAM_BYTES: u64 =
        (2 * Run::BLOCK.bytes() + PAGE_SIZE + PAGES_ROOM * size_of::<ColdPage>()) as u64;

    fn new(budget: &Arc<Budget>) -> Buffers {
        Buffers {
            bytes: Vec::with_capacity(Run::BLOCK.bytes()),
            pages: Vec::with_capacity(PAGES_ROOM),
            // A page that does not shrink lies behind the others for a moment.
            made: Vec::with_capacity(Run::BLOCK.bytes() + PAGE_SIZE),
            charge: Charge::new(budget, Buffers::RAM_BYTES),
        }
    }

    /// Takes a copy of a block, whose pages come next.
    fn copy(&mut self, bytes: &[u8]) {
        self.bytes.clear();
        self.bytes.extend_from_slice(bytes);
        self.made.clear();
        self.made.reserve(bytes.len() + PAGE_SIZE);
    }

    /// Counts what they take now.
    fn count(&mut self) {
        let pages = self.pages.capacity() * size_of::<ColdPage>();
        let bytes = self.bytes.capacity() + self.made.capacity() + pages;
        self.charge.set(bytes as u64);
    }
}

/// Buffers that wait for the next block.
#[derive(Default)]
pub(in crate::store) struct ColdSpare(Mutex<Option<Buffers>>);

impl ColdSpare {
    fn take(&self, budget: &Arc<Budget>) -> Buffers {
        let spare = lock(&self.0).take();
        spare.unwrap_or_else(|| Buffers::new(budget))
    }

    fn put(&self, mut buffers: Buffers) {
        // They hold dictionaries in use.
        buffers.pages.clear();
        let other = lock(&self.0).replace(buffers);
        drop(other);
    }

    fn is_there(&self) -> bool {
        lock(&self.0).is_some()
    }

    fn drop_all(&self) {
        let spare = lock(&self.0).take();
        drop(spare);
    }
}

/// A block that is recompressed. Give it back with [`Store::finish_cold`];
/// until then its pages can be loaded and freed but do not leave RAM. One that is
/// dropped instead is given back as it was. It may outlive its store.
#[must_use = "the block stays in RAM until it is given back"]
pub struct ColdBlock {
    /// The shards of its store.
    shards: Weak<[Mutex<Part>]>,
    shard: usize,
    block: BlockToken,
    /// `None` once it was given back.
    buffers: Option<Buffers>,
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
        let pages = self.buffers.as_ref().map_or(0, |all| all.pages.len());
        write!(f, "ColdBlock({pages} pages)")
    }
}

impl Store {
    /// RAM in bytes that the next [`Store::begin_cold`] takes and counts, at most:
    /// tables for each dictionary in use and buffers, as far as they are not
    /// there from the block before. They stay until [`Store::rest_cold`]. `None`
    /// when no block is cold, or there is no dictionary.
    ///
    /// Meant for the thread that calls [`Store::begin_cold`], to make room first.
    /// Locks one shard after the other, for a moment each.
    #[must_use]
    pub fn cold_due_bytes(&self) -> Option<u64> {
        let scopes = self.dictionaries.scopes_with();
        if scopes.is_empty() || !self.has_cold_block() {
            return None;
        }
        let missing = scopes.iter().filter_map(|scope| scope.len_without_harder());
        let tables: u64 = missing
            .map(|len| codec::tables_bytes_max(len, LEVEL_COLD))
            .sum();
        let buffers = match self.cold.is_there() {
            true => 0,
            false => Buffers::RAM_BYTES,
        };
        Some(tables + buffers)
    }

    fn has_cold_block(&self) -> bool {
        (0..self.shards.len()).any(|number| self.cold_kind(&self.part(number)).is_some())
    }

    /// The oldest block that has not been recompressed, of the next shard that
    /// has one; `None` when no block is cold.
    pub fn begin_cold(&self) -> Option<ColdBlock> {
        self.shards_in_turn()
            .find_map(|number| self.begin_cold_in(number))
    }

    fn begin_cold_in(&self, number: usize) -> Option<ColdBlock> {
        self.cold_kind(&self.part(number))?;
        let mut buffers = self.cold.take(&self.budget);
        let Some(block) = self.hand_out(number, &mut buffers) else {
            self.cold.put(buffers);
            return None;
        };
        // From here on, whatever happens, the block is given back.
        let mut cold = ColdBlock {
            shards: Arc::downgrade(&self.shards),
            shard: number,
            block,
            buffers: Some(buffers),
        };
        if let Some(buffers) = &mut cold.buffers {
            buffers.count();
            for page in &mut buffers.pages {
                page.harder = self.harder_for(&page.tags);
            }
        }
        Some(cold)
    }

    /// Copies the oldest block of a shard that is to be recompressed.
    fn hand_out(&self, number: usize, buffers: &mut Buffers) -> Option<BlockToken> {
        let mut part = self.part(number);
        // Another thread may have been faster.
        let kind = self.cold_kind(&part)?;
        let Part { core, frames, .. } = &mut *part;
        let plan = core.begin_recompress(frames, kind)?;
        buffers.copy(frames.bytes(plan.frame, plan.run));
        let pages = core.live_zpages(frames, plan.block);
        let pages = pages.filter_map(|live| {
            let (codec, checksum) = live.tags?;
            Some(ColdPage {
                live,
                tags: Tags::new(codec, checksum, &self.dictionaries),
                harder: None,
                made: None,
            })
        });
        buffers.pages.extend(pages);
        Some(plan.block)
    }

    /// Gives the tables of cold pages and the buffers back, when there are no cold
    /// blocks for a while. The next one has them made again.
    pub fn rest_cold(&self) {
        for scope in self.dictionaries.scopes_with() {
            scope.drop_harder();
        }
        self.cold.drop_all();
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
        scope.harder(LEVEL_COLD, &self.budget)
    }

    /// Puts what was made of a cold block in the place of what is still alive of
    /// it. A block of another store goes back there as it was.
    pub fn finish_cold(&self, mut cold: ColdBlock) -> Recompressed {
        if !std::ptr::addr_eq(cold.shards.as_ptr(), Arc::as_ptr(&self.shards)) {
            return Recompressed::default();
        }
        let Some(buffers) = cold.buffers.take() else {
            return Recompressed::default();
        };
        let mut part = self.part(cold.shard);
        let Part { core, frames, .. } = &mut *part;
        let done = core.finish_recompress(frames, cold.block, buffers.replacements());
        frames.trim();
        drop(part);
        self.cold.put(buffers);
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

impl Buffers {
    /// What takes the place of the block's pages, if any of them shrank.
    fn replacements(&self) -> impl Iterator<Item = Replacement<'_>> {
        let saved = self.pages.iter().any(|page| page.made.is_some());
        let pages = self.pages.iter().filter(move |_| saved);
        pages.filter_map(|page| {
            let (bytes, codec, checksum) = match (&page.made, &page.harder) {
                (Some((range, checksum)), Some(harder)) => {
                    let coding = Coding::harder(harder.slot);
                    (&self.made[range.clone()], coding.id(), *checksum)
                }
                // The others move along, so that the block becomes free.
                _ => (
                    page.bytes(&self.bytes)?,
                    page.tags.codec,
                    page.tags.checksum,
                ),
            };
            let by = Zpage::Bytes {
                bytes,
                codec,
                checksum,
            };
            Some(Replacement { of: page.live, by })
        })
    }
}

impl Drop for ColdBlock {
    fn drop(&mut self) {
        let (Some(_), Some(shards)) = (&self.buffers, self.shards.upgrade()) else {
            return;
        };
        let mut part = lock(&shards[self.shard]);
        let Part { core, frames, .. } = &mut *part;
        core.finish_recompress(frames, self.block, std::iter::empty());
        frames.trim();
    }
}

impl ColdPage {
    fn bytes<'a>(&self, block: &'a [u8]) -> Option<&'a [u8]> {
        let from = self.live.offset_bytes as usize;
        block.get(from..from + self.live.len_bytes as usize)
    }

    /// Appends what a harder codec makes of the page, if that is worth it.
    fn compress(&mut self, block: &[u8], made: &mut Vec<u8>) {
        let Some(harder) = &self.harder else { return };
        let Some(bytes) = self.bytes(block) else {
            return;
        };
        let (mut page, mut again) = (lend::room(), lend::room());
        let (page, again) = (page.page_mut(), again.page_mut());
        if self.tags.decode(bytes, page).is_err() {
            return;
        }
        let start = made.len();
        let kind = codec::encode_with(&harder.encoder, page, |zpage| {
            made.extend_from_slice(zpage.bytes);
            zpage.kind
        });
        let dictionary = harder.encoder.dictionary();
        let zpage = &made[start..];
        let worth = kind.has_dictionaries() && zpage.len() + WORTH_BYTES <= bytes.len();
        // The bytes that are there are good: others have to prove the same.
        let decoded = codec::decode_with(dictionary, kind, zpage, again);
        if !worth || decoded.is_err() || again != page {
            made.truncate(start);
            return;
        }
        let checksum = dictionary.checksum(zpage);
        self.made = Some((start..made.len(), checksum));
    }
}

impl ColdBlock {
    /// Decodes and encodes again what a harder codec may shrink. Takes about
    /// 60 µs a page and no lock.
    pub fn compress(&mut self) {
        let Some(Buffers {
            bytes, pages, made, ..
        }) = &mut self.buffers
        else {
            return;
        };
        for cold in pages {
            cold.compress(bytes, made);
        }
    }
}
