//! What a run is asked to do.

use std::ffi::OsString;
use std::path::PathBuf;

use zcache::tier::TierSource;
use zcache::{Allocator, CodecChoice};

/// Where the statistics of a run go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatsTarget {
    /// A file, written at the end.
    File(PathBuf),
    /// Standard error, after the summary (standard output is the program's).
    Standard,
}

/// Everything `zcache run` is told.
#[derive(Clone, Debug)]
pub struct RunConfig {
    /// The hard budget in bytes for the whole tree.
    pub ram_bytes: u64,
    /// Where the coldest blocks go, in this order; none for nowhere.
    pub tiers: Vec<TierSource>,
    /// How pages are compressed.
    pub codec: CodecChoice,
    /// Whether dictionaries are trained for zstd.
    pub dictionaries: bool,
    /// The most CPU time that recompression of cold pages may take, in percent of
    /// one processor; 0 for none.
    pub cold_cpu_percent: u32,
    /// How compressed pages are packed.
    pub allocator: Allocator,
    /// Whether and where statistics are written.
    pub stats: Option<StatsTarget>,
    /// The program and its arguments.
    pub command: Vec<OsString>,
    /// Variables of our environment that are not for the program.
    pub hidden_variables: Vec<OsString>,
}

/// The least budget that a run can work in.
pub const RAM_BYTES_MIN: u64 = 16 << 20;
