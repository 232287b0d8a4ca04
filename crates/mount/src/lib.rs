//! `zcache mount`: shows a tree a second time, and keeps the pages that the page
//! cache drops compressed in RAM.
//!
//! What Linux drops from the page cache it reads again from slow storage. Below
//! a mount of this kind the dropped page is asked for here, and comes from the
//! store: an ephemeral pool of the engine, so any page may be dropped at any
//! time and nothing can be lost, since the source has it.
//!
//! The filesystem is a passthrough by the FUSE protocol. Everything that is
//! changed goes to the source before it is answered; only reads of whole pages
//! meet the cache.
//!
//! Where tiers are given, the oldest pages go there before they are dropped, and
//! come from there when they are read again.
//!
//! What it does not do: write late, or keep pages across an unmount.

mod ahead;
mod budget;
mod cache;
mod config;
mod crew;
mod daemon;
mod device;
mod error;
mod guard;
mod handles;
mod identity;
mod idle;
mod inodes;
mod limits;
mod mount;
mod mountpoint;
mod notices;
mod report;
mod rights;
mod ringworker;
mod room;
mod serve;
mod session;
mod source;
mod watch;
mod wire;
mod worker;

pub use config::{Admit, MountConfig, MountFlags, RAM_BYTES_MIN, Transport};
pub use daemon::{leave_terminal, system_ram_bytes};
pub use error::MountError;
pub use guard::guard;
pub use mount::mount;
pub use mountpoint::{mounted_flags, remount, unmount};
pub use report::MountStats;
pub use zcache::tier::TierSource;
pub use zcache::{Allocator, Codec, CodecChoice};
