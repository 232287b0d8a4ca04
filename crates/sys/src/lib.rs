//! Every system call and every line of `unsafe` of zcache, behind safe types.
//!
//! Not on the data path itself: it is the seam between zcache and Linux. Each
//! module names its manual pages; each `unsafe` block holds one operation and
//! says why it is sound there. Nothing here decides anything.
//!
//! Memory of another process is never turned into a reference: it is copied
//! into owned pages first, or reached through atomics ([`shared`]).
//!
//! [`zdict`] is no system call: the one C function that has no safe wrapper.

pub mod arena;
pub mod fanotify;
pub mod fd;
pub mod filehandle;
pub mod fork;
pub mod fuse;
pub mod fusering;
pub mod gather;
pub mod heap;
pub mod lease;
pub mod memory;
pub mod pagemap;
pub mod process;
pub mod procfs;
pub mod ptrace;
pub mod ring;
pub mod seccomp;
pub mod servant;
pub mod shared;
pub mod socket;
pub mod swapfile;
pub mod uffd;
pub mod uring;
pub mod vma;
pub mod zdict;
