// SPDX-License-Identifier: GPL-2.0-only

//! The store: the core's shards, one lock each, and what all doors do with them.
//!
//! A key's shard follows from its object and the sixteen pages around it, so neighbours share a block and no lock is
//! everybody's. Codecs run outside the locks, in memory of the CPU.
//!
//! Invariants:
//! - nothing under a lock panics: whatever a record says, lengths are checked before bytes are copied
//! - who looks at a key again after an unlock holds the lock of a folio that keeps the key as it was; see `get`

use core::cell::UnsafeCell;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, Ordering};

use kernel::prelude::*;
use zcache_core::{Allocator, CodecId, Flushed, Found, Key, Kind, ObjectId, PoolId, Shard};

use crate::codec::{self, Encoded};
use crate::counters::EVENTS;
use crate::ffi::{self, Config, Cpu, Locked, Page};
use crate::frames::PageFrames;

/// Empty shards to copy: one is 27 KiB, more than a stack here.
static EMPTY: [Shard; 4] = [
    Shard::new(Allocator::Block),
    Shard::new(Allocator::Zbud),
    Shard::new(Allocator::Ztri),
    Shard::new(Allocator::Zsmalloc),
];

/// Keys of one block that are written back together.
pub(crate) const KEYS_MAX: usize = 1024;

struct Memory {
    shards: NonNull<Shard>,
    /// A power of two.
    count: u32,
    base: *mut u8,
    keys: NonNull<[u32; 2]>,
}

struct Cell(UnsafeCell<Option<Memory>>);

// SAFETY: written at load before any door is open and at unload after all are shut; what it refers to is reached under
// the locks of the shards, and the keys under the mutex of writeback.
unsafe impl Sync for Cell {}

static MEMORY: Cell = Cell(UnsafeCell::new(None));

fn memory() -> &'static Memory {
    // SAFETY: see `Cell`.
    let memory = unsafe { &*MEMORY.0.get() };
    memory.as_ref().expect("the store is there while a door is open")
}

/// Makes the shards.
pub(crate) fn make(config: &Config) -> Result {
    let count = config.shards;
    let bytes = count as usize * size_of::<Shard>();
    let shards = ffi::memory_alloc(bytes).ok_or(ENOMEM)?.cast::<Shard>();
    let Some(keys) = ffi::memory_alloc(KEYS_MAX * 8) else {
        // SAFETY: allocated above.
        unsafe { ffi::memory_free(shards.cast()) };
        return Err(ENOMEM);
    };
    for number in 0..count as usize {
        let empty: *const Shard = &EMPTY[config.allocator as usize % EMPTY.len()];
        // SAFETY: there is memory for `count` shards, and an empty shard owns nothing: a copy of it is another one.
        unsafe { core::ptr::copy_nonoverlapping(empty, shards.as_ptr().add(number), 1) };
    }
    let made = Memory {
        shards,
        count,
        base: ffi::direct_map(),
        keys: keys.cast(),
    };
    // SAFETY: no door is open.
    unsafe { *MEMORY.0.get() = Some(made) };
    Ok(())
}

/// Gives everything back.
pub(crate) fn destroy() {
    for number in 0..shards() {
        with(number, PageFrames::existing, |shard, frames| shard.clear(frames));
    }
    let leaked = crate::frames::in_use();
    if leaked != 0 {
        pr_err!("{leaked} frames are leaked\n");
    }
    // SAFETY: no door is open.
    if let Some(memory) = unsafe { (*MEMORY.0.get()).take() } {
        // SAFETY: allocated in `make`; shards have no destructor.
        unsafe { ffi::memory_free(memory.shards.cast()) };
        // SAFETY: likewise.
        unsafe { ffi::memory_free(memory.keys.cast()) };
    }
}

/// How many shards there are.
pub(crate) fn shards() -> u32 {
    memory().count
}

/// Device and offset of pages to be written: for the holder of the mutex of writeback.
pub(crate) fn keys() -> &'static mut [[u32; 2]] {
    // SAFETY: allocated in `make`; one holder at a time.
    unsafe { core::slice::from_raw_parts_mut(memory().keys.as_ptr(), KEYS_MAX) }
}

/// Whether the log has been told of damage.
static TOLD: AtomicBool = AtomicBool::new(false);

/// Tells the log of damage, the first time; counters say how much there is.
pub(crate) fn tell_of_damage() {
    if !TOLD.swap(true, Ordering::Relaxed) {
        pr_warn!(
            "what is stored is damaged in memory: readers of what is lost get an error; see `damaged`, `repairs` and \
             `lost_pages`; said once\n"
        );
    }
}

/// Runs `operation` on a shard under its lock.
pub(crate) fn with<T>(
    number: u32,
    frames: impl FnOnce(*mut u8) -> PageFrames,
    operation: impl FnOnce(&mut Shard, &mut PageFrames) -> T,
) -> T {
    let memory = memory();
    let mut frames = frames(memory.base);
    let number = number & (memory.count - 1);
    let locked = Locked::new(number);
    // SAFETY: the lock is held, and the number is one of a shard.
    let shard = unsafe { &mut *memory.shards.as_ptr().add(number as usize) };
    let repairs = shard.counters().repairs;
    let result = operation(shard, &mut frames);
    let repaired = shard.counters().repairs != repairs;
    drop(locked);
    if repaired {
        tell_of_damage();
    }
    result
}

/// The base-two logarithm of the pages of an object that lie in one shard, side by side.
pub(crate) const GROUP_BITS: u32 = 4;

