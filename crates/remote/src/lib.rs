//! A tier of zcache in the RAM of other machines, on Valkey or Redis 7 and
//! later.
//!
//! Stage on the data path: behind the store, beside or before the disk.
//!
//! Blocks are packed into *segments* of just under 64 KiB, each a value of a
//! server under a key that is used once. Where a block is only this process
//! knows. A page comes back by one GETRANGE, on a connection of the thread that
//! waits for it.
//!
//! - What is read is what was written under that name, or an error: every chunk
//!   is bound to this run, its segment and its place by a seal.
//! - What is kept at servers, and RAM here, is bounded.
//! - Every call has a timeout; a node that does not answer is not asked.
//! - Keys expire by a lease if nobody renews it.
//!
//! ```no_run
//! use zcache_remote::{Durability, Endpoint, RemoteConfig, RemoteTier};
//!
//! let endpoint = Endpoint::parse("rediss://lender.example:6379")?;
//! let config = RemoteConfig::new(vec![endpoint], Durability::Disk).with_environment();
//! let tier = RemoteTier::open(config)?;
//! println!("{:?}", tier.stats());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod away;
mod breaker;
mod cache;
mod check;
mod clock;
mod config;
mod endpoint;
mod error;
mod fleet;
mod index;
mod keeper;
mod latency;
pub mod lender;
pub mod link;
#[cfg(test)]
mod model;
mod network;
mod node;
mod reach;
mod read;
mod report;
mod seal;
mod segment;
pub mod simulated;
mod slot_map;
mod slots;
mod stats;
mod tier;
mod write;

pub use clock::Clock;
pub use config::{
    Durability, PASSWORD_VARIABLE, RemoteConfig, Sealing, Secret, SecretError, Timeouts, Tls,
    USER_VARIABLE,
};
pub use endpoint::{Address, Endpoint, EndpointError};
pub use error::OpenError;
pub use node::LINKS_MAX;
pub use stats::{NodeStats, RemoteStats};
pub use tier::RemoteTier;
