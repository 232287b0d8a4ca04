//! One run of a test program: within a bound of time, its whole tree gone afterwards.
//!
//! tests/support/watch.c stands above the tree and ends all of it, whoever adopted it.

use std::fs::{self, File};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::Places;
use super::plans::{STRESS, Test};
use super::results::{Results, Verdict};
use super::source;

/// Between two looks whether a run has ended.
const INTERVAL: Duration = Duration::from_millis(5);
/// In this time `watch` ends a tree.
const GRACE: Duration = Duration::from_secs(10);

/// What runs need beside the programs.
pub(super) struct Tools {
    pub(super) watch: PathBuf,
    pub(super) filler: PathBuf,
    pub(super) zcache: PathBuf,
}

/// How a program is run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    First,
    Second,
    Under,
}

/// A run that has ended.
pub(super) struct Run {
    pub(super) results: Results,
    pub(super) elapsed: Duration,
    /// What zcache counted.
    pub(super) paged: Paged,
}

/// Proof that pages went and came; all 0 without statistics.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Paged {
    pub(super) evicted: u64,
    pub(super) loaded: u64,
    pub(super) written: u64,
}

impl Paged {
    fn read(json: &str) -> Paged {
        let number = |name: &str| {
            let (_, rest) = json.split_once(&format!("\"{name}\":"))?;
            let rest = rest.trim_start();
            let end = rest.find(|c: char| !c.is_ascii_digit())?;
            rest[..end].parse().ok()
        };
        Paged {
            evicted: number("evicted_pages").unwrap_or(0),
            loaded: number("loaded_pages").unwrap_or(0),
            written: number("writeback_pages").unwrap_or(0),
        }
    }
}

/// Runs a test program to its end.
///
/// # Errors
/// It could not be started.
pub(super) fn run(places: &Places, tools: &Tools, test: &Test, mode: Mode) -> Result<Run, String> {
    let log = places.log(
        &test.name(),
        match mode {
            Mode::First => "alone-1",
            Mode::Second => "alone-2",
            Mode::Under => "under",
        },
    );
    let stats = log.with_extension("json");
    let _ = fs::remove_file(&stats);
    let mut command = command(places, tools, test, mode, &stats, &log)?;
    let start = Instant::now();
    let mut child = command
        .spawn()
        .map_err(|error| format!("{command:?}: {error}"))?;
    let status = wait(&mut child, test.bound)?;
    let elapsed = start.elapsed();
    let said = fs::read(&log).map_err(|error| format!("{}: {error}", log.display()))?;
    let report = fs::read_to_string(log.with_extension("report")).unwrap_or_default();
    // What hangs is ended with all that it started.
    let left = status.is_some() && !report.lines().any(|line| line == "left_running=0");
    Ok(Run {
        results: Results::read(&String::from_utf8_lossy(&said), verdict(status), left),
        elapsed,
        paged: Paged::read(&fs::read_to_string(&stats).unwrap_or_default()),
    })
}

fn command(
    places: &Places,
    tools: &Tools,
    test: &Test,
    mode: Mode,
    stats: &Path,
    log: &Path,
) -> Result<Command, String> {
    let mut command = Command::new(&tools.watch);
    // Nothing is measured here, so the tree need not be looked at often.
    command.args(["--interval-ms", "20"]);
    // zcache's pager may end after the program.
    command.args(["--linger-ms", "2000", "--report"]);
    command.arg(log.with_extension("report")).arg("--");
    if mode == Mode::Under {
        command.arg(&tools.zcache).arg("run");
        command.arg("--ram").arg(format!("{}M", test.ram_mib));
        match test.swap {
            true => command.arg("--swap").arg(&places.cache),
            false => command.args(["--swap", "none"]),
        };
        command.arg("--stats").arg(stats).arg("--");
    }
    if test.filler_mib > 0 {
        command.arg(&tools.filler).arg(test.filler_mib.to_string());
    }
    let folder = if test.suite == STRESS {
        command.arg("stress-ng");
        places.cache.clone()
    } else {
        source::folder(places, test.suite)
    };
    let file = File::create(log).map_err(|error| format!("{}: {error}", log.display()))?;
    let same = file
        .try_clone()
        .map_err(|error| format!("{}: {error}", log.display()))?;
    command
        .args(test.words(&folder))
        .current_dir(folder)
        // An interrupt from the terminal ends this task, and `watch` then ends the tree.
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(same);
    Ok(command)
}

/// Waits for the end; ends what takes longer. Nothing if it did.
fn wait(child: &mut Child, bound: Duration) -> Result<Option<ExitStatus>, String> {
    let failed = |error| format!("a run cannot be waited for: {error}");
    let until = |child: &mut Child, end: Instant| loop {
        match child.try_wait() {
            Ok(None) if Instant::now() < end => thread::sleep(INTERVAL),
            result => return result,
        }
    };
    if let Some(status) = until(child, Instant::now() + bound).map_err(failed)? {
        return Ok(Some(status));
    }
    let _ = Command::new("kill").arg(child.id().to_string()).status();
    if until(child, Instant::now() + GRACE)
        .map_err(failed)?
        .is_none()
    {
        return Err(format!("process {} cannot be ended", child.id()));
    }
    Ok(None)
}

fn verdict(status: Option<ExitStatus>) -> Verdict {
    let Some(status) = status else {
        return Verdict::Hung;
    };
    match (status.code(), status.signal()) {
        (Some(code), _) => Verdict::Exit(code),
        (None, signal) => Verdict::Signal(signal.unwrap_or(0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_read() {
        let json = r#"{"evicted_pages": 12, "rejected": {"loaded_pages":3}, "writeback_pages":0}"#;
        let paged = Paged {
            evicted: 12,
            loaded: 3,
            written: 0,
        };
        assert_eq!(Paged::read(json), paged);
        assert_eq!(Paged::read(""), Paged::default());
    }

    #[test]
    fn what_does_not_end_is_ended() {
        let mut child = Command::new("sleep").arg("100").spawn().unwrap();
        let start = Instant::now();
        let status = wait(&mut child, Duration::from_millis(50)).unwrap();
        assert_eq!(verdict(status), Verdict::Hung);
        assert!(start.elapsed() < GRACE);
    }

    #[test]
    fn ends_are_told_apart() {
        for (script, expected) in [
            ("exit 0", Verdict::Exit(0)),
            ("exit 4", Verdict::Exit(4)),
            ("kill -9 $$", Verdict::Signal(9)),
        ] {
            let mut child = Command::new("sh").args(["-c", script]).spawn().unwrap();
            let status = wait(&mut child, Duration::from_secs(60)).unwrap();
            assert_eq!(verdict(status), expected);
        }
    }
}
