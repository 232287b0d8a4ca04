//! The program that touches four times its memory at random, under `zcache run --remote`, and what zcache says of the run.

use super::server::Server;
use crate::support::job::{Running, number, tail};
use crate::support::{Capped, Ended, Job, Outcome, TempDir, compile, eventually, tree};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A run that is not at its end after this hangs.
const BOUND: Duration = Duration::from_secs(150);

/// When the program ends by itself, should a test fail to end it.
const SECONDS: &str = "120";

/// A program to be run.
pub(super) struct Scattering {
    ram_mib: u64,
    bytes_mib: u64,
    options: Vec<(String, OsString)>,
    flags: Vec<String>,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Scattering {
    /// With these servers.
    pub(super) fn over<U: AsRef<str>>(urls: impl IntoIterator<Item = U>) -> Scattering {
        let remote = |url: U| ("--remote".to_owned(), OsString::from(url.as_ref()));
        Scattering {
            ram_mib: 18,
            bytes_mib: 72,
            options: urls.into_iter().map(remote).collect(),
            flags: Vec::new(),
            arguments: Vec::new(),
            environment: Vec::new(),
        }
    }

    /// An option of `zcache run`.
    pub(super) fn option(mut self, name: &str, value: impl Into<OsString>) -> Scattering {
        self.options.push((name.to_owned(), value.into()));
        self
    }

    /// An option without a value.
    pub(super) fn flag(mut self, name: &str) -> Scattering {
        self.flags.push(name.to_owned());
        self
    }

    /// An argument of the program.
    pub(super) fn argument(mut self, argument: &str) -> Scattering {
        self.arguments.push(argument.to_owned());
        self
    }

    pub(super) fn env(mut self, name: &str, value: &str) -> Scattering {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    fn capped(&self) -> Capped {
        let mut capped = Capped::ram_mib(self.ram_mib);
        for (name, value) in &self.options {
            capped = capped.option(name, value.clone());
        }
        for flag in &self.flags {
            capped = capped.flag(flag);
        }
        capped
    }

    /// Starts it, and waits until its memory is full.
    pub(super) fn start(self) -> Scattered {
        let files = TempDir::new("scattered");
        let (stop, stats) = (files.file("stop"), files.file("stats.json"));
        let capped = self.capped().option("--stats", &stats);
        let mut job = Job::new(compile::scatter())
            .args([
                "--bytes",
                &format!("{}M", self.bytes_mib),
                "--seconds",
                SECONDS,
                "--until",
            ])
            .arg(&stop)
            .args(&self.arguments)
            .bound(BOUND);
        for (name, value) in &self.environment {
            job = job.env(name, value);
        }
        let mut running = job.start_under(&capped);
        running.wait_for_stdout("ready", 1);
        Scattered {
            running,
            stop,
            stats,
            ram_bytes: self.ram_mib << 20,
            _files: files,
        }
    }

    /// What zcache says that refuses it at the start, in bounded time and before the program has run.
    #[track_caller]
    pub(super) fn assert_refused(self, words: &[&str]) -> String {
        let files = TempDir::new("refused");
        let mark = files.file("mark");
        let mut job = Job::new("touch").arg(&mark).bound(Duration::from_secs(30));
        for (name, value) in &self.environment {
            job = job.env(name, value);
        }
        let outcome = job.start_under(&self.capped()).wait();
        assert!(
            matches!(outcome.ended, Ended::Exit(125 | 2)),
            "{:?}: {}",
            outcome.ended,
            outcome.err()
        );
        outcome.assert_says(words);
        assert!(!mark.exists(), "the program ran all the same");
        outcome.err()
    }
}

/// A program under way.
pub(super) struct Scattered {
    pub(super) running: Running,
    stop: PathBuf,
    stats: PathBuf,
    ram_bytes: u64,
    _files: TempDir,
}

impl Scattered {
    fn passed(&self) -> usize {
        self.running.stdout().matches("pass ").count()
    }

    /// Waits for the end of so many more passes; the first of them is under way already.
    #[track_caller]
    pub(super) fn passes(&mut self, count: usize) {
        let until = self.passed() + count;
        self.running.wait_for_stdout("pass ", until);
    }

    /// Has zcache say what the remote tier did so far.
    #[track_caller]
    pub(super) fn so_far(&self) -> SoFar {
        let said = |running: &Running| {
            let text = running.stderr();
            let lines = text.lines().filter(|line| line.contains("servers answer"));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        let before = said(&self.running).len();
        tree::signal(self.running.first(), "USR1");
        let mut lines = Vec::new();
        let came = eventually(Duration::from_secs(30), || {
            lines = said(&self.running);
            lines.len() > before
        });
        assert!(
            came,
            "no summary of the remote tier: {}",
            self.running.stderr()
        );
        SoFar::read(&lines[lines.len() - 1])
    }

    /// Waits until the remote tier's summary is as wanted.
    #[track_caller]
    pub(super) fn wait_until(&self, what: &str, holds: impl Fn(&SoFar) -> bool) -> SoFar {
        let begun = Instant::now();
        loop {
            let so_far = self.so_far();
            if holds(&so_far) {
                return so_far;
            }
            assert!(
                begun.elapsed() < Duration::from_secs(40),
                "not within 40 s: {what}: {so_far:?}\n{}",
                tail(&self.running.stderr())
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Has it make its last pass; whatever came of it.
    pub(super) fn end(self) -> Outcome {
        std::fs::write(&self.stop, "").expect("the file that ends the program");
        self.running.wait()
    }

    /// Has it make its last pass, and checks that no byte was wrong and no page lost.
    #[track_caller]
    pub(super) fn held(self) -> Held {
        std::fs::write(&self.stop, "").expect("the file that ends the program");
        let outcome = self.running.wait();
        outcome.assert_success().assert_within(self.ram_bytes);
        let said = outcome.err();
        assert!(!said.contains("counts do not add up"), "{}", tail(&said));
        let stats = std::fs::read_to_string(&self.stats).expect("zcache wrote its statistics");
        let held = Held { outcome, stats };
        assert_eq!(held.count("lost_pages"), 0, "{}", held.stats);
        assert!(
            held.outcome.out().ends_with("held\n"),
            "{}",
            held.outcome.out()
        );
        eprintln!(
            "longest touch {:?}, of each pass {:?}\n{}",
            held.longest(),
            held.touches(),
            said.lines()
                .rfind(|line| line.contains("remote:"))
                .unwrap_or_default()
        );
        held
    }
}

/// The remote tier's line of the summary.
#[derive(Debug)]
pub(super) struct SoFar {
    pub(super) answering: u64,
    pub(super) kept_mib: u64,
    /// Reads that it answered.
    pub(super) hits: u64,
    line: String,
}

impl SoFar {
    fn read(line: &str) -> SoFar {
        let before = |word: &str| {
            let (text, _) = line.split_once(word)?;
            let digits = text
                .trim_end()
                .rsplit(|c: char| !c.is_ascii_digit())
                .next()?;
            digits.parse().ok()
        };
        let numbers = (before(" of "), before(" MiB kept"), before(" reads,"));
        let (Some(answering), Some(kept_mib), Some(hits)) = numbers else {
            panic!("a summary of the remote tier reads otherwise: {line}");
        };
        SoFar {
            answering,
            kept_mib,
            hits,
            line: line.to_owned(),
        }
    }

    pub(super) fn line(&self) -> &str {
        &self.line
    }
}

/// A run that came to its right end.
pub(super) struct Held {
    pub(super) outcome: Outcome,
    stats: String,
}

impl Held {
    /// A number of the run.
    #[track_caller]
    pub(super) fn count(&self, name: &str) -> u64 {
        let found = number(&self.stats, name);
        found.unwrap_or_else(|| panic!("{name} is not in {}", self.stats)) as u64
    }

    /// A number of the remote tier.
    #[track_caller]
    pub(super) fn remote(&self, name: &str) -> u64 {
        let (_, tiers) = self.stats.split_once("\"tiers\"").expect("tiers");
        let (_, remote) = tiers.split_once("\"remote\"").expect("a remote tier");
        let found = number(remote, name);
        found.unwrap_or_else(|| panic!("{name} is not in {}", self.stats)) as u64
    }

    /// The longest touch of each pass.
    fn touches(&self) -> Vec<Duration> {
        let out = self.outcome.out();
        let values = out.lines().filter_map(|line| line.strip_prefix("pass "));
        let micros = values.map(|value| value.parse().expect("a number"));
        micros.map(Duration::from_micros).collect()
    }

    /// The longest touch of all.
    pub(super) fn longest(&self) -> Duration {
        self.touches().into_iter().max().unwrap_or_default()
    }

    /// Nothing of the run is on these servers.
    #[track_caller]
    pub(super) fn assert_nothing_left<'a>(&self, servers: impl IntoIterator<Item = &'a Server>) {
        for server in servers {
            let mut names = Vec::new();
            // Replicas follow.
            let none = eventually(Duration::from_secs(3), || {
                names = server.key_names();
                names.is_empty()
            });
            assert!(
                none,
                "left at {}: {} keys, as {:?}",
                server.url(),
                names.len(),
                names.first()
            );
        }
    }
}
