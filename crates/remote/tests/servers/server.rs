//! A server of a test's own, and a plain connection to it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use zcache_remote::{Durability, Endpoint, RemoteConfig};

/// How long a server may take for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The server program and its client.
pub(crate) fn programs() -> (&'static str, &'static str) {
    let runs = |name: &str| {
        let mut version = Command::new(name);
        version
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        version.status().is_ok_and(|status| status.success())
    };
    if runs("valkey-server") {
        return ("valkey-server", "valkey-cli");
    }
    assert!(
        runs("redis-server"),
        "install valkey-server or redis-server"
    );
    ("redis-server", "redis-cli")
}

/// Two ports, the second for a cluster's bus, that nobody listens on.
fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let start = 20_000 + std::process::id() % 10_000;
    loop {
        let port = 10_000 + (start + NEXT.fetch_add(7, Relaxed)) % 20_000;
        let port = port as u16;
        let is_free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if is_free(port) && is_free(port + 10_000) {
            return port;
        }
    }
}

/// A folder that goes with its owner.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "zcache-remote-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).expect("a folder for a server");
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
    arguments: Vec<String>,
    folder: Folder,
}

impl Server {
    /// A server that keeps everything in RAM, with more settings.
    pub(crate) fn start(more: &[&str]) -> Server {
        Server::start_with(Folder::new(), more, &[])
    }

    /// The same, with more settings of its port and folder.
    pub(crate) fn start_with(folder: Folder, more: &[&str], by_port: &[&str]) -> Server {
        let port = free_port();
        let mut arguments: Vec<String> = [
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--unixsocket",
            "s.sock",
            "--logfile",
            "log",
        ]
        .map(str::to_owned)
        .to_vec();
        arguments.extend(["--dir".to_owned(), folder.0.display().to_string()]);
        if by_port.is_empty() {
            arguments.extend(["--port".to_owned(), port.to_string()]);
        }
        for argument in by_port {
            arguments.push(argument.replace("PORT", &port.to_string()));
        }
        arguments.extend(more.iter().map(|text| (*text).to_owned()));
        let server = Server {
            child: spawn(&arguments, &folder.0),
            port,
            arguments,
            folder,
        };
        server.wait_until_there();
        server
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.0.join("s.sock")
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder.0
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint::parse(&format!("redis://127.0.0.1:{}", self.port)).expect("a URL")
    }

    fn wait_until_there(&self) {
        let start = Instant::now();
        loop {
            if let Some(mut plain) = Plain::connect(&self.socket())
                && !plain.ask(&["PING"]).contains("LOADING")
            {
                return;
            }
            let log = || std::fs::read_to_string(self.folder.0.join("log")).unwrap_or_default();
            assert!(
                start.elapsed() < PATIENCE,
                "the server does not start: {}",
                log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("a child of ours");
        self.child.wait().expect("a child of ours");
        let _ = std::fs::remove_file(self.socket());
    }

    pub(crate) fn start_again(&mut self) {
        self.child = spawn(&self.arguments, &self.folder.0);
        self.wait_until_there();
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill")
            .args([&format!("-{name}"), &pid])
            .status();
        assert!(sent.expect("kill runs").success());
    }

    pub(crate) fn ask(&self, words: &[&str]) -> String {
        Plain::connect(&self.socket())
            .expect("the server is there")
            .ask(words)
    }

    pub(crate) fn keys(&self) -> Vec<String> {
        let answer = self.ask(&["KEYS", "zc:*"]);
        answer
            .lines()
            .filter(|line| line.starts_with("zc:"))
            .map(str::to_owned)
            .collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(arguments: &[String], folder: &Path) -> Child {
    // It dies with the thread that started it, whatever that dies of.
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", programs().0])
        .args(arguments);
    command
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command.stderr(Stdio::null()).spawn().expect("setpriv runs")
}

/// A connection on which a test asks what it likes.
struct Plain(BufReader<std::os::unix::net::UnixStream>);

impl Plain {
    fn connect(path: &Path) -> Option<Plain> {
        let stream = std::os::unix::net::UnixStream::connect(path).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        Some(Plain(BufReader::new(stream)))
    }

    fn ask(&mut self, words: &[&str]) -> String {
        let mut out = format!("*{}\r\n", words.len());
        for word in words {
            out += &format!("${}\r\n{word}\r\n", word.len());
        }
        if self.0.get_mut().write_all(out.as_bytes()).is_err() {
            return String::new();
        }
        self.answer()
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        let _ = self.0.read_line(&mut line);
        let Some(count) = line
            .get(1..)
            .and_then(|text| text.trim().parse::<usize>().ok())
        else {
            return line;
        };
        match line.as_bytes()[0] {
            b'$' => {
                let mut bytes = vec![0; count + 2];
                let _ = self.0.read_exact(&mut bytes);
                String::from_utf8_lossy(&bytes[..count]).into_owned() + "\n"
            }
            b'*' => (0..count).map(|_| self.answer()).collect(),
            _ => line,
        }
    }
}

/// A tier of a test: the servers, short timeouts, a prefix as always.
pub(crate) fn config(servers: &[&Server], durability: Durability) -> RemoteConfig {
    let endpoints = servers.iter().map(|server| server.endpoint()).collect();
    let mut config = RemoteConfig::new(endpoints, durability);
    // A machine that is busy with other tests is late now and then.
    config.timeouts.hedge_min = Duration::from_secs(1);
    config
}

/// Waits until something holds.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether anybody listens there.
pub(crate) fn listens(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}
