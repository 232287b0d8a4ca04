//! The kernel's side of one address space, simulated: what is mapped, watched and there, the shadow, the pen, and a servant
//! that may take its time. Every step that Linux makes by itself (a page that moves, a page that is dropped) is one.
//!
//! Does not: count memory, or know of protections and of sharing.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use shuttle::rand::RngCore;
use zcache::{PAGE_SIZE, Page};
use zcache_sys::servant::ServantError;
use zcache_sys::uffd::Outcome;
use zcache_sys::vma::Mapping;

use crate::budget::PAGE_BYTES;
use crate::space::Move;
use crate::space::hands::{Hands, PEN_PAGES};
use crate::space::page_table::{Slot, Vpn};
use crate::sync::{Mutex, MutexGuard, lock};

/// Where the shadow and the pen lie, in pages.
const SHADOW: u64 = 1 << 30;
const PEN: u64 = 1 << 31;

/// What a page holds; 0 for zeros. Odd ones do not shrink.
pub(super) type Tag = u64;

/// A number below `end` that belongs to the schedule.
pub(super) fn drawn(end: u64) -> u64 {
    shuttle::rand::thread_rng().next_u64() % end
}

fn bytes_of(tag: Tag) -> Page {
    let mut page = [0; PAGE_SIZE];
    if tag % 2 == 1 {
        let mut state = tag;
        for word in page.as_chunks_mut::<8>().0 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *word = state.to_le_bytes();
        }
    }
    page[..8].copy_from_slice(&tag.to_le_bytes());
    page
}

fn tag_of(page: &Page) -> Tag {
    let tag = u64::from_le_bytes(std::array::from_fn(|at| page[at]));
    assert!(*page == bytes_of(tag), "a page of two halves: {tag}");
    tag
}

#[derive(Clone, Copy)]
struct Mapped {
    watched: bool,
    /// What pages with no access but reading and writing have, and others have not.
    plain: bool,
    holds: Option<Tag>,
}

#[derive(Default)]
struct State {
    pages: BTreeMap<u64, Mapped>,
    shadow: BTreeMap<u64, Tag>,
    pen: BTreeMap<u64, Tag>,
    /// Moves under way: copies are refused meanwhile.
    moving: u32,
}

enum Batch {
    Move(Vec<Move>, bool),
    Free(u64, u64),
    Pen(u64, u64),
    EmptyPen,
}

/// What became of a touch.
pub(super) enum Touch {
    Holds(Tag),
    /// The pager has to be asked.
    Fault,
    /// Nothing is mapped there.
    Nothing,
}

/// See the module's description.
#[derive(Clone, Default)]
pub(super) struct Linux {
    state: Arc<Mutex<State>>,
    /// Batches that the servant was given and has not done. It does one at a time.
    late: Arc<Mutex<VecDeque<Batch>>>,
}

impl Linux {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Memory as `mmap` makes it: nobody watches it yet.
    pub(super) fn map(&self, range: Range<u64>, plain: bool) {
        let fresh = Mapped {
            watched: false,
            plain,
            holds: None,
        };
        let mut state = self.state();
        state.pages.extend(range.map(|page| (page, fresh)));
    }

    pub(super) fn unmap(&self, range: Range<u64>) {
        let mut state = self.state();
        state.pages.retain(|page, _| !range.contains(page));
    }

    /// Drops contents, page by page.
    pub(super) fn drop_contents(&self, range: Range<u64>) {
        for page in range {
            if let Some(mapped) = self.state().pages.get_mut(&page) {
                mapped.holds = None;
            }
        }
    }

    /// Moves a mapping to where nothing is, page by page.
    pub(super) fn remap(&self, old: Range<u64>, new: u64) {
        let to = |page: u64| page - old.start + new;
        {
            let mut state = self.state();
            state.moving += 1;
            for page in old.clone() {
                let before = state.pages[&page];
                let empty = Mapped {
                    holds: None,
                    ..before
                };
                state.pages.insert(to(page), empty);
            }
        }
        for page in old.clone() {
            let mut state = self.state();
            let holds = state
                .pages
                .get_mut(&page)
                .and_then(|from| from.holds.take());
            state.pages.get_mut(&to(page)).expect("mapped above").holds = holds;
        }
        self.unmap(old);
        self.state().moving -= 1;
    }

