//! What a client chooses when it opens a store. Plain data; checked by
//! [`Store::open`](crate::Store::open).

use std::path::PathBuf;
use std::str::FromStr;

use crate::codec::Codec;
use crate::error::{OpenError, UnknownName};
use crate::tier::TierSource;

/// How fresh pages are compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum CodecChoice {
    /// By [`Codec::DENSE`] or [`Codec::FAST`], whichever does better here and now:
    /// see [`Chooser`](crate::Chooser). By the dense one until one has looked, and
    /// by the fast one in stores of less than 48 MiB that have a tier.
    #[default]
    Auto,
    /// By this codec.
    Always(Codec),
}

impl CodecChoice {
    /// Every choice, in the order in which help texts list them.
    pub const ALL: [CodecChoice; 1 + Codec::COUNT] = {
        let mut all = [CodecChoice::Auto; 1 + Codec::COUNT];
        let mut at = 0;
        while at < Codec::COUNT {
            all[1 + at] = CodecChoice::Always(Codec::ALL[at]);
            at += 1;
        }
        all
    };

    /// The name by which users choose it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            CodecChoice::Auto => "auto",
            CodecChoice::Always(codec) => codec.name(),
        }
    }

    /// Whether fresh pages can be made smaller.
    #[must_use]
    pub fn shrinks(self) -> bool {
        match self {
            CodecChoice::Auto => true,
            CodecChoice::Always(codec) => codec.shrinks(),
        }
    }

    /// Whether fresh pages can be made with a dictionary.
    #[must_use]
    pub fn has_dictionaries(self) -> bool {
        match self {
            CodecChoice::Auto => true,
            CodecChoice::Always(codec) => codec.has_dictionaries(),
        }
    }
}

impl From<Codec> for CodecChoice {
    fn from(codec: Codec) -> Self {
        CodecChoice::Always(codec)
    }
}

impl FromStr for CodecChoice {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        Self::ALL
            .into_iter()
            .find(|choice| choice.name() == name)
            .ok_or_else(|| UnknownName {
                kind: "codec",
                name: name.to_owned(),
                known: Self::ALL.map(CodecChoice::name).to_vec(),
            })
    }
}

impl std::fmt::Display for CodecChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// How zpages are packed into frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Allocator {
    /// Blocks of 16 KiB filled best-fit in granules of 16 bytes. Zpages of real
    /// programs fill 98% of what is possible, 12 a block with the fast codec and 19
    /// with the dense one; pages that do not shrink fill it whole, four a block;
    /// pages that all shrink alike may leave up to a fifth of it empty.
    #[default]
    Block,
    /// At most two zpages in a frame of 4 KiB, the design of 2013. It is the
    /// reference that the block allocator is compared with. An ephemeral
    /// same-filled page takes one of the two places.
    Zbud,
    /// At most three zpages in a frame of 4 KiB. An ephemeral same-filled page
    /// takes one of the three places.
    Ztri,
    /// Size classes, each cut from runs of 1 to 8 frames.
    Zsmalloc,
}

impl Allocator {
    /// Every allocator, in the order in which help texts list them.
    pub const ALL: [Allocator; 4] = [
        Allocator::Block,
        Allocator::Zbud,
        Allocator::Ztri,
        Allocator::Zsmalloc,
    ];

    /// The name by which users choose it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Allocator::Block => "block",
            Allocator::Zbud => "zbud",
            Allocator::Ztri => "ztri",
            Allocator::Zsmalloc => "zsmalloc",
        }
    }
}

impl From<Allocator> for zcache_core::Allocator {
    fn from(allocator: Allocator) -> Self {
        match allocator {
            Allocator::Block => zcache_core::Allocator::Block,
            Allocator::Zbud => zcache_core::Allocator::Zbud,
            Allocator::Ztri => zcache_core::Allocator::Ztri,
            Allocator::Zsmalloc => zcache_core::Allocator::Zsmalloc,
        }
    }
}

impl FromStr for Allocator {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        Self::ALL
            .into_iter()
            .find(|allocator| allocator.name() == name)
            .ok_or_else(|| UnknownName {
                kind: "allocator",
                name: name.to_owned(),
                known: Self::ALL.map(Allocator::name).to_vec(),
            })
    }
}

