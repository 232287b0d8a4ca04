//! A compressed page store with an exit to disk.
//!
//! Pages of 4 KiB go in; they are compressed, packed into blocks of 16 KiB and
//! kept within a hard limit of RAM. The oldest blocks are written to a swap
//! file, still compressed, and a page is read back by the one or two sectors it
//! lies in. Every page carries a checksum: what comes out is what went in, or an
//! error that names the page.
//!
//! Two ways to name a page share one store:
//!
//! - by [`Handle`]: [`Store::insert`] gives one, references are counted. For
//!   pagers, which keep the handle where the page was.
//! - by [`Key`]: [`Store::put`] and [`Store::get`] with the contract of
//!   transcendent memory. Pools are persistent, or ephemeral and may then lose
//!   pages when room is needed. For caches and databases.
//!
//! ```
//! use zcache::{PAGE_SIZE, Store, StoreConfig};
//!
//! let store = Store::open(StoreConfig {
//!     pool_bytes_max: 16 << 20,
//!     ..StoreConfig::default()
//! })?;
//! let mut page = [0; PAGE_SIZE];
//! page[..11].copy_from_slice(b"hello world");
//! let handle = store.insert(&page)?;
//!
//! let mut out = [0; PAGE_SIZE];
//! store.load(handle, &mut out)?;
//! assert_eq!(out, page);
//! store.release(handle);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Pages by key, with a swap file for what does not fit:
//!
//! ```
//! use zcache::tier::TierSource;
//! use zcache::{Key, ObjectId, PAGE_SIZE, PoolKind, Store, StoreConfig, SwapConfig};
//!
//! let store = Store::open(StoreConfig {
//!     pool_bytes_max: 1 << 20,
//!     tiers: vec![TierSource::disk(SwapConfig { path: None, bytes_max: Some(64 << 20) })],
//!     ..StoreConfig::default()
//! })?;
//! let pool = store.create_pool(PoolKind::Persistent);
//! let key = |index| Key { pool, object: ObjectId([0, 0, 42]), index };
//!
//! // Four MiB that hardly compress: most of it leaves RAM.
//! let page = |index: u32| {
//!     let mut random = index;
//!     std::array::from_fn(|_| {
//!         random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
//!         (random >> 24) as u8
//!     })
//! };
//! for index in 0..1024 {
//!     store.put(&key(index), &page(index))?;
//! }
//! assert!(store.stats().swapped_pages > 0);
//!
//! let mut out = [0; PAGE_SIZE];
//! for index in 0..1024 {
//!     assert!(store.get_exclusive(&key(index), &mut out)?);
//!     assert_eq!(out, page(index));
//! }
//! assert!(!store.get(&key(0), &mut out)?, "an exclusive get takes the page");
//! assert_eq!(store.destroy_pool(pool), 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Memory
//! [`Store::ram_bytes`] counts all of it: frames, tables
//! ([`HANDLE_PAGE_BYTES`], [`KEY_PAGE_BYTES`]), transfer buffers, and the working
//! memory that operations of all stores of the process borrow. Of that there is as
//! much as operations run at one moment, and some is kept for the next ones, for at
//! most two operations a processor. Frames and tables never exceed
//! [`StoreConfig::pool_bytes_max`]; a page for which there is no room is
//! [`Rejected`]. Address space is reserved as frames are needed, at most a quarter
//! more than these, so that a store lives under a limit on it.
//!
//! # Threads, forks, destructors, hooks
//! **Threads.** A store is shared by reference. It is split into shards with a
//! lock each; compression, decompression and transfers run outside the locks. It
//! starts no threads: [`Store::reclaim`] works in the thread that calls it,
//! [`Store::train`] learns dictionaries in a thread of the client's, and a
//! [`Chooser`] there chooses between [`Codec::DENSE`] and [`Codec::FAST`] for
//! [`CodecChoice::Auto`]. A [`put`](Store::put) of a persistent page into a full store writes blocks to
//! the tier, and waits for those that other threads write, for seconds if the
//! tier takes so long. An [`insert`](Store::insert), a put of an ephemeral page
//! and everything that frees pages never wait for a tier. A load waits for its
//! own read only.
//!
//! **Forks.** After a fork, parent and child have a store each. A store without a
//! tier goes on in both. With one, the parent goes on as before; the child reads
//! what was in the tier at that time, until the parent writes there again, which
//! it learns as a [`LoadError`] and never by other bytes. It writes nothing: what
//! would have to leave its RAM is refused with [`Rejected::Forked`], and
//! [`Event::Forked`] is said once. What it frees is free for itself only. A store
//! that is opened in the child swaps. As with any lock, only the thread that
//! forked goes on in the child, so fork while no other thread is inside the store
//! or use it in the child no more.
//!
//! **Destructors.** A store may be used from destructors, those of thread-local
//! values included, and while a panic unwinds. A [tier](tier::Tier) that panics
//! leaves the store whole; the panic goes on to whoever called.
//!
//! **Hooks.** The hook of [`Store::on_event`] runs with no lock held, in the
//! thread where the event happened, and may call the store that it listens to. It
//! is not called for what it brings about itself. What a tier may do is said
//! [there](tier::Tier).
//!
//! # What it does not do
//! It does not survive the process: the swap file has no name and is gone with
//! its last descriptor. It does not encrypt.

mod choice;
pub mod codec;
mod config;
mod error;
mod frames;
mod idle;
mod lend;
mod page;
mod stats;
mod store;
mod sync;
#[cfg(test)]
mod testing;
/// What tests that choose schedules of the store share with others.
#[cfg(feature = "schedules")]
pub mod schedules {
    pub use crate::sync::clock::{Instant, restart};
}
pub mod tier;

pub use choice::{Chooser, Holding, Outlook, Traffic};
pub use codec::{ByCodec, Codec, CodecCost};
pub use config::{
    Allocator, CodecChoice, HANDLE_PAGE_BYTES, KEY_PAGE_BYTES, SHARDS_MAX, StoreConfig, SwapConfig,
};
pub use error::{LoadError, OpenError, PageName, Rejected, UnknownName};
pub use idle::{Idler, recompress_when_idle};
pub use page::{Handle, PAGE_SIZE, Page};
pub use stats::{CodecStats, Stats};
pub use store::{ColdBlock, Event, Reclaimed, Recompressed, Store, Trained};
pub use zcache_core::{Broken, Key, Kind as PoolKind, ObjectId, PoolId};