    /// The address space of a child: its pages, and nothing of the pager's.
    pub(super) fn fork(&self) -> Linux {
        let state = self.state();
        let unwatched = |(page, mapped): (&u64, &Mapped)| {
            let mapped = Mapped {
                watched: false,
                ..*mapped
            };
            (*page, mapped)
        };
        let child = State {
            pages: state.pages.iter().map(unwatched).collect(),
            ..State::default()
        };
        Linux {
            state: Arc::new(Mutex::new(child)),
            late: Arc::default(),
        }
    }

    /// A touch by the program: reads, or writes `value`.
    pub(super) fn touch(&self, page: u64, value: Option<Tag>) -> Touch {
        let mut state = self.state();
        let Some(mapped) = state.pages.get_mut(&page) else {
            return Touch::Nothing;
        };
        if mapped.holds.is_none() && mapped.watched {
            return Touch::Fault;
        }
        let held = mapped.holds.unwrap_or(0);
        mapped.holds = Some(value.unwrap_or(held));
        Touch::Holds(held)
    }

    /// Whether RAM is left in the shadow.
    pub(super) fn shadow_pages(&self) -> u64 {
        self.state().shadow.len() as u64
    }

    fn run(&self, batch: Batch) {
        match batch {
            Batch::Move(moves, populate) => {
                for one in moves {
                    self.move_one(one, populate);
                }
            }
            Batch::Free(first, count) => {
                for slot in first..first + count {
                    self.state().shadow.remove(&slot);
                }
            }
            Batch::Pen(first, count) => {
                self.state().moving += 1;
                for ahead in 0..count {
                    let mut state = self.state();
                    let page = state.pages.get_mut(&(first + ahead));
                    if let Some(tag) = page.and_then(|page| page.holds.take()) {
                        state.pen.insert(ahead, tag);
                    }
                }
                self.state().moving -= 1;
            }
            Batch::EmptyPen => self.state().pen.clear(),
        }
    }

    /// `UFFDIO_MOVE` goes on to the first page that it cannot move.
    fn move_one(&self, one: Move, populate: bool) {
        for ahead in 0..one.count {
            let mut state = self.state();
            let slot = u64::from(one.slot.0) + ahead;
            if state.shadow.contains_key(&slot) {
                return;
            }
            // Now and then a page counts as shared until it was written.
            if !populate && drawn(8) == 0 {
                return;
            }
            let Some(page) = state.pages.get_mut(&(one.page.0 + ahead)) else {
                return;
            };
            if !page.plain {
                return;
            }
            let Some(tag) = page.holds.take() else { return };
            state.shadow.insert(slot, tag);
        }
    }

    /// Gives the servant a batch, which it does at once or later.
    fn command(&self, batch: Batch) -> Result<(), ServantError> {
        let mut late = lock(&self.late);
        if self.catch_up(&mut late).is_err() {
            return Err(ServantError::Busy);
        }
        late.push_back(batch);
        if drawn(6) == 0 {
            return Err(ServantError::Stuck);
        }
        self.do_first(&mut late);
        Ok(())
    }

    fn do_first(&self, late: &mut VecDeque<Batch>) {
        if let Some(batch) = late.pop_front() {
            self.run(batch);
        }
    }

    fn catch_up(&self, late: &mut VecDeque<Batch>) -> Result<(), ServantError> {
        while !late.is_empty() {
            if drawn(2) == 0 {
                return Err(ServantError::Stuck);
            }
            self.do_first(late);
        }
        Ok(())
    }

    fn holds(&self, page: u64) -> bool {
        let state = self.state();
        match page {
            PEN.. => state.pen.contains_key(&(page - PEN)),
            SHADOW.. => state.shadow.contains_key(&(page - SHADOW)),
            _ => state
                .pages
                .get(&page)
                .is_some_and(|page| page.holds.is_some()),
        }
    }
}

impl Hands for Linux {
    fn copy(&self, first: Vpn, pages: &[Page]) -> Outcome {
        for (ahead, page) in pages.iter().enumerate() {
            let mut state = self.state();
            let stopped = |errno| Outcome::Stopped {
                bytes: ahead as u64 * PAGE_BYTES,
                errno,
            };
            if state.moving > 0 {
                return stopped(libc::EAGAIN);
            }
            match state.pages.get_mut(&(first.0 + ahead as u64)) {
                Some(Mapped { holds: Some(_), .. }) => return stopped(libc::EEXIST),
                Some(mapped) if mapped.watched => mapped.holds = Some(tag_of(page)),
                _ => return stopped(libc::ENOENT),
            }
        }
        Outcome::Done
    }

