// SPDX-License-Identifier: GPL-2.0-only

//! The store: the core's shards, one lock each, and what all doors do with them.
//!
//! A key's shard follows from its object and the sixteen pages around it, so neighbours share a block and no lock is
//! everybody's. Codecs run outside the locks, in memory of the CPU.

use core::cell::UnsafeCell;
use core::ptr::NonNull;
use core::sync::atomic::Ordering;

use kernel::prelude::*;
use zcache_core::{Allocator, CodecId, Found, Key, Kind, ObjectId, PoolId, Shard};

use crate::codec::{self, Encoded};
use crate::counters::EVENTS;
use crate::ffi::{self, Config, Cpu, Locked, Page};
use crate::frames::PageFrames;

/// Empty shards to copy: one is 16 KiB, as much as a stack here.
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

/// Runs `operation` on a shard under its lock.
pub(crate) fn with<T>(
    number: u32,
    frames: impl FnOnce(*mut u8) -> PageFrames,
    operation: impl FnOnce(&mut Shard, &mut PageFrames) -> T,
) -> T {
    let memory = memory();
    let mut frames = frames(memory.base);
    let number = number & (memory.count - 1);
    let _locked = Locked::new(number);
    // SAFETY: the lock is held, and the number is one of a shard.
    let shard = unsafe { &mut *memory.shards.as_ptr().add(number as usize) };
    operation(shard, &mut frames)
}

/// The shard of a key.
pub(crate) fn shard_of(key: &Key) -> u32 {
    let place = key.object.0[0] ^ u64::from(key.index >> 4) << 40;
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
        object: ObjectId([inode, 0, 0]),
        index: u32::try_from(index).ok()?,
    })
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
}

/// Fills a page, and with `take` forgets it in the store. Nobody else may change the key meanwhile.
pub(crate) fn get(key: &Key, page: &mut Page, take: bool) -> Got {
    let mut cpu = Cpu::get();
    let copied = with(shard_of(key), PageFrames::existing, |shard, frames| {
        let copied = match shard.get(&*frames, key) {
            Some(Found::Same { word }) => Copied::Same(word),
            Some(Found::InRam {
                bytes,
                codec,
                checksum,
            }) => {
                let len = bytes.len();
                cpu.input()[..len].copy_from_slice(bytes);
                Copied::Bytes {
                    len,
                    codec,
                    checksum,
                }
            }
            // Blocks go to swap devices page by page, never to a tier.
            Some(Found::InTier { .. }) | None => Copied::Nothing,
        };
        if take && matches!(copied, Copied::Same(_)) {
            shard.flush_page(frames, key);
        }
        copied
    });
    match copied {
        Copied::Nothing => return Got::Nothing,
        Copied::Same(word) => codec::fill(word, page),
        Copied::Bytes {
            len,
            codec,
            checksum,
        } => {
            if !codec::decode(&mut cpu, len, codec, checksum, page) {
                return Got::Damaged;
            }
            if take {
                // Only now: what cannot be read must not be lost for it.
                flush(key);
            }
        }
    }
    Got::Page
}

/// Forgets a page; whether there was one.
pub(crate) fn flush(key: &Key) -> bool {
    with(shard_of(key), PageFrames::existing, |shard, frames| {
        shard.flush_page(frames, key)
    })
}
