//! A thread of a program with memory of its own, and what that must hold: the naive model. Its calls take the way that the
//! tracer has them take; its faults are served as a handler does.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use shuttle::thread::yield_now;

use super::linux::{Linux, Tag, Touch, drawn};
use crate::budget::PAGE_BYTES;
use crate::pager::Pager;
use crate::paging::fault::Handler;
use crate::space::Space;
use crate::space::page_table::Vpn;
use crate::syscalls::mapping::Behind;

/// Pages of each of a thread's places, between which its mappings move.
const PLACE_PAGES: u64 = 12;
const PLACES: u64 = 3;
/// Pages that are looked at by others, and how often each is tried.
const LOOKS: u64 = 200;
const TRIES: u64 = 3;

/// Reads whatever other threads have, which may go or move meanwhile: so pages come where calls are under way.
pub(super) fn look_around(pager: &Arc<Pager>, space: &Arc<Space>, linux: &Linux, threads: u64) {
    let mut handler = Handler::new(Arc::clone(pager), 0);
    for _ in 0..LOOKS {
        let page = first_page(drawn(threads)) + drawn(PLACES * PLACE_PAGES);
        for _ in 0..TRIES {
            match linux.touch(page, None) {
                Touch::Holds(_) | Touch::Nothing => break,
                Touch::Fault => handler.fault(space, Vpn(page)),
            }
            yield_now();
        }
    }
}

/// Where the memory of a thread begins.
fn first_page(thread: u64) -> u64 {
    0x1000 * (thread + 1)
}

/// See the module's description.
pub(super) struct Program {
    linux: Linux,
    pager: Arc<Pager>,
    space: Arc<Space>,
    handler: Handler,
    first: u64,
    /// What each mapped page holds.
    model: BTreeMap<u64, Tag>,
    next_tag: Tag,
}

impl Program {
    pub(super) fn new(pager: &Arc<Pager>, space: &Arc<Space>, linux: &Linux, number: u64) -> Self {
        Program {
            linux: linux.clone(),
            pager: Arc::clone(pager),
            space: Arc::clone(space),
            handler: Handler::new(Arc::clone(pager), 0),
            first: first_page(number),
            model: BTreeMap::new(),
            next_tag: number << 32 | 1,
        }
    }

    fn place(&self, number: u64) -> Range<u64> {
        let start = self.first + number * PLACE_PAGES;
        start..start + PLACE_PAGES
    }

    /// A call that has the turn, and what is done behind it.
    fn call(&mut self, number: i64, arguments: [u64; 6], kernel: impl FnOnce(&Linux) -> u64) {
        while !self.space.core().try_begin_call() {
            yield_now();
        }
        let plan = self.pager.before_call(&self.space, 0, number, arguments);
        let result = kernel(&self.linux).cast_signed();
        let behind = self.pager.behind_call(&self.space, &plan, Some(result));
        assert_eq!(behind, Behind::Nothing);
        self.space.core().end_call(&self.space);
    }