    fn wake(&self, _first: Vpn, _count: u64) {}

    fn poison(&self, page: Vpn) -> io::Result<()> {
        panic!("page {page:?} is lost")
    }

    fn register(&self, range: Range<u64>) -> io::Result<()> {
        let mut state = self.state();
        for (_, mapped) in state.pages.range_mut(range) {
            mapped.watched = true;
        }
        Ok(())
    }

    fn unregister(&self, range: Range<u64>) -> io::Result<()> {
        let mut state = self.state();
        for (_, mapped) in state.pages.range_mut(range) {
            mapped.watched = false;
        }
        Ok(())
    }

    fn present(&self, first: Vpn, count: u64) -> Option<Vec<bool>> {
        Some(
            (first.0..first.0 + count)
                .map(|page| self.holds(page))
                .collect(),
        )
    }

    fn residents(&self, range: Range<u64>) -> io::Result<Vec<Range<u64>>> {
        let there = range.filter(|page| self.holds(*page));
        Ok(there.map(|page| page..page + 1).collect())
    }

    fn pageable(&self) -> io::Result<Vec<Vec<Range<u64>>>> {
        let state = self.state();
        Ok(state
            .pages
            .keys()
            .map(|page| std::iter::once(*page..page + 1).collect())
            .collect())
    }

    fn mappings_of(&self, pages: &[Vpn]) -> io::Result<Vec<Mapping>> {
        let mut all = self.mappings(false)?;
        all.retain(|one| pages.iter().any(|page| one.range.contains(&page.address())));
        Ok(all)
    }

    fn mappings(&self, _flags: bool) -> io::Result<Vec<Mapping>> {
        let state = self.state();
        let mapping = |(page, mapped): (&u64, &Mapped)| Mapping {
            range: page * PAGE_BYTES..(page + 1) * PAGE_BYTES,
            access: [true, mapped.plain, false],
            private: true,
            inode: 0,
            name: String::new(),
            locked: false,
            special: false,
            wiped: false,
            sealed: false,
        };
        Ok(state.pages.iter().map(mapping).collect())
    }

    fn can_evict(&self) -> bool {
        true
    }

    fn move_out(&self, moves: &[Move], populate: bool) -> Result<(), ServantError> {
        self.command(Batch::Move(moves.to_vec(), populate))
    }

    fn move_locked(&self, moves: &[Move]) -> Result<(), ServantError> {
        self.move_out(moves, true)
    }

    fn slot_page(&self, slot: Slot) -> Vpn {
        Vpn(SHADOW + u64::from(slot.0))
    }

    fn read_slots(&self, first: Slot, buffer: &mut [u8]) -> io::Result<usize> {
        let mut read = 0;
        for (ahead, page) in buffer.as_chunks_mut::<PAGE_SIZE>().0.iter_mut().enumerate() {
            let state = self.state();
            let Some(tag) = state.shadow.get(&(u64::from(first.0) + ahead as u64)) else {
                break;
            };
            *page = bytes_of(*tag);
            read += PAGE_SIZE;
        }
        match read {
            0 => Err(io::Error::from_raw_os_error(libc::EIO)),
            _ => Ok(read),
        }
    }

    fn free_slots(&self, first: Slot, count: u64) -> Result<(), ServantError> {
        self.command(Batch::Free(u64::from(first.0), count))
    }

    fn pen(&self, first: Vpn, count: u64, _lock: Option<&Range<u64>>) -> Result<(), ServantError> {
        self.command(Batch::Pen(first.0, count.min(PEN_PAGES)))
    }

    fn pen_present(&self, count: u64) -> Option<Vec<bool>> {
        self.present(Vpn(PEN), count)
    }

    fn read_pen(&self, index: u64, page: &mut Page) -> io::Result<usize> {
        let tag = self.state().pen.get(&index).copied();
        *page = bytes_of(tag.ok_or(io::ErrorKind::NotFound)?);
        Ok(PAGE_SIZE)
    }

    fn empty_pen(&self) -> Result<(), ServantError> {
        self.command(Batch::EmptyPen)
    }

    fn finish(&self, _patience: Duration) -> Result<(), ServantError> {
        self.catch_up(&mut lock(&self.late))
    }
}
