//! What a mount is asked to do.

use std::path::PathBuf;
use std::str::FromStr;

use zcache::{Allocator, Codec, UnknownName};

/// Which pages are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Admit {
    /// Those that are read again: below the page cache that means that they
    /// were dropped and missed. A stream that is read once displaces nothing.
    #[default]
    SeenAgain,
    /// Every page that is read.
    All,
}

impl Admit {
    /// Both, in the order in which help texts list them.
    pub const ALL: [Admit; 2] = [Admit::SeenAgain, Admit::All];

    /// The name by which users choose it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Admit::SeenAgain => "seen-again",
            Admit::All => "all",
        }
    }
}

impl FromStr for Admit {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        let found = Self::ALL.into_iter().find(|admit| admit.name() == name);
        found.ok_or_else(|| UnknownName {
            kind: "policy of admission",
            name: name.to_owned(),
            known: Self::ALL.map(Admit::name).to_vec(),
        })
    }
}

/// How the kernel treats the mount, whatever the filesystem does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MountFlags {
    /// Nothing can be changed.
    pub read_only: bool,
    /// Set-user-id and set-group-id bits count.
    pub suid: bool,
    /// Device files are devices.
    pub devices: bool,
    /// Programs can be executed.
    pub exec: bool,
    /// Times of access are kept.
    pub access_times: bool,
}

impl Default for MountFlags {
    /// Writable and executable, without set-user-id and devices.
    fn default() -> MountFlags {
        MountFlags {
            read_only: false,
            suid: false,
            devices: false,
            exec: true,
            access_times: true,
        }
    }
}

/// Everything `zcache mount` is told.
#[derive(Clone, Debug)]
pub struct MountConfig {
    /// The tree to be shown.
    pub source: PathBuf,
    /// Where it is to be shown.
    pub target: PathBuf,
    /// The budget for compressed pages, what is remembered of others, and
    /// zcache's own memory.
    pub ram_bytes: u64,
    /// Which pages are kept.
    pub admit: Admit,
    /// How pages are compressed.
    pub codec: Codec,
    /// How compressed pages are packed.
    pub allocator: Allocator,
    /// How the kernel treats the mount.
    pub flags: MountFlags,
    /// Where statistics are written at the end and on SIGUSR1.
    pub stats: Option<PathBuf>,
    /// How many requests are served at once; `None` chooses by the processors.
    pub threads: Option<usize>,
}

/// The least budget that a mount can work in.
pub const RAM_BYTES_MIN: u64 = 16 << 20;
