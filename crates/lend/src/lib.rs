//! Lends RAM of this machine to `zcache run --remote` on others, on a
//! `valkey-server` or `redis-server` of its own.
//!
//! Off the data path: borrowers talk to the server alone. This writes its
//! configuration, starts and ends it, and watches whether this machine needs
//! its RAM itself.
//!
//! - The server keeps at most [`ServerConfig::maxmemory`] bytes and drops nothing by itself.
//! - One user reaches it from outside, with the commands of a borrower on keys of
//!   one prefix; the default user is off.
//! - No secret is an argument, a line of a log or part of what is printed.
//! - The server does not outlive this process.

mod cgroup;
mod child;
mod configuration;
mod control;
mod error;
mod host;
mod listen;
mod password;
mod program;
mod run;
mod watch;

pub use configuration::{Durability, ServerConfig, TlsFiles};
pub use error::LendError;
pub use listen::Listen;
pub use run::{LendConfig, default_folder, lend, print};
