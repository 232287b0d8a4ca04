//! A program whose peak is four times its RAM, under `zcache run`: its pages go to the disk, to servers, or to both.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::failed;
use crate::host::{End, HostError, Interrupt, run_alone};
use crate::size::Size;
use crate::workload::Report;

/// The peak, by its RAM.
const TIMES: u64 = 4;

/// What one run may take at most.
const RUN_MAX: Duration = Duration::from_secs(300);

/// Where pages go that do not fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(super) enum Where {
    Disk,
    Remote,
    Both,
}

impl Where {
    pub(super) const ALL: [Where; 3] = [Where::Disk, Where::Remote, Where::Both];

    /// What tables call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Where::Disk => "disk only",
            Where::Remote => "remote only (`two-copies`, two servers)",
            Where::Both => "both (durability `disk`)",
        }
    }
}

/// One run.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ProgramRun {
    pub(super) delay_us: u64,
    pub(super) place: Where,
    pub(super) round: u32,
    /// From start to end, in seconds.
    pub(super) wall_seconds: f64,
    pub(super) report: Report,
}

/// Runs the workload once.
pub(super) fn measure(
    zcache: &Path,
    place: Where,
    addresses: &[(String, u16)],
    bytes: Size,
    ops: u64,
    interrupt: &Interrupt,
) -> Result<(f64, Report), HostError> {
    let bench = std::env::current_exe().map_err(|error| failed("zcache-bench", error))?;
    let ram = Size(bytes.0 / TIMES).to_string();
    let mut line: Vec<OsString> = vec![zcache.into()];
    line.extend(["run", "--ram", &ram].map(OsString::from));
    if place != Where::Disk {
        for (host, port) in addresses {
            line.extend(["--remote".into(), format!("redis://{host}:{port}").into()]);
        }
        line.extend(["--remote-plaintext", "--remote-seal", "always"].map(OsString::from));
    }
    if place == Where::Remote {
        line.extend(["--swap", "none", "--remote-durability", "two-copies"].map(OsString::from));
    }
    line.extend(["--".into(), bench.into(), "workload".into()]);
    let options = [
        ("--bytes", bytes.to_string()),
        ("--ops", ops.to_string()),
        ("--warmup", "0".to_owned()),
        // The number of accesses says when it ends.
        ("--seconds", RUN_MAX.as_secs().to_string()),
    ];
    for (name, value) in options {
        line.extend([name.into(), value.into()]);
    }
    let ended = run_alone(&line, RUN_MAX, interrupt)?;
    let report = serde_json::from_str(&ended.stdout);
    match (ended.end, report) {
        (End::Status(_), Ok(report)) => Ok((ended.wall_seconds, report)),
        (end, _) => Err(failed(
            &line.join(&OsString::from(" ")).to_string_lossy(),
            format!("{end:?} {}", ended.stderr),
        )),
    }
}
