//! One page back: look up, copy or read, verify, decode.
//!
//! The bytes of a zpage are copied out under the shard's lock, or read from the
//! tier without it. A page can move while its tier copy is read (its slot is
//! then free for others), so after a failed read it is looked up again, and only
//! one that is still where two reads failed is lost.

mod many;
mod run;

use std::time::Instant;

use zcache_core::{Found, Key, TierRange};

use crate::error::{LoadError, PageName};
use crate::lend;
use crate::page::{Handle, Page};
use crate::store::Store;
use crate::store::coding::dictionaries::{Coding, Dictionaries};
use crate::store::coding::tags::{Tags, Unreadable};
use crate::store::counts::add;
use crate::store::part::Part;
use crate::store::reclaim::swap::Swap;
use crate::tier::{SECTOR_SIZE, TierError, TierRead};

/// Reads of one place after which its page is lost, if it is still there.
const READS_MAX: u32 = 2;

/// What a read that failed without a number of the system's is told as.
const EIO: i32 = 5;

/// How often a page may move under its reader before the load gives up with
/// [`LoadError::Busy`]. A move takes two transfers of the tier, so even one is rare.
const RELOCATIONS_MAX: u32 = 64;

/// What a lookup found, with the bytes copied out.
pub(in crate::store) enum Seen {
    Gone,
    /// The records that say where it is are damaged.
    Damaged,
    Same {
        word: u64,
    },
    Copied {
        tags: Tags,
        len: usize,
    },
    InTier {
        tags: Tags,
        at: TierRange,
    },
}

/// A place in the tier that a page was read from in vain, how that ended last,
/// and how often it did.
#[derive(Default)]
pub(in crate::store) struct Suspect(Option<(TierRange, LoadError, u32)>);

impl Suspect {
    pub(in crate::store) fn failed(&mut self, at: TierRange, error: LoadError) {
        let failures = self.0.map_or(0, |(_, _, failures)| failures);
        self.0 = Some((at, error, failures + 1));
    }
}

