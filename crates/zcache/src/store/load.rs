//! One page back: look up, copy or read, verify, decode.
//!
//! The bytes of a zpage are copied out under the shard's lock, or read from the
//! tier without it. A page can move while its tier copy is read (its slot is
//! then free for others), so bytes that fail their checksum are looked up again
//! and only those that fail twice at the same place are corrupt.

use std::cell::RefCell;

use zcache_core::{CodecId, Found, Key, TierRange};

use super::counts::add;
use super::reclaim::Swap;
use super::{Part, Store};
use crate::codec::{self, Kind};
use crate::error::{LoadError, PageName};
use crate::page::{Handle, PAGE_SIZE, Page};
use crate::tier::{SECTOR_SIZE, TierError, TierRead};

/// How often a page may move under its reader before the load gives up with
/// `EBUSY`. A move takes two transfers of the tier, so even one is rare.
const RELOCATIONS_MAX: u32 = 64;

/// The error number for the case above.
const EBUSY: i32 = 16;

/// A zpage's tags.
#[derive(Clone, Copy)]
pub(super) struct Tags {
    codec: CodecId,
    checksum: u32,
}

/// What a lookup found, with the bytes copied out.
pub(super) enum Seen {
    Gone,
    Same { word: u64 },
    Copied { tags: Tags, len: usize },
    InTier { tags: Tags, at: TierRange },
}

thread_local! {
    /// Where zpages are copied to under the lock.
    static COPY: RefCell<Box<Page>> = RefCell::new(Box::new([0; PAGE_SIZE]));
}

impl Store {
    /// Gives back a stored page and keeps it. Reads the tier if it must.
    ///
    /// # Errors
    /// [`LoadError`]; `out` then holds bytes of no meaning.
    pub fn load(&self, handle: Handle, out: &mut Page) -> Result<(), LoadError> {
        add(&self.counts.loads, 1);
        self.fetch(PageName::Handle(handle), out)
    }

    /// Whether a load would need no read of the tier. False for a handle that
    /// names no page.
    #[must_use]
    pub fn in_ram(&self, handle: Handle) -> bool {
        let (part, token) = self.part_of(handle);
        matches!(
            part.core.load(&part.frames, token),
            Some(Found::Same { .. } | Found::InRam { .. })
        )
    }

    /// Gives back the page of this name.
    pub(super) fn fetch(&self, name: PageName, out: &mut Page) -> Result<(), LoadError> {
        let mut failed: Option<(TierRange, LoadError)> = None;
        for _ in 0..RELOCATIONS_MAX {
            let seen = COPY.with_borrow_mut(|copy| {
                let seen = self.look(name, copy);
                if let Seen::Copied { tags, len } = seen {
                    return Err(self.finish(name, tags, &copy[..len], out));
                }
                Ok(seen)
            });
            let (tags, at) = match seen {
                Err(result) => return result,
                Ok(Seen::Gone | Seen::Copied { .. }) => return Err(LoadError::Gone),
                Ok(Seen::Same { word }) => {
                    out.as_chunks_mut::<8>().0.fill(word.to_le_bytes());
                    return Ok(());
                }
                Ok(Seen::InTier { tags, at }) => (tags, at),
            };
            if let Some((place, error)) = failed {
                if place == at {
                    return Err(self.lose(error));
                }
                add(&self.counts.relocations, 1);
            }
            match self.read_zpage(name, tags, at, out) {
                Ok(()) => return Ok(()),
                Err(error) => failed = Some((at, error)),
            }
        }
        Err(LoadError::Io {
            page: name,
            errno: EBUSY,
        })
    }

    /// Looks a page up and copies its bytes if they are in RAM.
    pub(super) fn look(&self, name: PageName, copy: &mut Page) -> Seen {
        match name {
            PageName::Handle(handle) => {
                let (part, token) = self.part_of(handle);
                seen(part.core.load(&part.frames, token), copy)
            }
            PageName::Key(key) => {
                let mut part = self.part(self.shard_of_key(&key));
                part.look_key(&key, copy)
            }
        }
    }

