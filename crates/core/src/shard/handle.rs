//! Pages addressed by handle: a refcounted entry, no key and no hash.
//!
//! Stage on the data path: the pager's door. A handle's page is persistent.
//!
//! Invariants: `references == 1 + retains - releases`, and the page is freed when that reaches 0.
//!
//! Does not: trust a handle. One that was released is found out while its record is free or belongs to a key; once the
//! record is another handle's, the two are the same handle.

use super::Shard;
use super::place::Owner;
use crate::entry::Entry;
use crate::frames::Frames;
use crate::ids::{EntryToken, Found, Refused, Zpage};
use crate::index::Chained;

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
        self.store(frames, Owner::Handle, page).map(EntryToken)
    }

    /// Where the page of a handle is; `None` when there is no such handle. The page stays, and does not get younger.
    pub fn load<'f, F: Frames>(&self, frames: &'f F, entry: EntryToken) -> Option<Found<'f>> {
        Some(self.found(frames, &self.handle(frames, entry)?))
    }

    /// One more reference; false when there is no such handle, or it has 2^32 - 1 references already.
    pub fn retain(&mut self, frames: &mut impl Frames, entry: EntryToken) -> bool {
        let references = self
            .handle(frames, entry)
            .and_then(|handle| handle.link.checked_add(1));
        if let Some(references) = references {
            self.entries.set_link(frames, entry.0, references);
        }
        references.is_some()
    }

    /// One reference less; at zero the page is freed. The references left, or `None` when there is no such handle.
    pub fn release(&mut self, frames: &mut impl Frames, entry: EntryToken) -> Option<u32> {
        let handle = self.handle(frames, entry)?;
        let left = handle.link - 1;
        if left == 0 {
            self.remove_entry(frames, entry.0, &handle);
            self.counters.released += 1;
        } else {
            self.entries.set_link(frames, entry.0, left);
        }
        Some(left)
    }

    /// Makes the block of a handle's page the youngest of its kind, where it is in RAM.
    pub fn touch(&mut self, frames: &mut impl Frames, entry: EntryToken) {
        if let Some(span) = self.handle(frames, entry).and_then(|handle| handle.span()) {
            self.refresh(frames, span.block);
        }
    }

    fn handle<F: Frames>(&self, frames: &F, entry: EntryToken) -> Option<Entry> {
        self.entries.read(frames, entry.0).filter(Entry::is_handle)
    }
}
