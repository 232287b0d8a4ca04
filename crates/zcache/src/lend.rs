//! Working memory that operations borrow: compressors' contexts, and room for the
//! copy of a zpage or a page.
//!
//! Stage on the data path: beside the codec and beside a load. An operation
//! borrows memory when it begins and gives it back when it ends, however it
//! ends. No memory belongs to a thread.
//!
//! - No lock is held while memory is lent, and nobody waits for any: if none is
//!   idle, some is made. So an operation may run inside another one, as from a
//!   hook or a tier, and in the destructor of a thread-local.
//! - For each lender, idle pieces never exceed [`idle_max`], twice the
//!   processors. Others are freed as they come back. What exists follows from
//!   the operations that run at one moment, not from the threads that ever ran
//!   one.
//! - `counted bytes == bytes of idle pieces + bytes of lent pieces`, where a lent
//!   piece counts as it was when it was lent.
//!
//! Does not: lend a tier's transfer buffers, which are a store's own.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock};

use crate::page::{PAGE_SIZE, Page};

/// The most idle pieces of a lender, on however many processors.
const IDLE_MAX: usize = 64;

/// Bytes of all working memory of the process.
static COUNTED_BYTES: AtomicU64 = AtomicU64::new(0);

/// RAM of all working memory of the process now, in bytes.
pub(crate) fn counted_bytes() -> u64 {
    COUNTED_BYTES.load(Relaxed)
}

/// How many pieces a lender keeps that nobody borrows now.
pub(crate) fn idle_max() -> usize {
    static IDLE: OnceLock<usize> = OnceLock::new();
    *IDLE.get_or_init(|| {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        // A thread that loses its processor keeps what it borrowed.
        (2 * processors).min(IDLE_MAX)
    })
}

thread_local! {
    /// The place where this thread last found or left something. Threads that
    /// run at once so come to use different places. It has no destructor, so it
    /// is there as long as its thread runs anything.
    static NEAR: Cell<usize> = const { Cell::new(0) };
}

/// What is lent.
pub(crate) trait Working {
    /// RAM that it takes now, in bytes.
    fn bytes(&self) -> u64;
}

/// Lends pieces of one sort.
pub(crate) struct Lender<T> {
    places: [Place<T>; IDLE_MAX],
    counted_bytes: &'static AtomicU64,
}

/// Holds an idle piece. Each has a cache line of its own. It is locked only to
/// look into it.
#[repr(align(64))]
struct Place<T>(Mutex<Option<Box<Piece<T>>>>);

struct Piece<T> {
    value: T,
    counted_bytes: u64,
}

/// A piece on loan. It goes back when dropped.
pub(crate) struct Lent<'a, T: Working> {
    piece: Option<Box<Piece<T>>>,
    home: &'a Lender<T>,
}

impl<T: Working> Lender<T> {
    pub(crate) const fn new() -> Lender<T> {
        Lender::counting_in(&COUNTED_BYTES)
    }

    const fn counting_in(counted_bytes: &'static AtomicU64) -> Lender<T> {
        Lender {
            places: [const { Place(Mutex::new(None)) }; IDLE_MAX],
            counted_bytes,
        }
    }

    /// Lends an idle piece with whatever its last user left in it, or a new one.
    pub(crate) fn lend(&self, make: impl FnOnce() -> T) -> Lent<'_, T> {
        let piece = self.take().unwrap_or_else(|| self.made(make()));
        self.lent(piece)
    }

    /// The same where there may be no memory for a new one.
    pub(crate) fn try_lend(&self, make: impl FnOnce() -> Option<T>) -> Option<Lent<'_, T>> {
        let piece = match self.take() {
            Some(piece) => piece,
            None => self.made(make()?),
        };
        Some(self.lent(piece))
    }

    fn lent(&self, piece: Box<Piece<T>>) -> Lent<'_, T> {
        Lent {
            piece: Some(piece),
            home: self,
        }
    }

    fn made(&self, value: T) -> Box<Piece<T>> {
        let counted_bytes = value.bytes();
        self.counted_bytes.fetch_add(counted_bytes, Relaxed);
        Box::new(Piece {
            value,
            counted_bytes,
        })
    }

    fn take(&self) -> Option<Box<Piece<T>>> {
        self.find(|place| place.take())
    }

    /// Keeps a piece if a place is empty.
    fn give(&self, mut piece: Box<Piece<T>>) {
        let bytes = piece.value.bytes();
        if bytes != piece.counted_bytes {
            // Wraps where it shrank.
            let change = bytes.wrapping_sub(piece.counted_bytes);
            self.counted_bytes.fetch_add(change, Relaxed);
            piece.counted_bytes = bytes;
        }
        let mut piece = Some(piece);
        let kept = self.find(|place| match place {
            None => {
                *place = piece.take();
                Some(())
            }
            Some(_) => None,
        });
        if kept.is_none() {
            self.counted_bytes.fetch_sub(bytes, Relaxed);
        }
    }

    /// Looks into the places, the near one first, until `look` finds what it
    /// looks for. A place into which another thread is looking is skipped.
    fn find<R>(&self, mut look: impl FnMut(&mut Option<Box<Piece<T>>>) -> Option<R>) -> Option<R> {
        let places = &self.places[..idle_max()];
        let near = NEAR.get() % places.len();
        let order = (near..places.len()).chain(0..near);
        for at in order {
            if let Ok(mut place) = places[at].0.try_lock()
                && let Some(found) = look(&mut place)
            {
                drop(place);
                NEAR.set(at);
                return Some(found);
            }
        }
        None
    }
}

