//! A `zcache lend` that runs, and a borrower beside it.

use crate::support::{TempDir, compile, eventually, tree, zcache};
use std::fs::File;
use std::net::TcpListener;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// Longer than this nothing here takes, on a busy machine too.
pub(super) const BOUND: Duration = Duration::from_secs(90);

pub(super) struct Lender {
    child: Child,
    files: TempDir,
    pub(super) port: u16,
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port of this machine");
    listener.local_addr().expect("its number").port()
}

impl Lender {
    /// Lends at a port of this machine, and waits until it says so.
    pub(super) fn start(options: &[&str]) -> Lender {
        Lender::start_in(None, options)
    }

    /// With another's password.
    pub(super) fn start_with(password: &Path, options: &[&str]) -> Lender {
        let files = Lender::files();
        std::fs::copy(password, files.file("lent/password")).expect("a copy of the password");
        Lender::launch(files, Command::new(zcache()), options)
    }

    /// In a control group, from before its first page.
    pub(super) fn start_in(group: Option<&Path>, options: &[&str]) -> Lender {
        let command = match group {
            None => Command::new(zcache()),
            Some(group) => {
                let mut command = Command::new("sh");
                command.args(["-c", "echo $$ > \"$0\"/cgroup.procs && exec \"$@\""]);
                command.arg(group).arg(zcache());
                command
            }
        };
        Lender::launch(Lender::files(), command, options)
    }

    fn files() -> TempDir {
        let files = TempDir::new("lend");
        let mut maker = std::fs::DirBuilder::new();
        let made = maker.mode(0o700).create(files.file("lent"));
        made.expect("a folder for a lender");
        files
    }

    fn launch(files: TempDir, mut command: Command, options: &[&str]) -> Lender {
        let port = free_port();
        let stream = |name: &str| File::create(files.file(name)).expect("a file for a stream");
        command
            .args(["lend", "--listen", &format!("127.0.0.1:{port}"), "--dir"])
            .arg(files.file("lent"))
            .args(options)
            .stdin(Stdio::null())
            .stdout(stream("out"))
            .stderr(stream("err"));
        let child = command.spawn().expect("zcache lend starts");
        let mut lender = Lender { child, files, port };
        let is_ready = eventually(BOUND, || {
            lender.out().ends_with("-- PROGRAM\n") || lender.ended().is_some()
        });
        assert!(is_ready && lender.ended().is_none(), "{}", lender.err());
        lender
    }

    pub(super) fn out(&self) -> String {
        std::fs::read_to_string(self.files.file("out")).unwrap_or_default()
    }

    pub(super) fn err(&self) -> String {
        std::fs::read_to_string(self.files.file("err")).unwrap_or_default()
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn folder(&self) -> PathBuf {
        self.files.file("lent")
    }

    pub(super) fn password(&self) -> PathBuf {
        self.folder().join("password")
    }

    pub(super) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The server's process, if there is one.
    pub(super) fn server(&self) -> Option<u32> {
        let names = ["redis-server", "valkey-server"];
        let found = names.iter().find_map(|name| tree::named(self.pid(), name));
        found.map(|process| process.pid)
    }

    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child of ours")
    }

    /// Waits until it says something on standard error.
    pub(super) fn await_words(&self, words: &str) {
        let said = eventually(BOUND, || self.err().contains(words));
        assert!(said, "it does not say '{words}': {}", self.err());
    }

    /// Sends a signal and waits for the end.
    pub(super) fn end(&mut self, signal: &str) -> ExitStatus {
        tree::signal(self.pid(), signal);
        let ended = eventually(BOUND, || self.ended().is_some());
        assert!(ended, "SIG{signal} does not end it: {}", self.err());
        self.ended().expect("it ended")
    }
}

impl Drop for Lender {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            let server = self.server();
            let _ = self.child.kill();
            let _ = self.child.wait();
            if let Some(server) = server {
                tree::signal(server, "KILL");
            }
        }
    }
}

/// A program that checks its memory again and again, most of which is lent.
pub(super) struct Borrower {
    child: Child,
    files: TempDir,
}

impl Borrower {
    pub(super) fn start(mib: u64, password: &Path, options: &[&str]) -> Borrower {
        let files = TempDir::new("borrow");
        let stream = |name: &str| File::create(files.file(name)).expect("a file for a stream");
        let mut command = Command::new(zcache());
        command
            .args(["run", "--ram", "16M", "--remote-user", "borrower"])
            .arg("--remote-password-file")
            .arg(password)
            .arg("--stats")
            .arg(files.file("stats"))
            .args(options)
            .arg("--")
            .arg(compile::hold())
            .args(["--kind", "random", "--forever", "--say", "--bytes"])
            .arg(format!("{mib}M"))
            .stdin(Stdio::null())
            .stdout(stream("out"))
            .stderr(stream("err"));
        let child = command.spawn().expect("zcache run starts");
        let mut borrower = Borrower { child, files };
        borrower.await_passes(1);
        borrower
    }

    fn passes(&self) -> usize {
        let out = std::fs::read_to_string(self.files.file("out")).unwrap_or_default();
        out.lines().count()
    }

    fn err(&self) -> String {
        std::fs::read_to_string(self.files.file("err")).unwrap_or_default()
    }

    /// Waits until all of its memory was found right so many times more.
    pub(super) fn await_passes(&mut self, count: usize) {
        let goal = self.passes() + count;
        let done = eventually(BOUND, || {
            self.passes() >= goal || self.child.try_wait().is_ok_and(|ended| ended.is_some())
        });
        let ended = self.child.try_wait().expect("a child of ours");
        assert!(done && ended.is_none(), "{ended:?}: {}", self.err());
    }

    /// Ends it, and returns the statistics of its remote tier: a count.
    pub(super) fn end(&mut self, count: &str) -> u64 {
        tree::signal(self.child.id(), "TERM");
        let ended = eventually(BOUND, || {
            self.child.try_wait().is_ok_and(|ended| ended.is_some())
        });
        assert!(ended, "SIGTERM does not end zcache run: {}", self.err());
        let err = self.err();
        assert!(
            !err.contains("WRONG") && !err.contains("pages lost to"),
            "{err}"
        );
        let stats = std::fs::read_to_string(self.files.file("stats")).expect("statistics");
        let name = format!("\"{count}\": ");
        let value = stats.split_once(&name).map(|(_, behind)| {
            let digits = behind.chars().take_while(char::is_ascii_digit);
            digits.collect::<String>()
        });
        let value = value.and_then(|digits| digits.parse().ok());
        value.unwrap_or_else(|| panic!("no count {count}: {stats}"))
    }
}

impl Drop for Borrower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