/// The shard of a key.
pub(crate) fn shard_of(key: &Key) -> u32 {
    let place = key.object.0[0] ^ u64::from(key.index >> GROUP_BITS) << 40;
    (place.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32 & (memory().count - 1)
}

/// The key of a swap entry; devices have less than 2^32 pages here, or what is behind is not stored.
pub(crate) fn swap_key(device: u32, offset: u64) -> Option<Key> {
    Some(Key {
        pool: PoolId::new(0, Kind::Persistent),
        object: ObjectId([device.into(), 0, 0]),
        index: u32::try_from(offset).ok()?,
    })
}

/// The key of a file's page, where it has one.
pub(crate) fn clean_key(pool: u32, inode: u64, index: u64) -> Option<Key> {
    Some(Key {
        pool: clean_pool(pool),
        object: clean_object(inode),
        index: u32::try_from(index).ok()?,
    })
}

pub(crate) fn clean_object(inode: u64) -> ObjectId {
    ObjectId([inode, 0, 0])
}

pub(crate) fn clean_pool(pool: u32) -> PoolId {
    PoolId::new(pool & (u32::MAX >> 1), Kind::Ephemeral)
}

/// Stores a page; nothing older is left under the key in any case.
pub(crate) fn put(key: &Key, page: &Page) -> bool {
    let persistent = key.pool.kind() == Kind::Persistent;
    let mut cpu = Cpu::get();
    let encoded = codec::encode(&mut cpu, page);
    if matches!(encoded, Encoded::Raw) {
        EVENTS.incompressible.fetch_add(1, Ordering::Relaxed);
        if !persistent {
            drop(cpu);
            flush(key);
            return false;
        }
    }
    let zpage = encoded.zpage(&cpu, page);
    let frames = if persistent {
        PageFrames::persistent
    } else {
        PageFrames::ephemeral
    };
    with(shard_of(key), frames, |shard, frames| {
        shard.put(frames, key, zpage).is_ok()
    })
}

/// How a page was looked up.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Got {
    Nothing,
    Page,
    /// Its bytes are damaged; it stays.
    Damaged,
}

/// What was copied out under the lock.
enum Copied {
    Nothing,
    Same(u64),
    Bytes {
        len: usize,
        codec: CodecId,
        checksum: u32,
    },
    Damaged,
}

/// Fills a page, and with `take` forgets it in the store.
///
/// Between the copy and the end of a `take` the shard is unlocked, and the key still names the page that was copied, or
/// none. The caller holds the lock of a folio that has the key's place:
/// - in the swap cache: who stores under the entry stores this folio, under its lock; and the entry is not freed, to be
///   used for another page, before the folio has left the swap cache, which takes its lock
/// - in the page cache: who puts under the key drops the folio that is there, under its lock, and there is this one. An
///   inode with a locked folio is not evicted, so its address names no other.
pub(crate) fn get(key: &Key, page: &mut Page, take: bool) -> Got {
    let mut cpu = Cpu::get();
    let copied = with(shard_of(key), PageFrames::existing, |shard, frames| {
        if matches!(shard.get(&*frames, key), Some(Found::Damaged)) {
            // Where links alone are damaged, this finds the page again.
            shard.touch_page(frames, key);
        }
        let copied = copy_out(shard.get(&*frames, key), cpu.input());
        if take && matches!(copied, Copied::Same(_)) {
            shard.flush_page(frames, key);
        }
        copied
    });
    let got = match copied {
        Copied::Nothing => Got::Nothing,
        Copied::Damaged => Got::Damaged,
        Copied::Same(word) => {
            codec::fill(word, page);
            Got::Page
        }
        Copied::Bytes {
            len,
            codec,
            checksum,
        } => {
            if codec::decode(&mut cpu, len, codec, checksum, page) {
                if take {
                    // Only now: who asks for what cannot be read must hear of it each time.
                    flush(key);
                }
                Got::Page
            } else {
                Got::Damaged
            }
        }
    };
    if got == Got::Damaged {
        EVENTS.damaged.fetch_add(1, Ordering::Relaxed);
        tell_of_damage();
    }
    got
}

fn copy_out(found: Option<Found<'_>>, to: &mut Page) -> Copied {
    match found {
        Some(Found::Same { word }) => Copied::Same(word),
        Some(Found::InRam {
            bytes,
            codec,
            checksum,
        }) => match to.get_mut(..bytes.len()) {
            Some(room) => {
                room.copy_from_slice(bytes);
                Copied::Bytes {
                    len: bytes.len(),
                    codec,
                    checksum,
                }
            }
            None => Copied::Damaged,
        },
        // Blocks go to swap devices page by page, never to a tier.
        Some(Found::InTier { .. } | Found::Damaged) => Copied::Damaged,
        None => Copied::Nothing,
    }
}

/// Forgets a page; whether there was one.
pub(crate) fn flush(key: &Key) -> bool {
    with(shard_of(key), PageFrames::existing, |shard, frames| {
        shard.flush_page(frames, key)
    })
}

/// Pages that are freed under one holding of a lock, which interrupts wait for: a fraction of a millisecond.
pub(crate) const PART: u32 = 256;

/// Forgets pages of a shard in parts until `flush`, which does one, says that nothing is left; how many. What was there
/// when it began has gone then, and what was put meanwhile as well: a put takes longer than a page of a part, so there
/// is an end.
pub(crate) fn flush_parts(
    number: u32,
    flush: impl Fn(&mut Shard, &mut PageFrames) -> Flushed,
) -> u64 {
    let mut pages = 0;
    loop {
        let part = with(number, PageFrames::existing, &flush);
        pages += u64::from(part.pages);
        if part.is_whole {
            return pages;
        }
    }
}