impl<T: Working> Deref for Lent<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        match &self.piece {
            Some(piece) => &piece.value,
            None => unreachable!("it goes back only when dropped"),
        }
    }
}

impl<T: Working> DerefMut for Lent<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        match &mut self.piece {
            Some(piece) => &mut piece.value,
            None => unreachable!("it goes back only when dropped"),
        }
    }
}

impl<T: Working> Drop for Lent<'_, T> {
    fn drop(&mut self) {
        if let Some(piece) = self.piece.take() {
            self.home.give(piece);
        }
    }
}

/// Length of a [`Room`]: a page, and the worst that a codec makes of one. lz4
/// documents `n + n / 255 + 16`, and lz4_flex asks for 1.1 n + 20.
const ROOM_BYTES: usize = PAGE_SIZE + PAGE_SIZE / 8 + 64;

/// Room for a page or for what a codec makes of one.
pub(crate) struct Room([u8; ROOM_BYTES]);

static ROOMS: Lender<Room> = Lender::new();

/// Lends a room of any contents.
pub(crate) fn room() -> Lent<'static, Room> {
    ROOMS.lend(|| Room([0; ROOM_BYTES]))
}

impl Room {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }

    /// Its first bytes, as a page.
    pub(crate) fn page_mut(&mut self) -> &mut Page {
        let page = self.0.first_chunk_mut();
        page.expect("a room is longer than a page")
    }
}

impl Working for Room {
    fn bytes(&self) -> u64 {
        ROOM_BYTES as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    impl Working for Vec<u8> {
        fn bytes(&self) -> u64 {
            self.capacity() as u64
        }
    }

    fn idle<T>(lender: &Lender<T>) -> usize {
        let places = lender.places.iter();
        places
            .filter(|place| place.0.lock().unwrap().is_some())
            .count()
    }

    #[test]
    fn what_comes_back_is_lent_again_and_no_more_is_kept_than_may_be_idle() {
        static COUNTED: AtomicU64 = AtomicU64::new(0);
        let lender = Lender::counting_in(&COUNTED);
        for _ in 0..3 {
            let lent: Vec<_> = (0..idle_max() + 5)
                .map(|_| lender.lend(|| Vec::with_capacity(100)))
                .collect();
            assert_eq!(COUNTED.load(Relaxed), (idle_max() as u64 + 5) * 100);
            assert_eq!(idle(&lender), 0);
            drop(lent);
            assert_eq!(COUNTED.load(Relaxed), idle_max() as u64 * 100);
            assert_eq!(idle(&lender), idle_max());
        }
    }

    #[test]
    fn one_piece_does_for_threads_that_borrow_one_after_the_other() {
        static COUNTED: AtomicU64 = AtomicU64::new(0);
        static LENDER: Lender<Vec<u8>> = Lender::counting_in(&COUNTED);
        for _ in 0..50 {
            let thread = std::thread::spawn(|| drop(LENDER.lend(|| Vec::with_capacity(10))));
            thread.join().unwrap();
        }
        assert_eq!((idle(&LENDER), COUNTED.load(Relaxed)), (1, 10));
    }

    #[test]
    fn pieces_that_grow_or_shrink_are_counted_as_they_come_back() {
        static COUNTED: AtomicU64 = AtomicU64::new(0);
        let lender = Lender::counting_in(&COUNTED);
        for bytes in [1000, 10, 500] {
            *lender.lend(Vec::new) = Vec::with_capacity(bytes);
            assert_eq!(COUNTED.load(Relaxed), bytes as u64);
        }
        assert!(lender.try_lend(|| None).is_some(), "one is idle");
        let lent = lender.lend(Vec::new);
        assert!(lender.try_lend(|| None).is_none());
        drop(lent);
        assert_eq!(idle(&lender), 1);
    }

    #[test]
    fn no_two_borrow_the_same_piece_and_a_panic_gives_it_back() {
        static COUNTED: AtomicU64 = AtomicU64::new(0);
        static LENDER: Lender<Vec<u8>> = Lender::counting_in(&COUNTED);
        let together = Barrier::new(8);
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let together = &together;
                scope.spawn(move || {
                    together.wait();
                    for round in 0..2000 {
                        let mut outer = LENDER.lend(|| Vec::with_capacity(8));
                        let mut inner = LENDER.lend(|| Vec::with_capacity(8));
                        outer.clear();
                        outer.push(thread);
                        inner.clear();
                        inner.push(!thread);
                        if round % 64 == 0 {
                            std::thread::yield_now();
                        }
                        assert_eq!((outer[0], inner[0]), (thread, !thread));
                    }
                });
            }
        });
        let before = idle(&LENDER);
        let panicked = std::panic::catch_unwind(|| {
            let _lent = LENDER.lend(|| Vec::with_capacity(8));
            panic!("as a hook may");
        });
        assert!(panicked.is_err());
        assert_eq!(idle(&LENDER), before);
        assert_eq!(COUNTED.load(Relaxed), before as u64 * 8);
    }
}
