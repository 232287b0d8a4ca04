//! Running a program, plain or under `zcache run`, to its end, with its memory measured all the time.
//!
//! Every run goes through `watch` (tests/support/watch.c), which measures the tree and kills what is left of it. Streams go to
//! files, so that no pipe can fill up. Nothing runs longer than the job's bound: then the tree is described and killed, and the
//! test fails.

use super::{TempDir, User, compile, eventually, plain_only, tree, zcache};
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A program with its arguments and surroundings.
#[derive(Clone)]
pub(crate) struct Job {
    /// What stands before zcache, or before the program where there is no zcache.
    before: Vec<OsString>,
    /// The command under test as the user of this job can reach it.
    zcache: PathBuf,
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    directory: Option<PathBuf>,
    stdin: Option<PathBuf>,
    bound: Duration,
    linger: Duration,
}

/// How `zcache run` is called.
#[derive(Clone)]
pub(crate) struct Capped {
    ram_bytes: u64,
    options: Vec<OsString>,
}

/// How a process ended, as its parent sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Exit status.
    Exit(i32),
    /// Death by this signal.
    Signal(i32),
}

/// What a run left behind.
pub(crate) struct Outcome {
    pub(crate) ended: Ended,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    /// The most anonymous memory that the tree held at once, in bytes.
    pub(crate) peak_bytes: u64,
    /// Processes that had to be killed after the program's end.
    pub(crate) left_running: u64,
    /// The whole report of `watch`, with what was running at the peak.
    pub(crate) report: String,
}

/// A run under way.
pub(crate) struct Running {
    child: Child,
    files: TempDir,
    bound: Duration,
    description: String,
}

impl Capped {
    /// A budget, and nothing else.
    pub(crate) fn ram(ram_bytes: u64) -> Capped {
        Capped {
            ram_bytes,
            options: Vec::new(),
        }
    }

    /// A budget in MiB.
    pub(crate) fn ram_mib(mib: u64) -> Capped {
        Capped::ram(mib << 20)
    }

    /// One more option of `zcache run` with its value.
    pub(crate) fn option(mut self, name: &str, value: impl Into<OsString>) -> Capped {
        self.options.push(name.into());
        self.options.push(value.into());
        self
    }

    /// One more option that has no value.
    pub(crate) fn flag(mut self, name: &str) -> Capped {
        self.options.push(name.into());
        self
    }

    /// The words before the program: `zcache run … --`.
    pub(crate) fn words(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec![
            zcache().into(),
            "run".into(),
            "--ram".into(),
            self.ram_bytes.to_string().into(),
        ];
        words.extend(self.options.iter().cloned());
        words.push("--".into());
        words
    }
}

impl Job {
    /// A program, looked for in PATH when the name has no slash.
    pub(crate) fn new(program: impl Into<PathBuf>) -> Job {
        Job {
            before: Vec::new(),
            zcache: zcache(),
            program: program.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            directory: None,
            stdin: None,
            bound: Duration::from_secs(300),
            linger: Duration::ZERO,
        }
    }

    /// `sh -c` with this text.
    pub(crate) fn shell(text: &str) -> Job {
        Job::new("sh").args(["-c", text])
    }

    /// More words before zcache: a command that runs what follows it in other surroundings.
    pub(crate) fn within<A: Into<OsString>>(mut self, words: impl IntoIterator<Item = A>) -> Job {
        self.before.extend(words.into_iter().map(Into::into));
        self
    }

    /// Lets an ordinary user run it, zcache included.
    pub(crate) fn by(mut self, user: &User) -> Job {
        self.zcache = user.zcache();
        self.env("HOME", user.home()).within(user.words())
    }

    pub(crate) fn arg(mut self, argument: impl Into<OsString>) -> Job {
        self.arguments.push(argument.into());
        self
    }

