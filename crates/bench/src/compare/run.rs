//! One run of one contender: set up, run, measure, take down.
//!
//! Each run starts from the same machine: what it sets up is undone before the next one starts. The
//! limit, the pool and the peak are taken from the kernel, not from the contender.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::time::Duration;

use super::Options;
use super::contender::{Budget, Contender};
use super::record::{Cell, Outcome, Record};
use crate::host::{
    self, Cgroup, Controller, End, Ended, HostError, Interrupt, SwapFile, Undo, Version, Zram,
    Zswap,
};
use crate::size::MIB;
use crate::workload::Report;

/// Swap beyond the data, for the program itself and for slots that are freed late.
const SWAP_SLACK_BYTES: u64 = 128 * MIB;

/// A contender that holds more than this share of its limit does not count.
const OVERSHOOT_PERCENT: u64 = 102;

/// Everything that runs have in common.
pub(super) struct Bench<'a> {
    options: &'a Options,
    undo: &'a mut Undo,
    interrupt: Interrupt,
    controller: Controller,
    swap_file: Option<SwapFile>,
    programs: Programs,
    stats: PathBuf,
}

/// The programs that are run.
pub(super) struct Programs {
    workload: PathBuf,
    zcache: PathBuf,
}

impl Programs {
    /// Finds them, before anything is changed.
    ///
    /// # Errors
    /// [`HostError::Command`] when zcache is to be compared and is not there.
    pub(super) fn find(options: &Options) -> Result<Programs, HostError> {
        let workload = std::env::current_exe().map_err(|error| HostError::Command {
            line: "finding this program".into(),
            detail: error.to_string(),
        })?;
        let zcache = options
            .zcache
            .clone()
            .unwrap_or_else(|| workload.with_file_name("zcache"));
        let wants_zcache = options
            .contenders
            .iter()
            .any(|c| c.zcache_codec().is_some());
        if wants_zcache && !zcache.is_file() {
            return Err(HostError::Command {
                line: zcache.display().to_string(),
                detail: "not found: build it (cargo build --release), name it with --zcache, \
                         or leave it out with --contenders unlimited,zram,zswap,disk"
                    .into(),
            });
        }
        Ok(Programs { workload, zcache })
    }
}

/// What holds a contender's pages, for as long as its run lasts.
enum Setup {
    Nothing,
    Zram(Zram),
    Zswap(Zswap),
}

impl Setup {
    fn sample(&mut self) {
        if let Setup::Zswap(zswap) = self {
            zswap.sample();
        }
    }

    /// Peak of the pool that the cgroup is not charged for.
    fn pool_bytes_peak(&self, version: Version) -> Result<u64, HostError> {
        match self {
            Setup::Zram(zram) => zram.pool_bytes_peak(),
            Setup::Zswap(zswap) if version == Version::V1 => Ok(zswap.pool_bytes_peak()),
            Setup::Nothing | Setup::Zswap(_) => Ok(0),
        }
    }
}

