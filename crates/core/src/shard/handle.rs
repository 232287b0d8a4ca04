//! Pages addressed by handle: a refcounted entry, no key and no hash.
//!
//! Stage on the data path: the pager's door. A handle's page is persistent.
//!
//! Invariants: `references == 1 + retains - releases`, and the page is freed when that reaches 0.
//!
//! Does not: trust a handle. One that was released is found out while its record is free; once the record is another
//! handle's, the two are the same handle.

use super::Shard;
use super::place::Address;
use crate::exchange::{Found, Refused, Zpage};
use crate::frames::Frames;
use crate::ids::EntryToken;
use crate::tables::Checked;
use crate::tables::entry::{Entry, Owner, REFERENCES_MAX};

impl Shard {
    /// Stores a page under a new handle with one reference; the page is persistent.
    ///
    /// # Errors
    /// Why it was not stored; nothing has changed then.
    pub fn insert(
        &mut self,
        frames: &mut impl Frames,
        page: Zpage<'_>,
    ) -> Result<EntryToken, Refused> {
        self.store(frames, Address::Handle, page)
    }

    /// Where the page of a handle is; `None` when there is no such handle. The page stays, and does not get younger.
    pub fn load<'f, F: Frames>(&self, frames: &'f F, entry: EntryToken) -> Option<Found<'f>> {
        match self.handle(frames, entry) {
            Ok(None) => None,
            Ok(Some((entry, _))) => Some(self.found(frames, &entry)),
            Err(_) => Some(Found::Damaged),
        }
    }

    /// One more reference; false when there is no such handle. One that comes to have 2^25 - 1 keeps its page for ever.
    pub fn retain(&mut self, frames: &mut impl Frames, entry: EntryToken) -> bool {
        self.sound(frames, |shard, frames| {
            let Some((handle, references)) = shard.handle(frames, entry)? else {
                return Ok(false);
            };
            if references < REFERENCES_MAX {
                shard.set_references(frames, entry, &handle, references + 1)?;
            }
            Ok(true)
        })
        .unwrap_or(true)
    }

    /// One reference less; at zero the page is freed. The references left, or `None` when there is no such handle.
    pub fn release(&mut self, frames: &mut impl Frames, entry: EntryToken) -> Option<u32> {
        self.sound(frames, |shard, frames| {
            let Some((handle, references)) = shard.handle(frames, entry)? else {
                return Ok(None);
            };
            let left = references.saturating_sub(1);
            if left == 0 {
                shard.remove_entry(frames, entry, &handle)?;
                shard.counters.released += 1;
            } else if references < REFERENCES_MAX {
                shard.set_references(frames, entry, &handle, left)?;
            }
            Ok(Some(left))
        })
        .unwrap_or(Some(REFERENCES_MAX))
    }

    /// Makes the block of a handle's page the youngest of its kind, where it is in RAM.
    pub fn touch(&mut self, frames: &mut impl Frames, entry: EntryToken) {
        // Damage that could not be made good is told by whoever loads the page.
        let _ = self.sound(frames, |shard, frames| {
            let handle = shard.handle(frames, entry)?;
            match handle.and_then(|(handle, _)| handle.span()) {
                Some(span) => shard.refresh(frames, span.block),
                None => Ok(()),
            }
        });
    }

    fn set_references<F: Frames>(
        &mut self,
        frames: &mut F,
        token: EntryToken,
        handle: &Entry,
        references: u32,
    ) -> Checked<()> {
        let owner = Owner::Handle { references };
        self.entries
            .write(frames, token, &Entry { owner, ..*handle })
    }

    fn handle<F: Frames>(&self, frames: &F, token: EntryToken) -> Checked<Option<(Entry, u32)>> {
        let entry = self.entries.read(frames, token)?;
        Ok(entry.and_then(|entry| match entry.owner {
            Owner::Handle { references } => Some((entry, references)),
            Owner::Key { .. } => None,
        }))
    }
}