    pub(crate) fn args<A: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = A>) -> Job {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl Into<OsString>) -> Job {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// A copy of zcache to run instead, where the built one cannot be reached.
    pub(crate) fn command(mut self, zcache: &Path) -> Job {
        self.zcache = zcache.to_path_buf();
        self
    }

    pub(crate) fn directory(mut self, directory: &Path) -> Job {
        self.directory = Some(directory.to_path_buf());
        self
    }

    pub(crate) fn stdin(mut self, file: &Path) -> Job {
        self.stdin = Some(file.to_path_buf());
        self
    }

    /// The time after which a run counts as hung; generous, since the machine may be busy.
    pub(crate) fn bound(mut self, bound: Duration) -> Job {
        self.bound = bound;
        self
    }

    /// What the program leaves running may go on so long before it is killed.
    pub(crate) fn linger(mut self, linger: Duration) -> Job {
        self.linger = linger;
        self
    }

    /// Starts the program without zcache.
    pub(crate) fn start_plain(&self) -> Running {
        self.start(&[])
    }

    /// Starts the program under zcache.
    pub(crate) fn start_under(&self, capped: &Capped) -> Running {
        if plain_only() {
            self.start(&[])
        } else {
            let mut words = capped.words();
            words[0] = self.zcache.clone().into();
            self.start(&words)
        }
    }

    /// Runs the program to its end without zcache.
    pub(crate) fn plain(&self) -> Outcome {
        self.start_plain().wait()
    }

    /// Runs the program to its end under zcache and checks that the budget held.
    pub(crate) fn under(&self, capped: &Capped) -> Outcome {
        let outcome = self.start_under(capped).wait();
        if !plain_only() {
            outcome.assert_within(capped.ram_bytes);
            // `zcache run` compares the engine's counts when the program has ended.
            let said = outcome.err();
            assert!(!said.contains("counts do not add up"), "{}", tail(&said));
        }
        outcome
    }

    fn start(&self, prefix: &[OsString]) -> Running {
        let files = TempDir::new("run");
        let create = |name: &str| File::create(files.file(name)).expect("a file for a stream");
        let stdin = match &self.stdin {
            Some(path) => Stdio::from(File::open(path).expect("the file for stdin")),
            None => Stdio::null(),
        };
        let mut command = Command::new(compile::watch());
        command
            .arg("--report")
            .arg(files.file("report"))
            .arg("--linger-ms")
            .arg(self.linger.as_millis().to_string())
            .arg("--")
            .args(&self.before)
            .args(prefix)
            .arg(&self.program)
            .args(&self.arguments)
            .envs(self.environment.iter().cloned())
            .stdin(stdin)
            .stdout(create("stdout"))
            .stderr(create("stderr"));
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        let description = format!("{command:?}");
        let child = command.spawn().expect("watch can be started");
        Running {
            child,
            files,
            bound: self.bound,
            description,
        }
    }
}

impl Running {
    /// The process above the whole tree.
    pub(crate) fn root(&self) -> u32 {
        self.child.id()
    }

    /// The process that was started first: zcache itself, or the program where there is no zcache.
    pub(crate) fn first(&self) -> u32 {
        let root = self.root();
        let mut first = None;
        let found = eventually(Duration::from_secs(60), || {
            first = tree::descendants(root)
                .into_iter()
                .find(|process| process.parent == root);
            first.is_some()
        });
        assert!(found, "nothing was started: {}", self.description);
        first.map_or(0, |process| process.pid)
    }

    /// The process that pages: the child of the one that stands for the program; the first process where there is no zcache.
    pub(crate) fn pager(&self) -> u32 {
        let first = self.first();
        let mut pager = None;
        let found = plain_only()
            || eventually(Duration::from_secs(60), || {
                pager = tree::descendants(first)
                    .into_iter()
                    .find(|process| process.parent == first && process.name == "zcache");
                pager.is_some()
            });
        assert!(
            found,
            "zcache has no pager: {}",
            tree::describe(self.root())
        );
        pager.map_or(first, |process| process.pid)
    }

    /// What the program has said so far on stdout.
    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.files.file("stdout")).unwrap_or_default())
            .into_owned()
    }

    /// What the program and zcache have said so far on stderr.
    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.files.file("stderr")).unwrap_or_default())
            .into_owned()
    }

    /// Waits until stdout has `text` in it `count` times.
    pub(crate) fn wait_for_stdout(&mut self, text: &str, count: usize) {
        let bound = self.bound;
        let mut ended = false;
        let said = eventually(bound, || {
            ended = matches!(self.child.try_wait(), Ok(Some(_)));
            ended || self.stdout().matches(text).count() >= count
        });
        if !said || (ended && self.stdout().matches(text).count() < count) {
            self.fail(&format!("stdout does not say {text:?} {count} times"));
        }
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Ends the whole tree, for jobs that would go on for ever.
    pub(crate) fn stop(mut self) -> Outcome {
        tree::signal(self.root(), "TERM");
        let _ = self.child.wait();
        self.outcome(Ended::Signal(15))
    }

    /// Waits for the end; a hang is described and fails the test.
    pub(crate) fn wait(mut self) -> Outcome {
        let bound = self.bound;
        let mut status = None;
        eventually(bound, || {
            status = self.child.try_wait().expect("the child is ours");
            status.is_some()
        });
        let Some(status) = status else {
            self.fail(&format!("it did not end within {bound:?}"));
        };
        let ended = match status.code() {
            Some(code) => Ended::Exit(code),
            None => Ended::Signal(status.signal().unwrap_or(0)),
        };
        self.outcome(ended)
    }

    fn fail(&mut self, what: &str) -> ! {
        let tree = tree::describe(self.root());
        tree::signal(self.root(), "TERM");
        let _ = self.child.wait();
        panic!(
            "{what}: {}\n--- processes\n{tree}--- stdout\n{}\n--- stderr\n{}",
            self.description,
            tail(&self.stdout()),
            tail(&self.stderr())
        );
    }

    fn outcome(&self, ended: Ended) -> Outcome {
        let report = std::fs::read_to_string(self.files.file("report")).unwrap_or_default();
        let number = |key: &str| {
            report
                .lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix('=')?.parse().ok())
                .unwrap_or(0)
        };
        Outcome {
            ended,
            stdout: std::fs::read(self.files.file("stdout")).unwrap_or_default(),
            stderr: std::fs::read(self.files.file("stderr")).unwrap_or_default(),
            peak_bytes: number("peak_bytes"),
            left_running: number("left_running"),
            report: format!("{}\n{report}", self.description),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.is_running() {
            tree::signal(self.root(), "TERM");
            let _ = self.child.wait();
        }
    }
}