    /// Verifies and decodes the bytes of a zpage.
    pub(super) fn finish(
        &self,
        page: PageName,
        tags: Tags,
        bytes: &[u8],
        out: &mut Page,
    ) -> Result<(), LoadError> {
        check(page, tags, bytes)
            .and_then(|kind| {
                codec::decode(kind, bytes, out).map_err(|_| LoadError::Corrupt { page })
            })
            .map_err(|error| self.lose(error))
    }

    /// Counts and announces a page that cannot be given back.
    pub(super) fn lose(&self, error: LoadError) -> LoadError {
        match error {
            LoadError::Gone => return error,
            LoadError::Checksum { .. } | LoadError::Corrupt { .. } => {
                add(&self.counts.checksum_errors, 1);
            }
            LoadError::Io { .. } => add(&self.counts.read_errors, 1),
        }
        self.events.page_lost(error);
        error
    }

    /// Reads one zpage from the tier, verifies and decodes it. Errors are not
    /// counted yet, for the page may have moved.
    pub(super) fn read_zpage(
        &self,
        page: PageName,
        tags: Tags,
        at: TierRange,
        out: &mut Page,
    ) -> Result<(), LoadError> {
        let io = |errno| LoadError::Io { page, errno };
        let swap = self.swap.as_ref().ok_or(LoadError::Corrupt { page })?;
        let mut buffer = swap
            .page_buffers
            .lend()
            .map_err(|error| io(TierError::from(&error).errno))?;
        let (offset_bytes, sectors, skip) = swap.sectors_of(at);
        let mut read = [TierRead {
            offset_bytes,
            bytes: &mut buffer.bytes_mut()[..sectors * SECTOR_SIZE],
            result: Err(TierError::IO),
        }];
        swap.tier.read(&mut read);
        add(&self.counts.swapin_reads, 1);
        let [read] = read;
        read.result.map_err(|error| io(error.errno))?;
        let bytes = &read.bytes[skip..skip + at.len_bytes as usize];
        let kind = check(page, tags, bytes)?;
        codec::decode(kind, bytes, out).map_err(|_| LoadError::Corrupt { page })?;
        add(&self.counts.swapin_pages, 1);
        Ok(())
    }
}

impl Part {
    /// Looks up the page of a key; a hit makes its block the youngest.
    pub(super) fn look_key(&mut self, key: &Key, copy: &mut Page) -> Seen {
        let seen = seen(self.core.get(&self.frames, key), copy);
        if matches!(seen, Seen::Copied { .. }) {
            self.core.touch_page(&mut self.frames, key);
        }
        seen
    }
}

impl Swap {
    /// Where in the tier a zpage's sectors begin, how many there are, and how
    /// far into them the zpage begins.
    pub(super) fn sectors_of(&self, at: TierRange) -> (u64, usize, usize) {
        let first = at.offset_bytes as usize / SECTOR_SIZE;
        let end = (at.offset_bytes + at.len_bytes) as usize;
        let start = self.offset_bytes(at.slot) + (first * SECTOR_SIZE) as u64;
        let skip = at.offset_bytes as usize - first * SECTOR_SIZE;
        (start, end.div_ceil(SECTOR_SIZE) - first, skip)
    }
}

/// Copies what a lookup found, so that the lock can go.
fn seen(found: Option<Found<'_>>, copy: &mut Page) -> Seen {
    match found {
        None => Seen::Gone,
        Some(Found::Same { word }) => Seen::Same { word },
        Some(Found::InRam {
            bytes,
            codec,
            checksum,
        }) => {
            copy[..bytes.len()].copy_from_slice(bytes);
            Seen::Copied {
                tags: Tags { codec, checksum },
                len: bytes.len(),
            }
        }
        Some(Found::InTier {
            at,
            codec,
            checksum,
        }) => Seen::InTier {
            tags: Tags { codec, checksum },
            at,
        },
    }
}

/// Verifies the bytes of a zpage and says what they are.
pub(super) fn check(page: PageName, tags: Tags, bytes: &[u8]) -> Result<Kind, LoadError> {
    let kind = Kind::from_bits(tags.codec.get()).ok_or(LoadError::Corrupt { page })?;
    let found = codec::checksum(kind, bytes);
    if found == tags.checksum {
        Ok(kind)
    } else {
        Err(LoadError::Checksum {
            page,
            expected: tags.checksum,
            found,
        })
    }
}
