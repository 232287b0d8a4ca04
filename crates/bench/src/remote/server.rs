//! Servers that are measured: `valkey-server` or `redis-server`, started here and ended with the bench.
//!
//! They listen on loopback, or in a network namespace of their own behind a pair of virtual interfaces, so that what
//! is sent goes over a link. Nothing of them stays: their folder and the namespace go too.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::host::{HostError, Namespace};

/// Which of them is taken where none is named: the first that starts.
const PROGRAMS: [&str; 2] = ["valkey-server", "redis-server"];

/// How long a server has to answer.
const START_MAX: Duration = Duration::from_secs(30);

/// What a server keeps at most, so that no mistake fills the machine.
const MEMORY_MAX: &str = "2gb";

/// The program that is measured, and what it says that it is.
pub(super) struct Program {
    path: PathBuf,
    pub(super) version: String,
}

impl Program {
    /// The named one, or the first that is installed.
    pub(super) fn find(named: Option<&Path>) -> Result<Program, HostError> {
        let candidates: Vec<PathBuf> = match named {
            Some(path) => vec![path.to_owned()],
            None => PROGRAMS.iter().map(PathBuf::from).collect(),
        };
        let found = candidates.into_iter().find_map(|path| {
            let said = Command::new(&path).arg("--version").output().ok()?;
            let text = String::from_utf8_lossy(&said.stdout).into_owned();
            let words: Vec<&str> = text.split_whitespace().take(3).collect();
            said.status.success().then_some(Program {
                path,
                version: words.join(" "),
            })
        });
        found.ok_or(HostError::Missing {
            what: "no valkey-server or redis-server is there; install one, or name it with --server",
        })
    }
}

/// Where servers listen.
pub(super) enum Place {
    Loopback,
    Behind(Namespace),
}

impl Place {
    /// What tables call it.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Place::Loopback => "loopback",
            Place::Behind(_) => "two network namespaces",
        }
    }

    fn address(&self) -> &str {
        match self {
            Place::Loopback => "127.0.0.1",
            Place::Behind(namespace) => namespace.address(),
        }
    }

    fn command(&self, program: &Path) -> Command {
        let mut line: Vec<OsString> = match self {
            Place::Loopback => Vec::new(),
            Place::Behind(namespace) => namespace.enter().map(OsString::from).collect(),
        };
        line.push(program.into());
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]);
        command
    }
}

/// One server.
pub(super) struct Server {
    child: Child,
    folder: PathBuf,
    /// Where it answers: host and port.
    pub(super) address: (String, u16),
}

impl Server {
    /// Starts a server that keeps everything in RAM, and waits until it answers.
    pub(super) fn start(
        program: &Program,
        place: &Place,
        options: &[&str],
    ) -> Result<Server, HostError> {
        let port = free_port()?;
        let folder =
            std::env::temp_dir().join(format!("zcache-bench-{}-{port}", std::process::id()));
        std::fs::create_dir(&folder).map_err(HostError::file(&folder))?;
        let mut command = place.command(&program.path);
        command
            .args(["--port", &port.to_string(), "--bind", place.address()])
            .args(["--save", "", "--protected-mode", "no", "--dir"])
            .arg(&folder)
            .args([
                "--maxmemory",
                MEMORY_MAX,
                "--maxmemory-policy",
                "noeviction",
            ])
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let started = command.spawn();
        let failed = |detail: String| HostError::Command {
            line: program.path.display().to_string(),
            detail,
        };
        let child = match started {
            Ok(child) => child,
            Err(error) => {
                let _ = std::fs::remove_dir_all(&folder);
                return Err(failed(error.to_string()));
            }
        };
        let server = Server {
            child,
            folder,
            address: (place.address().to_owned(), port),
        };
        let deadline = Instant::now() + START_MAX;
        while !server.answers() {
            if Instant::now() > deadline {
                return Err(failed(format!("no answer at port {port}")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    fn answers(&self) -> bool {
        self.ask("PING")
            .is_some_and(|reply| reply.starts_with("+PONG"))
    }

    /// A command on one line, and the beginning of what comes back.
    fn ask(&self, command: &str) -> Option<String> {
        let (host, port) = &self.address;
        let mut stream = TcpStream::connect((host.as_str(), *port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
        stream.write_all(format!("{command}\r\n").as_bytes()).ok()?;
        let mut reply = vec![0; 8192];
        let read = stream.read(&mut reply).ok()?;
        Some(String::from_utf8_lossy(&reply[..read]).into_owned())
    }

    /// Waits until a replica follows.
    pub(super) fn await_replica(&self) -> Result<(), HostError> {
        let deadline = Instant::now() + START_MAX;
        let follows = |text: String| text.contains("min_slaves_good_slaves:1");
        while !self.ask("INFO replication").is_some_and(follows) {
            if Instant::now() > deadline {
                return Err(HostError::Missing {
                    what: "the replica does not follow its master",
                });
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may be gone, and then this is done.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A port that nobody has at the moment.
fn free_port() -> Result<u16, HostError> {
    let bound = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    bound
        .map(|address| address.port())
        .map_err(|error| HostError::Command {
            line: "a free port".into(),
            detail: error.to_string(),
        })
}
