//! What a mount is asked to do.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

use zcache::tier::TierSource;
use zcache::{Allocator, CodecChoice, UnknownName};

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

/// How requests and answers go between the kernel and zcache.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Transport {
    /// By io_uring where the kernel offers it, otherwise by `/dev/fuse`.
    #[default]
    Auto,
    /// By io_uring (Linux 6.14, where an administrator has enabled it), or not
    /// at all.
    Uring,
    /// By `/dev/fuse`.
    Dev,
}

impl Transport {
    /// All of them, in the order in which help texts list them.
    pub const ALL: [Transport; 3] = [Transport::Auto, Transport::Uring, Transport::Dev];

    /// The name by which users choose it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Transport::Auto => "auto",
            Transport::Uring => "uring",
            Transport::Dev => "dev",
        }
    }
}

impl FromStr for Transport {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        let found = Self::ALL.into_iter().find(|one| one.name() == name);
        found.ok_or_else(|| UnknownName {
            kind: "transport",
            name: name.to_owned(),
            known: Self::ALL.map(Transport::name).to_vec(),
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
    pub codec: CodecChoice,
    /// The most CPU time that recompression of cold pages may take, in percent of
    /// one processor; 0 for none.
    pub cold_cpu_percent: u32,
    /// How compressed pages are packed.
    pub allocator: Allocator,
    /// Where the oldest pages go, in this order; without any they are dropped.
    pub tiers: Vec<TierSource>,
    /// Watch the source's filesystem where that is possible.
    pub watch: bool,
    /// How the kernel treats the mount.
    pub flags: MountFlags,
    /// Where statistics are written at the end and on SIGUSR1.
    pub stats: Option<PathBuf>,
    /// How requests and answers go between the kernel and zcache.
    pub transport: Transport,
    /// How many requests are served at once; `None` chooses by the processors.
    pub threads: Option<usize>,
    /// The command that runs [`guard`](crate::guard()); empty for none.
    pub guard: Vec<OsString>,
}

/// The least budget that a mount can work in.
pub const RAM_BYTES_MIN: u64 = 16 << 20;