/// A file that blocks go to; see [`TierSource::disk`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SwapConfig {
    /// A directory to make an unnamed file in, or a file to create. `None`
    /// takes the first of `/var/tmp`, the working directory and `$HOME` that
    /// is writable and not in RAM itself.
    pub path: Option<PathBuf>,
    /// The file never grows beyond this many bytes. `None` leaves the limit to
    /// the filesystem.
    ///
    /// The tables in RAM set another limit: they take [`HANDLE_PAGE_BYTES`] for
    /// each page, wherever it is, so that about `pool_bytes_max / 28` pages can be
    /// in the store: 146 bytes of pages for each byte of RAM, and 110 where no page
    /// shrinks. See [`StoreConfig::handle_pages_max`], and docs/engine.md for what
    /// was measured.
    pub bytes_max: Option<u64>,
}

/// RAM in bytes that tables take for a page by handle, in RAM or in the tier: 24
/// for the page, and its share of the 48 for a block. It is 36 where pages do not
/// shrink, since only four of these share a block.
pub const HANDLE_PAGE_BYTES: u64 = 28;

/// The same for a page by key: 40 for the page, about 4 in the index, and its share
/// of the block. Each object takes 72 more, and a pool that has pages 50.
pub const KEY_PAGE_BYTES: u64 = 48;

/// What [`Store::open`](crate::Store::open) needs to know.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// RAM for frames and tables together, in bytes. It is a hard limit, and at
    /// least [`StoreConfig::pool_bytes_min`].
    pub pool_bytes_max: u64,
    /// How fresh pages are compressed.
    pub codec: CodecChoice,
    /// How zpages are packed.
    pub allocator: Allocator,
    /// How many independently locked parts the store has: from one to
    /// [`SHARDS_MAX`], rounded up to a power of two; fewer where the limit on RAM
    /// is less than [`StoreConfig::pool_bytes_min`] for each.
    pub shards: usize,
    /// Whether [`Store::train`](crate::Store::train) trains dictionaries: for
    /// every page whose codec has them, and for cold pages.
    pub dictionaries: bool,
    /// Where cold blocks go, in this order; without any, everything stays in RAM.
    pub tiers: Vec<TierSource>,
}

/// The largest number of shards a store has.
pub const SHARDS_MAX: usize = 64;

/// Frames of tables that a shard takes for its first pages of every kind: entries
/// of handles and of keys, objects, pools, blocks, and the buckets of three indexes.
const TABLE_FRAMES: u32 = 8;

/// Blocks that a shard holds at least: one of each kind.
const BLOCKS_MIN: u32 = 2;

impl StoreConfig {
    /// The least limit on RAM in bytes with which a store opens: that of one shard
    /// with all tables that pages by handle and by key need, and two blocks, of a
    /// persistent and of an ephemeral page.
    ///
    /// With less, some pages would be refused for ever.
    #[must_use]
    pub fn pool_bytes_min(&self) -> u64 {
        let runs = zcache_core::Allocator::from(self.allocator).runs();
        let longest = runs.iter().map(|run| run.frames()).max();
        let frames = TABLE_FRAMES + BLOCKS_MIN * longest.unwrap_or(1);
        u64::from(frames) * zcache_core::FRAME_SIZE as u64
    }

    /// About how many pages by handle the limit on RAM can address, when all of
    /// them are in the tier and RAM holds nothing but tables. With zpages of less
    /// than a kilobyte, of which more share a block, a few more.
    #[must_use]
    pub fn handle_pages_max(&self) -> u64 {
        self.pool_bytes_max / HANDLE_PAGE_BYTES
    }

    /// The same of pages by key, of objects with many pages.
    #[must_use]
    pub fn key_pages_max(&self) -> u64 {
        self.pool_bytes_max / KEY_PAGE_BYTES
    }

    /// How many shards the store gets.
    ///
    /// # Errors
    /// [`OpenError::PoolTooSmall`].
    pub(crate) fn shard_count(&self) -> Result<usize, OpenError> {
        let least_bytes = self.pool_bytes_min();
        let asked = self.shards.clamp(1, SHARDS_MAX).next_power_of_two();
        let room = (self.pool_bytes_max / least_bytes).min(SHARDS_MAX as u64);
        // The power of two below.
        let room = room.checked_ilog2().ok_or(OpenError::PoolTooSmall {
            pool_bytes_max: self.pool_bytes_max,
            least_bytes,
        })?;
        Ok(asked.min(1 << room))
    }
}

impl Default for StoreConfig {
    /// 64 MiB of RAM, the codec chosen, dictionaries, blocks, four shards, no tier.
    fn default() -> Self {
        Self {
            pool_bytes_max: 64 << 20,
            codec: CodecChoice::default(),
            allocator: Allocator::default(),
            shards: 4,
            dictionaries: true,
            tiers: Vec::new(),
        }
    }
}