impl<'a> Bench<'a> {
    /// Finds the memory controller and makes the swap file.
    ///
    /// # Errors
    /// [`HostError`] for anything that would fail every run.
    pub(super) fn prepare(
        options: &'a Options,
        programs: Programs,
        undo: &'a mut Undo,
        interrupt: Interrupt,
    ) -> Result<Bench<'a>, HostError> {
        let controller = Controller::find()?;
        let stats = std::env::temp_dir().join(format!("zcache-bench-{}.json", std::process::id()));
        let mut bench = Bench {
            options,
            undo,
            interrupt,
            controller,
            swap_file: None,
            programs,
            stats,
        };
        bench.make_swap_file()?;
        Ok(bench)
    }

    fn make_swap_file(&mut self) -> Result<(), HostError> {
        if self
            .options
            .contenders
            .iter()
            .any(|contender| contender.swaps_to_disk())
        {
            let data = self
                .options
                .bytes
                .iter()
                .map(|size| size.0)
                .max()
                .unwrap_or(0);
            let bytes = data + SWAP_SLACK_BYTES;
            let file = SwapFile::create(self.undo, &self.options.swap_dir, bytes)?;
            self.swap_file = Some(file);
        }
        Ok(())
    }

    /// Runs one contender on one cell. `ram_bytes` is the total that zram took in this repeat.
    ///
    /// # Errors
    /// [`HostError`] when the machine cannot be set up, or after Ctrl-C.
    pub(super) fn run(
        &mut self,
        cell: Cell,
        contender: Contender,
        repeat: u32,
        ram_bytes: Option<u64>,
    ) -> Result<Record, HostError> {
        let limit_bytes = self.limit_bytes(cell, contender, ram_bytes);
        let mut record = Record {
            cell,
            contender,
            codec: contender.zcache_codec().unwrap_or(""),
            repeat,
            outcome: Outcome::Ok,
            limit_bytes,
            pool_bytes_peak: 0,
            anonymous_bytes_peak: 0,
            report: None,
            zcache_stats: None,
            wall_seconds: 0.0,
            cpu_seconds: 0.0,
        };
        let mark = self.undo.mark();
        let result = self.run_set_up(&mut record);
        self.undo.undo_to(mark);
        match result {
            Err(HostError::Missing { what }) => record.outcome = Outcome::Unavailable(what.into()),
            other => other?,
        }
        Ok(record)
    }

    fn run_set_up(&mut self, record: &mut Record) -> Result<(), HostError> {
        let cell = record.cell;
        let mut setup = self.set_up(cell, record.contender)?;
        match &setup {
            Setup::Zram(_) => record.codec = "lz4",
            Setup::Zswap(zswap) => record.codec = zswap.compressor(),
            Setup::Nothing => {}
        }
        let is_zcache = record.contender.zcache_codec().is_some();
        let cgroup_limit = record.limit_bytes.filter(|_| !is_zcache);
        let cgroup = Cgroup::create(self.undo, &self.controller, cgroup_limit)?;
        let line = self.command_line(cell, record.contender, record.limit_bytes);
        let time_max = Duration::from_secs(self.options.time_max);
        let mut anonymous_bytes_peak = 0;
        let ended = host::run(&cgroup.procs(), &line, time_max, &self.interrupt, || {
            setup.sample();
            // A sample that fails is one sample less of many.
            anonymous_bytes_peak = anonymous_bytes_peak.max(cgroup.anonymous_bytes().unwrap_or(0));
        })?;
        record.pool_bytes_peak = setup.pool_bytes_peak(self.controller.version())?;
        record.anonymous_bytes_peak = anonymous_bytes_peak;
        record.wall_seconds = ended.wall_seconds;
        record.cpu_seconds = ended.cpu_seconds;
        record.report = serde_json::from_str::<Report>(ended.stdout.trim()).ok();
        if is_zcache {
            let stats = std::fs::read_to_string(&self.stats).unwrap_or_default();
            record.zcache_stats = serde_json::from_str(&stats).ok();
            // The file may be missing when zcache failed; the outcome says so.
            let _ = std::fs::remove_file(&self.stats);
        }
        record.outcome = judge(&ended, record.report.as_ref(), cgroup.oom_kills()?);
        let allowed = record
            .limit_bytes
            .map_or(u64::MAX, |limit| limit / 100 * OVERSHOOT_PERCENT);
        if record.outcome == Outcome::Ok && anonymous_bytes_peak > allowed {
            record.outcome = Outcome::OverBudget;
        }
        Ok(())
    }

    fn set_up(&mut self, cell: Cell, contender: Contender) -> Result<Setup, HostError> {
        if contender == Contender::Zswap {
            let zswap = Zswap::start(self.undo)?;
            self.swap_on()?;
            return Ok(Setup::Zswap(zswap));
        }
        host::turn_zswap_off(self.undo)?;
        match contender {
            Contender::Zram => Ok(Setup::Zram(Zram::start(
                self.undo,
                cell.bytes + SWAP_SLACK_BYTES,
            )?)),
            Contender::Disk | Contender::DiskTotal => self.swap_on().map(|()| Setup::Nothing),
            _ => Ok(Setup::Nothing),
        }
    }

    fn swap_on(&mut self) -> Result<(), HostError> {
        match &self.swap_file {
            Some(file) => file.start(self.undo),
            None => Err(HostError::Missing {
                what: "no swap file was made",
            }),
        }
    }

    fn limit_bytes(&self, cell: Cell, contender: Contender, ram_bytes: Option<u64>) -> Option<u64> {
        let limit = cell.bytes / 100 * self.options.limit_percent;
        // Without a zram run to go by: what its pool would hold of the data beyond the limit.
        let total = ram_bytes.unwrap_or(limit + (cell.bytes - limit) / u64::from(cell.ratio));
        match contender.budget() {
            Budget::Unlimited => None,
            Budget::Total => Some(total),
            Budget::Limit if contender == Contender::Zswap && self.charges_zswap() => Some(total),
            Budget::Limit => Some(limit),
        }
    }

    /// Whether zswap's pool counts as part of the cgroup's memory here.
    fn charges_zswap(&self) -> bool {
        self.controller.version() == Version::V2
    }

    fn command_line(
        &self,
        cell: Cell,
        contender: Contender,
        limit_bytes: Option<u64>,
    ) -> Vec<OsString> {
        let mut line: Vec<OsString> = Vec::new();
        if let (Some(codec), Some(ram_bytes)) = (contender.zcache_codec(), limit_bytes) {
            line.push(self.programs.zcache.clone().into());
            line.extend(["run", "--ram"].map(OsString::from));
            line.push(ram_bytes.to_string().into());
            line.extend(["--codec", codec, "--stats"].map(OsString::from));
            line.push(self.stats.clone().into());
            line.extend(
                self.options
                    .zcache_options
                    .split_whitespace()
                    .map(OsString::from),
            );
            line.push("--".into());
        }
        line.push(self.programs.workload.clone().into());
        let numbers = [
            ("--bytes", cell.bytes.to_string()),
            ("--ratio", cell.ratio.to_string()),
            ("--pattern", cell.pattern.name().to_owned()),
            ("--threads", cell.threads.to_string()),
            ("--writes", self.options.writes.to_string()),
            ("--seconds", self.options.seconds.to_string()),
            ("--warmup", self.options.warmup.to_string()),
        ];
        line.push("workload".into());
        for (name, value) in numbers {
            line.push(name.into());
            line.push(value.into());
        }
        line
    }
}

