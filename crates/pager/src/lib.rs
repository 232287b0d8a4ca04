//! Runs an unmodified program and all its children within one hard RAM budget.
//!
//! Data path: a fault in the program → [`fault`] → zeros, shadow or store → the
//! program's page; the oldest pages → [`evict`] → shadow → store → tier.
//!
//! Three processes: the *front* stands for the program towards the shell, the
//! *pager* (its child) does all the work, and the *guard* keeps the program's
//! faults blocked until all its processes are dead, should the pager be killed.
//! In each of the program's address spaces a *servant* executes the system
//! calls that only its own memory map can take.
//!
//! The rooms: `process` has the processes of a run, its own and the program's;
//! `syscalls`, what is done about calls that change memory; `paging`, how pages
//! come and leave; `space` is one address space and what is known of its pages;
//! `budget` grants RAM; `background` is what goes on beside all that.

mod background;
mod budget;
mod config;
mod counters;
mod error;
mod pager;
mod paging;
mod process;
mod report;
mod space;
mod sync;
mod syscalls;

#[cfg(all(test, feature = "schedules"))]
mod schedules;

pub use budget::need::Need;
pub use config::{RAM_BYTES_MIN, RunConfig, StatsTarget};
pub use error::{EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND, EXIT_OWN, StartError};
pub use process::run::run;
pub use report::{CodecNumbers, Passage, Rejections, RunStats};
pub use zcache::tier::TierSource;

/// The tiers of a run.
pub mod tier {
    pub use zcache::OpenError;
    pub use zcache::tier::{Keeps, ListedTier, TierSource};
}
pub use zcache::{Allocator, Codec, CodecChoice, SwapConfig};
