//! Who is compared.
//!
//! Names only; how each is set up is in `run`.

use serde::{Deserialize, Serialize};

/// A way to run a program in less memory than it needs, or the unlimited reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Contender {
    /// No limit: the 100% of the others.
    Unlimited,
    /// Memory cgroup, swap on a zram device with lz4.
    Zram,
    /// Memory cgroup, zswap over a swap file on disk.
    Zswap,
    /// Memory cgroup, a swap file on disk alone.
    Disk,
    /// `zcache run` with the codec lz4.
    ZcacheLz4,
    /// `zcache run` with the codec zstd.
    ZcacheZstd,
}

impl Contender {
    /// The name in options and tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Contender::Unlimited => "unlimited",
            Contender::Zram => "zram",
            Contender::Zswap => "zswap",
            Contender::Disk => "disk",
            Contender::ZcacheLz4 => "zcache-lz4",
            Contender::ZcacheZstd => "zcache-zstd",
        }
    }

    /// The codec that `zcache run` is told, for its contenders.
    pub(crate) fn zcache_codec(self) -> Option<&'static str> {
        match self {
            Contender::ZcacheLz4 => Some("lz4"),
            Contender::ZcacheZstd => Some("zstd"),
            _ => None,
        }
    }

    /// Whether it needs the swap file.
    pub(crate) fn swaps_to_disk(self) -> bool {
        matches!(self, Contender::Zswap | Contender::Disk)
    }
}
