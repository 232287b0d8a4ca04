//! A compressed page store.

mod codec;
mod config;
mod error;
mod page;
mod stats;
mod store;

pub use codec::Codec;
pub use config::{Allocator, SHARDS_MAX, StoreConfig, SwapConfig, UnknownName};
pub use error::{LoadError, OpenError, Rejected};
pub use page::{Handle, PAGE_SIZE, Page};
pub use stats::Stats;
pub use store::{Reclaimed, Store};
