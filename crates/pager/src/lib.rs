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
//! The rooms: [`run`] starts all; [`tree`] traces births and ends; [`inject`]
//! takes an address space into care; [`space`] is one; [`table`], [`queue`],
//! [`shadow`] and [`stream`] are what is known of its pages; [`mapping`] and
//! [`fork`] carry out what changes them; [`home`] says which handlers listen; [`budget`] grants RAM, and
//! [`starvation`] says when it cannot; [`balance`] and [`choice`] adapt the store to what
//! loads cost; [`need`] turns the budget's equation around.

mod advance;
mod balance;
mod bereft;
mod budget;
mod choice;
mod cold;
mod config;
mod counters;
mod error;
mod evict;
mod fault;
mod fork;
mod front;
mod home;
mod inject;
mod mapping;
mod need;
mod pager;
mod queue;
mod ranges;
mod report;
mod run;
mod shadow;
mod space;
mod starvation;
mod stream;
mod table;
mod tick;
mod train;
mod tree;

pub use config::{RAM_BYTES_MIN, RunConfig, StatsTarget};
pub use error::{EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND, EXIT_OWN, StartError};
pub use need::Need;
pub use report::{CodecNumbers, Passage, Rejections, RunStats};
pub use run::run;
pub use zcache::{Allocator, Codec, CodecChoice, SwapConfig};