/// The outcome of a run, from its end, its report and the kernel's count of kills.
fn judge(ended: &Ended, report: Option<&Report>, oom_kills: u64) -> Outcome {
    let status = match ended.end {
        End::TimeUp => return Outcome::TimeUp,
        End::Status(status) => status,
    };
    if report.is_some_and(|report| report.wrong_bytes > 0) {
        return Outcome::WrongBytes;
    }
    if status.success() && report.is_some() {
        return Outcome::Ok;
    }
    if oom_kills > 0 {
        return Outcome::OomKilled;
    }
    let end = match (status.signal(), status.code()) {
        (Some(signal), _) => format!("signal {signal}"),
        (None, code) => format!("exit code {}", code.unwrap_or(-1)),
    };
    let lines: Vec<&str> = ended.stderr.trim().lines().rev().take(5).collect();
    let said = lines.into_iter().rev().collect::<Vec<_>>().join(" / ");
    Outcome::Failed(format!("{end}: {said}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::ExitStatus;

    fn ended(end: End) -> Ended {
        let (stdout, stderr) = (String::new(), "one\ntwo\n".into());
        Ended {
            end,
            stdout,
            stderr,
            wall_seconds: 1.0,
            cpu_seconds: 1.0,
        }
    }

    #[test]
    fn every_end_has_its_outcome() {
        let status = |raw| End::Status(ExitStatus::from_raw(raw));
        assert_eq!(judge(&ended(End::TimeUp), None, 0), Outcome::TimeUp);
        assert_eq!(judge(&ended(status(9)), None, 1), Outcome::OomKilled);
        assert_eq!(
            judge(&ended(status(125 << 8)), None, 0),
            Outcome::Failed("exit code 125: one / two".into())
        );
        // Exit code 0 without a report is a failure too.
        assert!(matches!(
            judge(&ended(status(0)), None, 0),
            Outcome::Failed(_)
        ));
    }
}
