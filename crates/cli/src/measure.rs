//! `zcache measure`: reads the command line, shows the progress on standard
//! error, and prints the report on standard output.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use clap::Args;
use zcache_measure::{Options, Progress, Target, measure};

use crate::size;

/// A terminal's line is renewed so often.
const TERMINAL_PERIOD: Duration = Duration::from_millis(100);
/// Elsewhere a line is written so often, and no more of them than this.
const LOG_PERIOD: Duration = Duration::from_secs(2);
const LOG_LINES_MAX: u32 = 60;

/// What would zcache make of this? Samples processes or files.
///
/// Reads some of a live process's anonymous pages, or of a file's pages,
/// without stopping it, and says how far each codec shrinks them, what each
/// allocator makes of that, and the `zcache run --ram` at which the whole would
/// hold. Several targets are measured each by itself and all together.
///
/// Only pages in RAM are read; pages in swap, or in the store of a `zcache run`,
/// are left where they are. Another user's process needs root or CAP_SYS_PTRACE.
///
/// Ends with 0, or with 125 when a target cannot be measured.
#[derive(Args)]
pub(crate) struct Measure {
    /// The most to read of all targets together.
    #[arg(long, value_name = "SIZE", default_value = "64M", value_parser = size::parse)]
    sample: u64,

    /// Read everything, however large it is. The copy takes as much RAM.
    #[arg(long, conflicts_with = "sample")]
    all: bool,

    /// Which pages are drawn: the same number draws the same pages again.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,

    /// Print JSON (docs/measure.md) instead of tables.
    #[arg(long)]
    json: bool,

    /// Numbers of processes, or files; write ./12 for a file of that name.
    #[arg(required = true, value_name = "PID|FILE")]
    targets: Vec<OsString>,
}

impl Measure {
    /// Measures and prints.
    ///
    /// # Errors
    /// What to tell the user.
    pub(crate) fn run(&self) -> Result<(), String> {
        if self.sample < 4096 {
            return Err(format!(
                "--sample {} holds not even one page of 4K; give more",
                self.sample
            ));
        }
        let options = Options {
            targets: self.targets.iter().map(|t| Target::parse(t)).collect(),
            sample_bytes_max: (!self.all).then_some(self.sample),
            seed: self.seed,
        };
        let mut shown = Shown::new();
        let report = measure(&options, &mut |progress| shown.show(progress));
        shown.clear();
        let report = report.map_err(|error| error.to_string())?;
        let text = match self.json {
            true => {
                serde_json::to_string_pretty(&report).map_err(|error| error.to_string())? + "\n"
            }
            false => report.to_string(),
        };
        match io::stdout().write_all(text.as_bytes()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(format!("the report cannot be written: {error}"))
            }
            _ => Ok(()),
        }
    }
}

/// What was last shown of the progress.
struct Shown {
    terminal: bool,
    last: Instant,
    lines: u32,
}

impl Shown {
    fn new() -> Shown {
        Shown {
            terminal: io::stderr().is_terminal(),
            last: Instant::now(),
            lines: 0,
        }
    }

    fn show(&mut self, progress: &Progress<'_>) {
        let period = match self.terminal {
            true => TERMINAL_PERIOD,
            false => LOG_PERIOD,
        };
        if self.last.elapsed() < period || self.lines >= LOG_LINES_MAX {
            return;
        }
        self.last = Instant::now();
        let percent = 100 * progress.done / progress.total.max(1);
        let line = format!("{}: {} {percent}%", progress.target, progress.stage);
        // Nobody may be listening, which is no reason to stop.
        let _ = match self.terminal {
            true => write!(io::stderr(), "\r\x1b[K{line}"),
            false => {
                self.lines += 1;
                writeln!(io::stderr(), "zcache: {line}")
            }
        };
    }

    /// Takes the terminal's line away.
    fn clear(&self) {
        if self.terminal {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