impl Outcome {
    /// Stdout as text.
    pub(crate) fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Stderr as text.
    pub(crate) fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Checks how the program ended.
    #[track_caller]
    pub(crate) fn assert_ended(&self, ended: Ended) -> &Outcome {
        assert_eq!(
            self.ended,
            ended,
            "{}\n--- stdout\n{}\n--- stderr\n{}",
            self.report,
            tail(&self.out()),
            tail(&self.err())
        );
        self
    }

    /// Checks that the program ended with status 0.
    #[track_caller]
    pub(crate) fn assert_success(&self) -> &Outcome {
        self.assert_ended(Ended::Exit(0))
    }

    /// Checks that stderr names each of these, in any case of letters.
    #[track_caller]
    pub(crate) fn assert_says(&self, words: &[&str]) -> &Outcome {
        let said = self.err().to_lowercase();
        for word in words {
            assert!(
                said.contains(&word.to_lowercase()),
                "stderr does not say {word:?}: {}\n{}",
                tail(&self.err()),
                self.report
            );
        }
        self
    }

    /// Checks that the whole tree, zcache included, held at most 2% more than the budget.
    #[track_caller]
    pub(crate) fn assert_within(&self, ram_bytes: u64) {
        assert!(
            self.peak_bytes <= ram_bytes + ram_bytes / 50,
            "the budget of {} KiB was overshot: peak {} KiB ({:.1}%)\n{}\n--- stderr\n{}",
            ram_bytes >> 10,
            self.peak_bytes >> 10,
            self.peak_bytes as f64 / ram_bytes as f64 * 100.0,
            self.report,
            tail(&self.err())
        );
    }
}

/// Runs a job without zcache, then under it at half of the memory that it took, and checks that bytes and status are the same,
/// that the budget held, and that faults were served (half of the memory had to be evicted
/// then). Returns both outcomes; `between` prepares the second run.
pub(crate) fn half(job: &Job, between: impl FnOnce()) -> (Outcome, Outcome) {
    let (plain, capped, _) = half_with(job, &[], between);
    (plain, capped)
}

/// The same with more options of `zcache run`; the statistics come along, which are empty without zcache.
pub(crate) fn half_with(
    job: &Job,
    options: &[(&str, &str)],
    between: impl FnOnce(),
) -> (Outcome, Outcome, String) {
    let plain = job.plain();
    plain.assert_success();
    assert!(
        plain.peak_bytes > 40 << 20,
        "the program is too small to tell anything: peak {} bytes\n{}",
        plain.peak_bytes,
        plain.report
    );
    between();
    let files = TempDir::new("stats");
    let stats = files.file("stats.json");
    let ram_bytes = plain.peak_bytes / 2;
    let mut budget = Capped::ram(ram_bytes).option("--stats", &stats);
    for (name, value) in options {
        budget = budget.option(name, *value);
    }
    let capped = job.under(&budget);
    capped.assert_success();
    assert_eq!(
        String::from_utf8_lossy(&plain.stdout),
        String::from_utf8_lossy(&capped.stdout),
        "stdout differs: {}",
        capped.report
    );
    let mut text = String::new();
    if !plain_only() {
        text = std::fs::read_to_string(&stats).expect("zcache wrote its statistics");
        assert!(
            number(&text, "faults").is_some_and(|faults| faults > 0.0),
            "no fault was served: {text}"
        );
    }
    eprintln!(
        "plain {} KiB, budget {} KiB, peak {} KiB",
        plain.peak_bytes >> 10,
        ram_bytes >> 10,
        capped.peak_bytes >> 10
    );
    (plain, capped, text)
}

/// The number that a JSON text has under a key, wherever it stands.
pub(crate) fn number(json: &str, key: &str) -> Option<f64> {
    let after = json
        .split_once(&format!("\"{key}\""))?
        .1
        .trim_start()
        .strip_prefix(':')?
        .trim_start();
    let end = after
        .find(|c: char| !(c.is_ascii_digit() || "+-.eE".contains(c)))
        .unwrap_or(after.len());
    after.get(..end)?.parse().ok()
}

/// The last part of a long text.
pub(crate) fn tail(text: &str) -> String {
    let skip = text.chars().count().saturating_sub(4000);
    text.chars().skip(skip).collect()
}