impl Store {
    /// Gives back a stored page and keeps it. Reads the tier if it must.
    ///
    /// # Errors
    /// [`LoadError`]; `out` then holds bytes of no meaning.
    pub fn load(&self, handle: Handle, out: &mut Page) -> Result<(), LoadError> {
        let result = self.fetch(PageName::Handle(handle), out);
        self.counts.asked([result.map(|()| true)]);
        result
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

    /// Gives back the page of this name and keeps it.
    pub(in crate::store) fn fetch(&self, name: PageName, out: &mut Page) -> Result<(), LoadError> {
        self.fetch_with(name, out, |copy| self.look(name, copy), |_| true)
    }

    /// Gives back the page of this name. `look` looks it up as
    /// [`look`](Store::look) does; `is_there` says of a place that was read from
    /// the tier, without the lock, whether what it held is still the page.
    pub(in crate::store) fn fetch_with(
        &self,
        name: PageName,
        out: &mut Page,
        look: impl Fn(&mut Page) -> Seen,
        is_there: impl Fn(TierRange) -> bool,
    ) -> Result<(), LoadError> {
        let mut suspect = Suspect::default();
        for _ in 0..RELOCATIONS_MAX {
            let mut copy = lend::room();
            let (tags, at) = match look(copy.page_mut()) {
                Seen::Gone => return Err(LoadError::Gone),
                Seen::Damaged => return Err(self.lose(LoadError::Corrupt { page: name })),
                Seen::Same { word } => {
                    out.as_chunks_mut::<8>().0.fill(word.to_le_bytes());
                    return Ok(());
                }
                Seen::Copied { tags, len } => {
                    return self.finish(name, &tags, &copy.bytes()[..len], out);
                }
                Seen::InTier { tags, at } => (tags, at),
            };
            // A transfer takes long.
            drop(copy);
            if let Some(error) = self.verdict(&mut suspect, at) {
                return Err(self.lose(error));
            }
            match self.read_zpage(name, &tags, at, suspect.0.is_some(), out) {
                Ok(()) if is_there(at) => return Ok(()),
                Ok(()) => add(&self.counts.relocations, 1),
                Err(error) => suspect.failed(at, error),
            }
        }
        Err(LoadError::Busy { page: name })
    }

    /// Whether a page that is still, or now, at this place is lost.
    pub(in crate::store) fn verdict(
        &self,
        suspect: &mut Suspect,
        at: TierRange,
    ) -> Option<LoadError> {
        let (place, error, failures) = suspect.0?;
        if place != at {
            add(&self.counts.relocations, 1);
            suspect.0 = None;
            return None;
        }
        (failures >= READS_MAX).then_some(error)
    }

    /// Looks a page up and copies its bytes if they are in RAM.
    pub(in crate::store) fn look(&self, name: PageName, copy: &mut Page) -> Seen {
        match name {
            PageName::Handle(handle) => {
                let (mut part, token) = self.part_of(handle);
                let Part { core, frames, .. } = &mut *part;
                match seen(core.load(frames, token), &self.dictionaries, copy) {
                    Seen::Damaged => {
                        // What the records can tell, they tell after a repair.
                        core.touch(frames, token);
                        seen(core.load(frames, token), &self.dictionaries, copy)
                    }
                    seen => seen,
                }
            }
            PageName::Key(key) => {
                let mut part = self.part(self.shard_of_key(&key));
                part.look_key(&key, &self.dictionaries, copy)
            }
        }
    }

    /// Verifies and decodes the bytes of a zpage in RAM, and announces what is
    /// lost. Some of these are timed.
    pub(in crate::store) fn finish(
        &self,
        page: PageName,
        tags: &Tags,
        bytes: &[u8],
        out: &mut Page,
    ) -> Result<(), LoadError> {
        let costs = &self.fresh.costs;
        let start = costs.is_load_timed().then(Instant::now);
        let unpacked = unpack(page, tags, None, bytes, out);
        if let (Some(start), Some(coding)) = (start, Coding::of(tags.codec)) {
            costs.decoded(coding.kind, start.elapsed());
        }
        unpacked.map_err(|error| self.lose(error))
    }

    /// Announces a page that cannot be given back.
    pub(in crate::store) fn lose(&self, error: LoadError) -> LoadError {
        if !matches!(error, LoadError::Gone | LoadError::Busy { .. }) {
            self.events.page_lost(error);
        }
        error
    }

    /// Reads one zpage from the tier, verifies and decodes it; from another copy, if
    /// there is one, `again`. Errors are not counted yet, for the page may have moved.
    pub(in crate::store) fn read_zpage(
        &self,
        page: PageName,
        tags: &Tags,
        at: TierRange,
        again: bool,
        out: &mut Page,
    ) -> Result<(), LoadError> {
        let swap = self.swap.as_ref().ok_or(LoadError::Corrupt { page })?;
        let (offset_bytes, sectors, skip) = swap.sectors_of(at);
        let missing = LoadError::Missing { page, offset_bytes };
        let failed = |error| unread(page, offset_bytes, error);
        let mut buffer = swap
            .page_buffers
            .lend()
            .map_err(|error| failed(TierError::from(&error)))?;
        let mut read = [TierRead {
            offset_bytes,
            bytes: &mut buffer.bytes_mut()[..sectors * SECTOR_SIZE],
            result: Err(TierError::IO),
        }];
        match again {
            false => swap.read(&mut read),
            true => swap.read_again(&mut read),
        }
        add(&self.counts.swapin_reads, 1);
        let [read] = read;
        read.result.map_err(failed)?;
        let bytes = &read.bytes[skip..skip + at.len_bytes as usize];
        unpack(page, tags, Some(offset_bytes), bytes, out).map_err(|error| {
            // A file that was cut off and then grew again reads as zeros there.
            match read.bytes.iter().all(|byte| *byte == 0) {
                true => missing,
                false => error,
            }
        })?;
        add(&self.counts.swapin_pages, 1);
        Ok(())
    }
}

impl Part {
    /// Looks up the page of a key; a hit makes its block the youngest.
    pub(in crate::store) fn look_key(
        &mut self,
        key: &Key,
        dictionaries: &Dictionaries,
        copy: &mut Page,
    ) -> Seen {
        let first = seen(self.core.get(&self.frames, key), dictionaries, copy);
        match first {
            Seen::Gone | Seen::Same { .. } => first,
            Seen::Copied { .. } | Seen::InTier { .. } => {
                self.core.touch_page(&mut self.frames, key);
                first
            }
            Seen::Damaged => {
                // What the records can tell, they tell after a repair.
                self.core.touch_page(&mut self.frames, key);
                seen(self.core.get(&self.frames, key), dictionaries, copy)
            }
        }
    }
}

impl Swap {
    /// Where in the tier a zpage's sectors begin, how many there are, and how
    /// far into them the zpage begins.
    pub(in crate::store) fn sectors_of(&self, at: TierRange) -> (u64, usize, usize) {
        let first = at.offset_bytes as usize / SECTOR_SIZE;
        let end = (at.offset_bytes + at.len_bytes) as usize;
        let start = self.offset_bytes(at.slot) + (first * SECTOR_SIZE) as u64;
        let skip = at.offset_bytes as usize - first * SECTOR_SIZE;
        (start, end.div_ceil(SECTOR_SIZE) - first, skip)
    }
}

/// Copies what a lookup found, so that the lock can go.
fn seen(found: Option<Found<'_>>, dictionaries: &Dictionaries, copy: &mut Page) -> Seen {
    let tags = |codec, checksum| Tags::new(codec, checksum, dictionaries);
    match found {
        None => Seen::Gone,
        Some(Found::Damaged) => Seen::Damaged,
        Some(Found::Same { word }) => Seen::Same { word },
        Some(Found::InRam {
            bytes,
            codec,
            checksum,
        }) => {
            copy[..bytes.len()].copy_from_slice(bytes);
            Seen::Copied {
                tags: tags(codec, checksum),
                len: bytes.len(),
            }
        }
        Some(Found::InTier {
            at,
            codec,
            checksum,
        }) => Seen::InTier {
            tags: tags(codec, checksum),
            at,
        },
    }
}

/// What a read of this place in the tier that failed means for its page.
fn unread(page: PageName, offset_bytes: u64, error: TierError) -> LoadError {
    match error {
        TierError::CutOff | TierError::Lost => LoadError::Missing { page, offset_bytes },
        TierError::Nested => LoadError::Busy { page },
        error => LoadError::Io {
            page,
            errno: error.errno().unwrap_or(EIO),
            offset_bytes,
        },
    }
}

/// Verifies and decodes the bytes of a zpage, which came from this place in the
/// tier or from RAM.
pub(in crate::store) fn unpack(
    page: PageName,
    tags: &Tags,
    offset_bytes: Option<u64>,
    bytes: &[u8],
    out: &mut Page,
) -> Result<(), LoadError> {
    tags.decode(bytes, out)
        .map_err(|unreadable| match unreadable {
            Unreadable::Corrupt => LoadError::Corrupt { page },
            Unreadable::Checksum { found } => LoadError::Checksum {
                page,
                expected: tags.checksum,
                found,
                offset_bytes,
            },
        })
}
