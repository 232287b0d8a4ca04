//! The outcomes that are not a success. A refusal ([`Rejected`]), a failure to
//! give back ([`LoadError`]) and a failure to start ([`OpenError`]) are
//! different things to a client, so they are different types.

use std::path::PathBuf;

use zcache_core::Key;

use crate::page::Handle;

/// Why a page was not taken. Every reason has its counter in
/// [`Stats`](crate::Stats), so that `accepted + sum(rejected_*) == attempts`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rejected {
    /// The store holds as many bytes as it may, and nothing in it could leave.
    /// After an insert, which does not try, [`reclaim`](crate::Store::reclaim) can
    /// make room; after a put, flushing pages or a higher limit.
    PoolFull,
    /// The store holds as many bytes as it may, and so does its tier, or there is
    /// no room for the tier to grow. Flushing pages or a larger tier helps.
    TierFull,
    /// The store holds as many bytes as it may, and its tier failed to take any.
    /// It is tried again, at intervals of up to a second.
    TierFailing,
    /// The store holds as many bytes as it may, and this process was forked from
    /// the one that opened it, which alone writes to the tier. A store that is
    /// opened after the fork helps.
    Forked,
    /// The system gave no memory, although the limit was not reached.
    NoMemory,
    /// Every handle or entry number is taken.
    HandlesExhausted,
    /// The tmem pool named is not open.
    NoSuchPool,
    /// Records that the page needs are damaged: a bit of RAM has changed, more
    /// than once.
    Damaged,
}

impl std::fmt::Display for Rejected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Rejected::PoolFull => {
                "the store is full and nothing can leave; flush pages or raise its limit"
            }
            Rejected::TierFull => {
                "the store is full and so is its swap; flush pages or give it more room"
            }
            Rejected::TierFailing => {
                "the store is full and its swap cannot be written; it is tried again"
            }
            Rejected::Forked => {
                "the store is full and its swap is that of the process it was forked from; \
                 open one of its own"
            }
            Rejected::NoMemory => "the system gave no memory",
            Rejected::HandlesExhausted => "every entry number is taken",
            Rejected::NoSuchPool => "the pool is not open",
            Rejected::Damaged => "the store's records are damaged; check this machine's memory",
        })
    }
}

impl std::error::Error for Rejected {}

/// Which page an error is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageName {
    /// A page that was inserted.
    Handle(Handle),
    /// A page that was put.
    Key(Key),
}

impl std::fmt::Display for PageName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PageName::Handle(handle) => write!(f, "page {handle:?}"),
            PageName::Key(key) => {
                let [high, middle, low] = key.object.0;
                write!(
                    f,
                    "page {} of object {high:x}-{middle:x}-{low:x} in pool {}",
                    key.index,
                    key.pool.number()
                )
            }
        }
    }
}

/// Why a stored page could not be given back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LoadError {
    /// The handle names no stored page.
    Gone,
    /// The stored bytes are not those that were put in. The page is lost; its
    /// contents are not given out.
    Checksum {
        /// The page.
        page: PageName,
        /// The checksum that was kept when the page was stored.
        expected: u32,
        /// The checksum of the bytes found.
        found: u32,
        /// Where in the tier they were found, in bytes from its start; `None`
        /// for RAM.
        offset_bytes: Option<u64>,
    },
    /// The bytes match their checksum and still do not decode to a page, or
    /// the records that say where they are contradict one another: a bit of RAM
    /// has changed.
    Corrupt {
        /// The page.
        page: PageName,
    },
    /// The tier failed to read.
    Io {
        /// The page.
        page: PageName,
        /// The system's error number.
        errno: i32,
        /// Where, in bytes from the start of the tier.
        offset_bytes: u64,
    },
    /// The tier has nothing where the page was written: the file ends before,
    /// or has only zeros there. It was cut off by somebody, or the disk lost it.
    Missing {
        /// The page.
        page: PageName,
        /// Where, in bytes from the start of the tier.
        offset_bytes: u64,
    },
    /// The page moved each time it was read, or its tier asked for it again and
    /// again from within the read. It is not lost.
    Busy {
        /// The page.
        page: PageName,
    },
}

