//! What is kept of every run, and the file of all runs.

use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use super::contender::Contender;
use crate::host::{HostError, Machine};
use crate::workload::{Pattern, Report};

/// One choice of what is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Cell {
    /// Bytes of data.
    pub(crate) bytes: u64,
    /// Ratio of the data under lz4, as the option names it.
    pub(crate) ratio: u32,
    /// Order of accesses.
    #[serde(serialize_with = "pattern_name")]
    pub(crate) pattern: Pattern,
    /// Threads.
    pub(crate) threads: u32,
}

fn pattern_name<S: serde::Serializer>(pattern: &Pattern, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(pattern.name())
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Outcome {
    /// Exit code 0 and a report without wrong bytes.
    Ok,
    /// The kernel killed it because of its cgroup's limit.
    OomKilled,
    /// It took too long.
    TimeUp,
    /// It ended well, but held more than 102% of its RAM.
    OverBudget,
    /// The workload found wrong bytes.
    WrongBytes,
    /// Anything else, with what is known of it.
    Failed(String),
    /// The machine has not what it needs; it was not run.
    Unavailable(String),
}

/// One run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Record {
    /// What was run.
    pub(crate) cell: Cell,
    /// Under whom.
    pub(crate) contender: Contender,
    /// The codec, where the contender has one.
    pub(crate) codec: &'static str,
    /// Number of the repeat, from 0.
    pub(crate) repeat: u32,
    /// How it ended.
    pub(crate) outcome: Outcome,
    /// Limit of the cgroup, or `--ram`; none for the reference.
    pub(crate) limit_bytes: Option<u64>,
    /// Peak of a compressed pool that is not charged to the limit.
    pub(crate) pool_bytes_peak: u64,
    /// Peak of the anonymous and shared memory of the run's cgroup, looked at 50 times a second.
    pub(crate) anonymous_bytes_peak: u64,
    /// What the workload reported.
    pub(crate) report: Option<Report>,
    /// What zcache reported with `--stats`.
    pub(crate) zcache_stats: Option<Value>,
    /// From start to end, with fill and verification.
    pub(crate) wall_seconds: f64,
    /// User and system time, with fill and verification.
    pub(crate) cpu_seconds: f64,
}

impl Record {
    /// Accesses a second, of a run that ended well.
    pub(crate) fn speed(&self) -> Option<f64> {
        match self.outcome {
            Outcome::Ok => self.report.as_ref().map(|report| report.ops_per_second),
            _ => None,
        }
    }

    /// Whether content was wrong.
    pub(crate) fn is_wrong(&self) -> bool {
        self.outcome == Outcome::WrongBytes
    }

    /// Whether zcache was run and did not end well.
    pub(crate) fn is_zcache_failure(&self) -> bool {
        self.contender.zcache_codec().is_some() && self.speed().is_none()
    }

    /// Limit plus pool: the RAM that the contender may hold; 0 for the reference.
    pub(crate) fn total_bytes(&self) -> u64 {
        self.limit_bytes
            .map_or(0, |limit| limit + self.pool_bytes_peak)
    }
}

/// Writes the machine and all runs as JSON.
///
/// # Errors
/// [`HostError::File`] when the file cannot be written.
pub(crate) fn write(path: &Path, machine: &Machine, records: &[Record]) -> Result<(), HostError> {
    let value = serde_json::json!({ "machine": machine, "runs": records });
    std::fs::write(path, format!("{value:#}\n")).map_err(|source| HostError::File {
        path: path.to_owned(),
        source,
    })
}
