//! Who is compared, and with how much RAM.
//!
//! Names and budgets only; how each is set up is in `run`.

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
    /// `zcache run` as it is by default, in the RAM that zram takes in all.
    ZcacheAuto,
    /// `zcache run --codec lz4` in the RAM that zram takes in all.
    ZcacheLz4,
    /// `zcache run --codec zstd` in the RAM that zram takes in all.
    ZcacheZstd,
    /// Memory cgroup and a swap file on disk alone, in the RAM that zram takes in all.
    DiskTotal,
    /// Memory cgroup and a swap file on disk alone.
    Disk,
    /// `zcache run` as it is by default, in the RAM of the disk's cgroup.
    ZcacheAutoLimit,
    /// `zcache run --codec lz4` in the RAM of the disk's cgroup.
    ZcacheLz4Limit,
    /// `zcache run --codec zstd` in the RAM of the disk's cgroup.
    ZcacheZstdLimit,
}

/// How much RAM a contender gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Budget {
    /// All it wants.
    Unlimited,
    /// A share of the data; a pool that is not charged to the cgroup comes on top.
    Limit,
    /// That share and the peak of zram's pool.
    Total,
}

impl Contender {
    /// All of them, in the order of the tables.
    pub(crate) const ALL: [Contender; 11] = [
        Contender::Unlimited,
        Contender::Zram,
        Contender::Zswap,
        Contender::ZcacheAuto,
        Contender::ZcacheLz4,
        Contender::ZcacheZstd,
        Contender::DiskTotal,
        Contender::Disk,
        Contender::ZcacheAutoLimit,
        Contender::ZcacheLz4Limit,
        Contender::ZcacheZstdLimit,
    ];

    /// The name in options and tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Contender::Unlimited => "unlimited",
            Contender::Zram => "zram",
            Contender::Zswap => "zswap",
            Contender::ZcacheAuto => "zcache-auto",
            Contender::ZcacheLz4 => "zcache-lz4",
            Contender::ZcacheZstd => "zcache-zstd",
            Contender::DiskTotal => "disk-total",
            Contender::Disk => "disk",
            Contender::ZcacheAutoLimit => "zcache-auto-limit",
            Contender::ZcacheLz4Limit => "zcache-lz4-limit",
            Contender::ZcacheZstdLimit => "zcache-zstd-limit",
        }
    }

    /// How much RAM it gets.
    pub(crate) fn budget(self) -> Budget {
        match self {
            Contender::Unlimited => Budget::Unlimited,
            Contender::ZcacheAuto
            | Contender::ZcacheLz4
            | Contender::ZcacheZstd
            | Contender::DiskTotal => Budget::Total,
            Contender::Zram
            | Contender::Zswap
            | Contender::Disk
            | Contender::ZcacheAutoLimit
            | Contender::ZcacheLz4Limit
            | Contender::ZcacheZstdLimit => Budget::Limit,
        }
    }

    /// The codec that `zcache run` is told, for its contenders.
    pub(crate) fn zcache_codec(self) -> Option<&'static str> {
        match self {
            Contender::ZcacheAuto | Contender::ZcacheAutoLimit => Some("auto"),
            Contender::ZcacheLz4 | Contender::ZcacheLz4Limit => Some("lz4"),
            Contender::ZcacheZstd | Contender::ZcacheZstdLimit => Some("zstd"),
            _ => None,
        }
    }

    /// Whether it needs the swap file.
    pub(crate) fn swaps_to_disk(self) -> bool {
        matches!(
            self,
            Contender::Zswap | Contender::Disk | Contender::DiskTotal
        )
    }
}
