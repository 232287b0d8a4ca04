//! The FUSE protocol as bytes: what a request says and how an answer is
//! written. See `fuse(4)` and the kernel's `include/uapi/linux/fuse.h`, which
//! this follows by offset.
//!
//! Stage: between the device and the filesystem. Nothing here decides, opens or
//! waits, and no byte sequence makes it panic: what is too short is EIO.
//!
//! Numbers are the machine's own byte order, as the kernel writes them.

pub(crate) mod abi;
mod answer;
mod request;

pub(crate) use answer::{Answer, Attributes, DirectoryAnswer, Entry, Lifetimes, Name};
pub(crate) use request::{Fields, Header};
