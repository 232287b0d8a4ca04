//! The engine's core: packs zpages into blocks, indexes them, ages the blocks and plans what is reclaimed.
//!
//! Stage on the data path: everything between the codec and the tier. A home (threads, codecs, tiers) hands in
//! compressed bytes and frames of RAM; the core says where things are and which block goes next. It does no I/O, starts
//! no threads, reads no clock and allocates nothing: its tables live in the frames it is lent ([`Frames`]), so its
//! memory is counted exactly and every allocation may fail without harm.
//!
//! Glossary: page = the client's 4 KiB; zpage = its compressed bytes; frame = 4 KiB of the home's RAM; block = the run
//! of frames that is packed, aged, written back and sent as one; pool = a tmem pool; tier = disk or remote; entry = the
//! record of one stored page; object = the record of a tmem object with pages here.
//!
//! Memory: an entry is 24 bytes for a page with a handle and 40 for one with a key, a hash bucket 4 (one for each 5/4
//! records with a key), a block 48, an object 68, a pool 28. Each frame of records has a head of 16 bytes.
//!
//! Does not: compress, checksum, lock, or decide how much memory there is.
#![cfg_attr(not(test), no_std)]

// The home of the integration tests is that of the unit tests too.
#[cfg(test)]
extern crate self as zcache_core;

mod counters;
mod exchange;
mod frames;
mod ids;
mod packing;
mod shard;
mod tables;

pub use counters::{Counters, KindUsage, Usage};
pub use exchange::{
    Dropped, Evacuated, Found, LiveZpage, Refused, TierBlock, TierRange, Watermarks, WriteFailed,
    WritebackEnd, WritebackPlan, ZPAGE_LEN_MAX, Zpage,
};
pub use frames::{FRAME_SIZE, FrameId, Frames, Run};
pub use ids::{BlockToken, CodecId, EntryToken, Generation, Key, Kind, ObjectId, PoolId, Slot};
pub use packing::Allocator;
pub use shard::{Broken, Flushed, Recompressed, Replacement, Shard};
pub use tables::{ENTRIES_MAX, metadata};