    fn map(&mut self, range: Range<u64>) {
        let how = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED) as u64;
        let (start, len) = (
            range.start * PAGE_BYTES,
            (range.end - range.start) * PAGE_BYTES,
        );
        let plain = drawn(4) != 0;
        let over = range.clone();
        self.call(libc::SYS_mmap, [start, len, 3, how, u64::MAX, 0], |linux| {
            linux.map(over, plain);
            start
        });
        self.model.extend(range.map(|page| (page, 0)));
    }

    fn unmap(&mut self, range: Range<u64>) {
        let (start, len) = (
            range.start * PAGE_BYTES,
            (range.end - range.start) * PAGE_BYTES,
        );
        let gone = range.clone();
        self.call(libc::SYS_munmap, [start, len, 0, 0, 0, 0], |linux| {
            linux.unmap(gone);
            0
        });
        self.model.retain(|page, _| !range.contains(page));
    }

    fn drop_contents(&mut self, range: Range<u64>) {
        let (start, len) = (
            range.start * PAGE_BYTES,
            (range.end - range.start) * PAGE_BYTES,
        );
        let advice = libc::MADV_DONTNEED as u64;
        let gone = range.clone();
        self.call(libc::SYS_madvise, [start, len, advice, 0, 0, 0], |linux| {
            linux.drop_contents(gone);
            0
        });
        for (_, tag) in self.model.range_mut(range) {
            *tag = 0;
        }
    }

    fn remap(&mut self, from: u64, to: u64) {
        let (old, new) = (self.place(from), self.place(to));
        let len = PLACE_PAGES * PAGE_BYTES;
        let how = (libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED) as u64;
        let (source, target) = (old.start * PAGE_BYTES, new.start * PAGE_BYTES);
        let (moved, over) = (old.clone(), new.clone());
        self.call(
            libc::SYS_mremap,
            [source, len, len, how, target, 0],
            |linux| {
                linux.unmap(over);
                linux.remap(moved, target / PAGE_BYTES);
                target
            },
        );
        self.model.retain(|page, _| !new.contains(page));
        for page in old.clone() {
            let tag = self.model.remove(&page).expect("a whole place is mapped");
            self.model.insert(page - old.start + new.start, tag);
        }
    }

    /// A part of a place, and whether the place is mapped.
    fn part(&self) -> (Range<u64>, bool) {
        let place = self.place(drawn(PLACES));
        let start = place.start + drawn(PLACE_PAGES);
        let end = start + 1 + drawn(place.end - start);
        (start..end, self.is_mapped(&place))
    }

    fn is_mapped(&self, range: &Range<u64>) -> bool {
        range.clone().all(|page| self.model.contains_key(&page))
    }

    fn write(&mut self, page: u64) {
        let tag = self.next_tag;
        self.next_tag += 1;
        let must = self.model[&page];
        self.touch(page, Some(tag), must);
        self.model.insert(page, tag);
    }

    fn touch(&mut self, page: u64, value: Option<Tag>, must: Tag) {
        loop {
            match self.linux.touch(page, value) {
                Touch::Holds(held) => {
                    assert_eq!(held, must, "page {page:#x} of {:?}", self.space.id);
                    return;
                }
                Touch::Nothing => panic!("page {page:#x} is not mapped"),
                Touch::Fault => self.handler.fault(&self.space, Vpn(page)),
            }
            yield_now();
        }
    }

    pub(super) fn verify(&mut self) {
        for (page, must) in self.model.clone() {
            self.touch(page, None, must);
        }
    }

    /// A child is born, and all that it inherits from this thread is looked at.
    fn fork(&mut self) {
        loop {
            while !self.space.core().try_begin_call() {
                yield_now();
            }
            if self.pager.flush_shadow(&self.space) && self.pager.try_open_window(&self.space) {
                break;
            }
            self.space.core().end_call(&self.space);
            yield_now();
        }
        let linux = self.linux.fork();
        let child = self.pager.child_of(&self.space);
        let child = child.expect("a window was opened");
        self.space.core().end_call(&self.space);
        child.equip(Box::new(linux.clone()), None);
        self.pager
            .adopt_child(&child)
            .expect("what is simulated does not fail");
        self.pager.publish(&child).expect("it has no descriptor");
        let mut program = Program {
            linux,
            pager: Arc::clone(&self.pager),
            space: Arc::clone(&child),
            handler: Handler::new(Arc::clone(&self.pager), 0),
            first: self.first,
            model: self.model.clone(),
            next_tag: self.next_tag + (1 << 20),
        };
        program.verify();
        self.pager.close(&child);
        self.pager.bury(&child);
    }

    /// Begins with one place that is mapped and written.
    pub(super) fn begin(&mut self) {
        self.map(self.place(0));
        self.place(0).for_each(|page| self.write(page));
    }

    /// Does one thing.
    pub(super) fn step(&mut self, forks: bool) {
        let (part, mapped) = self.part();
        match drawn(if forks { 9 } else { 8 }) {
            0 => {
                let place = self.place(drawn(PLACES));
                self.map(place);
            }
            1 => self.drop_contents(part),
            2 if drawn(3) == 0 => self.unmap(part),
            3 | 4 => {
                let (from, to) = (drawn(PLACES), drawn(PLACES));
                if from != to && self.is_mapped(&self.place(from)) {
                    self.remap(from, to);
                }
            }
            8 => self.fork(),
            _ if mapped => {
                for page in part {
                    if drawn(2) == 0 {
                        self.write(page);
                    } else {
                        self.touch(page, None, self.model[&page]);
                    }
                }
            }
            _ => {}
        }
    }
}
