//! A compressed page store.

mod codec;
mod config;
mod error;
mod frames;
mod page;
mod stats;
mod store;
#[cfg(test)]
mod testing;
pub mod tier;

pub use codec::Codec;
pub use config::{Allocator, SHARDS_MAX, StoreConfig, SwapConfig, UnknownName};
pub use error::{LoadError, OpenError, PageName, Rejected};
pub use page::{Handle, PAGE_SIZE, Page};
pub use stats::Stats;
pub use store::{Event, Reclaimed, Store};
pub use zcache_core::{Key, Kind as PoolKind, ObjectId, PoolId};