impl LoadError {
    /// What happened, without the page's name in the store.
    #[must_use]
    pub fn cause(&self) -> String {
        match self {
            LoadError::Gone => "no such page".to_owned(),
            LoadError::Checksum {
                expected,
                found,
                offset_bytes,
                ..
            } => {
                let place = match offset_bytes {
                    Some(offset) => format!("the swap file at byte {offset}"),
                    None => "RAM".to_owned(),
                };
                format!(
                    "wrong bytes in {place}: their checksum is {found:#010x}, \
                     that of the stored page is {expected:#010x}"
                )
            }
            LoadError::Corrupt { .. } => "what the store knows of it is damaged".to_owned(),
            LoadError::Io {
                errno,
                offset_bytes,
                ..
            } => format!(
                "the swap file cannot be read at byte {offset_bytes}: {}",
                std::io::Error::from_raw_os_error(*errno)
            ),
            LoadError::Missing { offset_bytes, .. } => format!(
                "short read of the swap file: there is nothing at byte {offset_bytes} any more; \
                 it was cut off, or its disk lost it"
            ),
            LoadError::Busy { .. } => "it moved each time it was read".to_owned(),
        }
    }
}

impl std::fmt::Display for LoadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LoadError::Gone => {}
            LoadError::Checksum { page, .. }
            | LoadError::Corrupt { page }
            | LoadError::Io { page, .. }
            | LoadError::Missing { page, .. }
            | LoadError::Busy { page } => write!(f, "{page}: ")?,
        }
        f.write_str(&self.cause())
    }
}

impl std::error::Error for LoadError {}

/// Why a store could not be opened.
#[derive(Debug)]
pub enum OpenError {
    /// The codecs' first memory could not be had.
    NoMemory(std::io::Error),
    /// The limit is so low that some pages could never be stored.
    PoolTooSmall {
        /// The limit in bytes.
        pool_bytes_max: u64,
        /// The least limit in bytes.
        least_bytes: u64,
    },
    /// The swap file could not be made.
    Swap {
        /// The file or directory that was tried.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The path names something that is not ours to overwrite or not ours alone
    /// to read: a file that is not empty, belongs to another user, has other
    /// names or is open to others, a block device, or anything that is no file
    /// or directory.
    SwapRefused {
        /// The path.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// A tier that may lose what it has is the last of the list.
    LastTierLoses {
        /// What the tier is called.
        name: String,
    },
    /// A tier cannot be used.
    Tier {
        /// What the tier is called.
        name: String,
        /// Why, and what to do about it.
        why: String,
    },
    /// No path was given and none of the default directories is writable and
    /// outside RAM.
    NoSwapDirectory {
        /// The directories that were tried.
        tried: Vec<PathBuf>,
    },
}

impl std::fmt::Display for OpenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            OpenError::NoMemory(source) => write!(f, "no memory for the store: {source}"),
            OpenError::PoolTooSmall {
                pool_bytes_max,
                least_bytes,
            } => write!(
                f,
                "a limit of {pool_bytes_max} bytes is too small for a store; \
                 give at least {least_bytes} bytes"
            ),
            OpenError::Swap { path, source } => {
                write!(f, "cannot make a swap file at {}: {source}", path.display())
            }
            OpenError::SwapRefused { path, what } => {
                write!(f, "refusing to use {} for swap: {what}", path.display())
            }
            OpenError::LastTierLoses { name } => write!(
                f,
                "{name} may lose what it is given, so it needs a tier behind it that keeps it; \
                 add a swap file"
            ),
            OpenError::Tier { name, why } => write!(f, "{name}: {why}"),
            OpenError::NoSwapDirectory { tried } => {
                write!(f, "no directory for the swap file; tried:")?;
                for path in tried {
                    write!(f, " {}", path.display())?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            OpenError::NoMemory(source) | OpenError::Swap { source, .. } => Some(source),
            OpenError::PoolTooSmall { .. }
            | OpenError::SwapRefused { .. }
            | OpenError::LastTierLoses { .. }
            | OpenError::Tier { .. }
            | OpenError::NoSwapDirectory { .. } => None,
        }
    }
}

/// A name that chooses nothing, with the names that would.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnknownName {
    /// What was to be chosen, for instance "codec".
    pub kind: &'static str,
    /// What the user wrote.
    pub name: String,
    /// What the user could have written.
    pub known: Vec<&'static str>,
}

impl std::fmt::Display for UnknownName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "unknown {} \"{}\"; known are: {}",
            self.kind,
            self.name,
            self.known.join(", ")
        )
    }
}

impl std::error::Error for UnknownName {}
