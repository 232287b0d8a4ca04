//! The server as a child of this process: started, asked, ended.
//!
//! - It does not outlive this process, whatever ends that.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use zcache_remote::lender;
use zcache_sys::process;

use crate::configuration::{Control as ControlConfig, Durability, ServerConfig};
use crate::control::{Answer, Control};
use crate::error::LendError;
use crate::password::{Password, Passwords, write_private};
use crate::program::Program;

/// A start takes no longer, but for the reading of a file of its pages.
const START_MAX: Duration = Duration::from_secs(10);

/// With that.
const LOAD_MAX: Duration = Duration::from_secs(600);

/// From the request to end to the end by force.
const END_MAX: Duration = Duration::from_secs(15);

const POLL: Duration = Duration::from_millis(20);

/// Of what a server said, so many lines are shown.
const LINES_SHOWN: usize = 3;

/// Keys of one step through all.
const SCANNED: &str = "1000";

/// The folder with a lender's files.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn password(&self) -> PathBuf {
        self.0.join("password")
    }

    pub(crate) fn replica_password(&self) -> PathBuf {
        self.0.join("replica-password")
    }

    /// The passwords in it, made where there are none.
    pub(crate) fn passwords(&self, durability: Durability) -> Result<Passwords, LendError> {
        let has_replica = durability == Durability::Wait;
        let replica = has_replica.then(|| Password::at(&self.replica_password()));
        Ok(Passwords {
            borrower: Password::at(&self.password())?,
            replica: replica.transpose()?,
        })
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.0.join("control.sock")
    }

    fn configuration(&self) -> PathBuf {
        self.0.join("server.conf")
    }

    fn log(&self) -> PathBuf {
        self.0.join("server.log")
    }
}

/// A server that runs.
pub(crate) struct Server {
    child: Child,
    control: Control,
    notice: String,
    maxmemory: u64,
}

impl Server {
    /// Starts one, and waits until it answers. Must be called by the thread that
    /// lives as long as the server shall.
    pub(crate) fn start(
        program: &Program,
        folder: &Folder,
        config: &ServerConfig,
        passwords: &Passwords,
        gives_up: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Server>, LendError> {
        let socket = folder.socket();
        let control_password = Password::new()?;
        let text = config.text(
            &folder.0,
            passwords,
            Some(&ControlConfig {
                socket: &socket,
                sha256: &control_password.sha256(),
            }),
        );
        let path = folder.configuration();
        write_private(&path, &text).map_err(LendError::file(&path))?;
        let log = folder.log();
        write_private(&log, "").map_err(LendError::file(&log))?;
        let said = || fs::OpenOptions::new().append(true).open(&log);
        let mut command = Command::new(&program.path);
        command
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(said().map_err(LendError::file(&log))?)
            .stderr(said().map_err(LendError::file(&log))?)
            // A key of the terminal is for us, who end it.
            .process_group(0);
        process::end_with_parent(&mut command);
        let child = command.spawn();
        let mut child = child.map_err(|error| LendError::Start(program.path.clone(), error))?;
        let began = Instant::now();
        loop {
            if child.try_wait().is_ok_and(|ended| ended.is_some()) {
                return Err(LendError::Ended(last_lines(&log)));
            }
            if gives_up() {
                end(&mut child);
                return Ok(None);
            }
            let why = match Control::connect(&socket, &control_password) {
                Ok(mut control) => match control.ask(&["PING"]) {
                    Ok(Answer::Text(_)) => {
                        return Ok(Some(Server {
                            child,
                            control,
                            notice: lender::notice(&config.prefix),
                            maxmemory: config.maxmemory(),
                        }));
                    }
                    other => format!("{other:?}"),
                },
                Err(error) => error.to_string(),
            };
            let most = match why.contains("LOADING") {
                true => LOAD_MAX,
                false => START_MAX,
            };
            if began.elapsed() > most {
                end(&mut child);
                return Err(LendError::Silent(why));
            }
            std::thread::sleep(POLL);
        }
    }

    /// Whether it ended by itself.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// RAM that it takes.
    pub(crate) fn held_bytes(&self) -> u64 {
        let value = zcache_sys::procfs::status_field(self.child.id().cast_signed(), "VmRSS");
        let kib = value.and_then(|text| text.strip_suffix("kB")?.trim().parse::<u64>().ok());
        kib.unwrap_or(0) << 10
    }

    /// Tells borrowers to move, and takes nothing more.
    pub(crate) fn give_notice(&mut self) -> Result<(), LendError> {
        // A full server takes the notice only if that comes before the bound.
        let room = (self.maxmemory * 2).to_string();
        self.control.order(&["CONFIG", "SET", "maxmemory", &room])?;
        let notice = self.notice.clone();
        self.control.order(&["SET", &notice, "1"])?;
        self.control
            .order(&["CONFIG", "SET", "maxmemory", "1"])
            .map(drop)
    }

    /// Takes the notice back.
    pub(crate) fn withdraw_notice(&mut self) -> Result<(), LendError> {
        let notice = self.notice.clone();
        self.control.order(&["UNLINK", &notice])?;
        let most = self.maxmemory.to_string();
        self.control
            .order(&["CONFIG", "SET", "maxmemory", &most])
            .map(drop)
    }

    /// Whether it holds nothing that a borrower may need.
    pub(crate) fn is_empty(&mut self) -> Result<bool, LendError> {
        let mut cursor = "0".to_owned();
        loop {
            let answer = self.control.order(&["SCAN", &cursor, "COUNT", SCANNED])?;
            let Answer::List(parts) = answer else {
                return Err(LendError::Silent(format!("SCAN: {answer:?}")));
            };
            let (Some(Answer::Text(next)), Some(Answer::List(keys))) =
                (parts.first(), parts.get(1))
            else {
                return Err(LendError::Silent("SCAN: no keys".to_owned()));
            };
            let is_needed =
                |key: &Answer| matches!(key, Answer::Text(key) if lender::is_segment(key));
            if keys.iter().any(is_needed) {
                return Ok(false);
            }
            if next == "0" {
                return Ok(true);
            }
            cursor.clone_from(next);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Asks a server to end, and ends it.
fn end(child: &mut Child) {
    let _ = process::kill(child.id().cast_signed(), TERMINATE);
    let began = Instant::now();
    while child.try_wait().is_ok_and(|ended| ended.is_none()) {
        if began.elapsed() > END_MAX {
            let _ = child.kill();
            let _ = child.wait();
            return;
        }
        std::thread::sleep(POLL);
    }
}

/// SIGTERM.
const TERMINATE: i32 = 15;

fn last_lines(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    match lines.len() {
        0 => format!("it said nothing in {}", log.display()),
        count => lines[count.saturating_sub(LINES_SHOWN)..].join("; "),
    }
}
