//! Lending: a server that runs while this machine has room for it.
//!
//! ```text
//! lent ── short ──> leaves ── nothing kept, or notice over ──> ended ── room ──> lent
//!                     └──────────────── room ────────────────────────────────────> lent
//! ```
//!
//! - What borrowers have on disk too is gone at once: `Disk` has no notice.
//! - What they have at another lender too is gone when the notice is over.
//! - What may be the only copy goes only when the user ends this; its file stays.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use zcache_sys::process::{Signals, block_signals};

use crate::child::{Folder, Server};
use crate::configuration::{Durability, RAM_BYTES_MIN, REPLICA_USER, ServerConfig, USER};
use crate::error::LendError;
use crate::host::Host;
use crate::password::Passwords;
use crate::program::Program;
use crate::watch::{Bounds, Verdict, Watch};

/// How often signals are looked for.
const TICK: Duration = Duration::from_millis(50);

/// How often the machine is.
const LOOK: Duration = Duration::from_millis(500);

/// Of the machine's RAM, the part that stays free if nobody says otherwise.
const KEEP_FREE_PART: u64 = 16;

/// Signals that end it: SIGHUP, SIGINT, SIGQUIT, SIGTERM.
const ENDS: [i32; 4] = [1, 2, 3, 15];

/// What is lent, and how.
#[derive(Clone, Debug)]
pub struct LendConfig {
    /// The server.
    pub server: ServerConfig,
    /// Its program; else whichever is installed.
    pub program: Option<PathBuf>,
    /// Where the password and the server's files are.
    pub folder: PathBuf,
    /// Whether plaintext may be reached from other machines.
    pub plaintext_allowed: bool,
    /// What stays available here; else a part of the machine's RAM.
    pub keep_free_bytes: Option<u64>,
    /// How long borrowers may take to move what they have at another lender too.
    pub notice: Duration,
    /// For so long there must be room before it lends again.
    pub again_after: Duration,
}

enum State {
    Lent(Server),
    Leaves(Server, Instant),
    Ended,
}

/// Refuses what cannot be, and makes the folder.
fn prepare(config: &LendConfig) -> Result<Folder, LendError> {
    let server = &config.server;
    if server.ram_bytes < RAM_BYTES_MIN {
        return Err(LendError::Small {
            ram_bytes: server.ram_bytes,
            least_bytes: RAM_BYTES_MIN,
        });
    }
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if server.prefix.is_empty() || !server.prefix.chars().all(is_plain) {
        return Err(LendError::Prefix(server.prefix.clone()));
    }
    if server.tls.is_none() && !server.listen.is_loopback() && !config.plaintext_allowed {
        return Err(LendError::Plaintext(server.listen));
    }
    let path = &config.folder;
    let mut maker = fs::DirBuilder::new();
    let made = maker.recursive(true).mode(0o700).create(path);
    made.map_err(LendError::file(path))?;
    let folder = fs::canonicalize(path).map_err(LendError::file(path))?;
    let mode = fs::metadata(&folder)
        .map_err(LendError::file(path))?
        .permissions()
        .mode();
    if mode & 0o022 != 0 {
        let why = "others may write here: take that from them with chmod go-w";
        return Err(LendError::Secret(folder, why));
    }
    Ok(Folder(folder))
}

/// Writes the configuration of a server that somebody else starts, and makes its
/// password.
///
/// # Errors
/// [`LendError`].
pub fn print(config: &LendConfig) -> Result<String, LendError> {
    let config = &absolute(config)?;
    let folder = prepare(config)?;
    let passwords = folder.passwords(config.server.durability)?;
    let mut text = String::new();
    let _ = writeln!(
        text,
        "# For valkey-server or redis-server, 7 or later: the whole of its configuration.\n\
         # The password is in {}; this has its hash. Borrowers:\n{}",
        folder.password().display(),
        commented(&borrowing(config, &folder)),
    );
    text += &config.server.text(&folder.0, &passwords, None);
    Ok(text)
}

fn commented(text: &str) -> String {
    text.lines()
        .fold(String::new(), |all, line| all + "# " + line + "\n")
}

/// The server has a working directory of its own.
fn absolute(config: &LendConfig) -> Result<LendConfig, LendError> {
    let mut config = config.clone();
    if let Some(tls) = &mut config.server.tls {
        for path in [&mut tls.cert, &mut tls.key, &mut tls.ca] {
            *path = fs::canonicalize(&*path).map_err(LendError::file(path))?;
        }
    }
    Ok(config)
}

/// The command of a borrower.
fn borrowing(config: &LendConfig, folder: &Folder) -> String {
    let server = &config.server;
    let (scheme, certificates) = match server.tls {
        Some(_) => (
            "rediss",
            " --remote-ca CA --remote-cert CERT --remote-key KEY",
        ),
        None => ("redis", ""),
    };
    let plaintext = match server.tls.is_none() && !server.listen.is_loopback() {
        true => " --remote-plaintext",
        false => "",
    };
    let durability = match server.durability {
        Durability::Disk => "",
        Durability::TwoCopies => " --remote URL --remote-durability two-copies",
        Durability::Wait => " --remote-durability wait",
    };
    let prefix = match server.prefix.as_str() {
        "zc" => String::new(),
        other => format!(" --remote-prefix {other}"),
    };
    format!(
        "zcache run --ram SIZE --remote {scheme}://{}:{} --remote-user {USER} --remote-password-file {}{certificates}{plaintext}{durability}{prefix} -- PROGRAM",
        server.listen.host(),
        server.listen.port,
        folder.password().display(),
    )
}

/// Lends until a signal ends it.
///
/// # Errors
/// [`LendError`]: what keeps it from lending at all, or its server from being asked.
pub fn lend(config: &LendConfig) -> Result<(), LendError> {
    let config = &absolute(config)?;
    let folder = prepare(config)?;
    let program = Program::find(config.program.as_deref())?;
    if UnixStream::connect(folder.socket()).is_ok() {
        return Err(LendError::InUse(folder.0));
    }
    let host = Host::new();
    let keep_free_bytes = config
        .keep_free_bytes
        .unwrap_or(host.total_bytes() / KEEP_FREE_PART);
    let sight = host.look();
    if sight.available_bytes < config.server.ram_bytes.saturating_add(keep_free_bytes) {
        return Err(LendError::NoRoom {
            ram_bytes: config.server.ram_bytes,
            available_bytes: sight.available_bytes,
            keep_free_bytes,
        });
    }
    let passwords = folder.passwords(config.server.durability)?;
    let _ = block_signals();
    let mut lender = Lender {
        config,
        program,
        passwords,
        signals: Signals::new().map_err(LendError::Signals)?,
        ends: false,
        watch: Watch::new(Bounds {
            ram_bytes: config.server.ram_bytes,
            keep_free_bytes,
            room_for: config.again_after,
        }),
        folder,
    };
    let Some(server) = lender.start()? else {
        return Ok(());
    };
    lender.say_ready(keep_free_bytes);
    lender.run(&host, server)
}

struct Lender<'a> {
    config: &'a LendConfig,
    program: Program,
    folder: Folder,
    passwords: Passwords,
    signals: Signals,
    ends: bool,
    watch: Watch,
}

impl Lender<'_> {
    fn start(&mut self) -> Result<Option<Server>, LendError> {
        let (signals, ends) = (&self.signals, &mut self.ends);
        Server::start(
            &self.program,
            &self.folder,
            &self.config.server,
            &self.passwords,
            &mut || {
                *ends |= is_asked_to_end(signals);
                *ends
            },
        )
    }

    fn say_ready(&self, keep_free_bytes: u64) {
        let server = &self.config.server;
        let transport = match server.tls {
            Some(_) => "TLS with certificates of both sides",
            None => "plaintext",
        };
        say(&format!(
            "lending {} MiB at {} ({}, {transport}), until less than {} MiB are available here",
            server.ram_bytes >> 20,
            server.listen,
            self.program.version,
            keep_free_bytes >> 20,
        ));
        if server.durability == Durability::Wait {
            say(&format!(
                "it takes nothing without a replica: replicaof {} {}, masteruser {REPLICA_USER}, masterauth as in {}",
                server.listen.host(),
                server.listen.port,
                self.folder.replica_password().display()
            ));
        }
        let _ = writeln!(
            std::io::stdout(),
            "{}",
            borrowing(self.config, &self.folder)
        );
    }

    fn run(&mut self, host: &Host, server: Server) -> Result<(), LendError> {
        let began = Instant::now();
        let mut looked = Duration::ZERO;
        let mut state = State::Lent(server);
        loop {
            std::thread::sleep(TICK);
            if is_asked_to_end(&self.signals) {
                // Asked twice, it does not wait for borrowers.
                if self.ends {
                    return Ok(());
                }
                self.ends = true;
                state = self.leave(state, "asked to end");
            }
            if self.ends && matches!(state, State::Ended) {
                return Ok(());
            }
            let now = began.elapsed();
            if now < looked + LOOK {
                continue;
            }
            looked = now;
            state = self.turn(host, now, state)?;
        }
    }

    fn turn(&mut self, host: &Host, now: Duration, state: State) -> Result<State, LendError> {
        let mut state = state;
        if let State::Lent(server) | State::Leaves(server, _) = &mut state
            && let Some(status) = server.ended()
        {
            say(&format!(
                "the server ended by itself ({status}); it is started again when there is room"
            ));
            self.watch.forget_room();
            state = State::Ended;
        }
        let held_bytes = match &state {
            State::Lent(server) | State::Leaves(server, _) => server.held_bytes(),
            State::Ended => 0,
        };
        let verdict = self.watch.look(now, host.look(), held_bytes);
        Ok(match (state, verdict) {
            (state @ State::Lent(_), Verdict::Short) => {
                self.watch.forget_room();
                self.leave(state, "this machine is short of memory")
            }
            (State::Leaves(server, _), Verdict::Room) if !self.ends => self.stay(server),
            (State::Leaves(server, since), _) => self.go_on_leaving(server, since),
            (State::Ended, Verdict::Room) if !self.ends => self.lend_again(),
            (state, _) => state,
        })
    }

    /// Ends what is lent, at once or with a notice.
    fn leave(&self, state: State, why: &str) -> State {
        let State::Lent(mut server) = state else {
            return state;
        };
        if self.config.server.durability == Durability::Disk {
            drop(server);
            say(&format!(
                "{why}: nothing is lent now; borrowers have everything on disk"
            ));
            return State::Ended;
        }
        if let Err(error) = server.give_notice() {
            say(&format!("{why}, but borrowers cannot be told: {error}"));
        } else {
            say(&format!("{why}: borrowers are told to move what is here"));
        }
        State::Leaves(server, Instant::now())
    }

    fn go_on_leaving(&self, mut server: Server, since: Instant) -> State {
        match server.is_empty() {
            Ok(true) => {
                drop(server);
                say("borrowers have moved everything; nothing is lent now");
                return State::Ended;
            }
            Ok(false) => {}
            Err(error) => say(&format!("{error}")),
        }
        let may_be_only_copy = self.config.server.durability == Durability::Wait;
        let is_over = since.elapsed() >= self.config.notice;
        if is_over && (self.ends || !may_be_only_copy) {
            drop(server);
            say(match may_be_only_copy {
                true => "the notice is over; what borrowers left is in its file for the next start",
                false => "the notice is over; borrowers have another copy of what they left",
            });
            return State::Ended;
        }
        State::Leaves(server, since)
    }

    fn stay(&mut self, mut server: Server) -> State {
        match server.withdraw_notice() {
            Ok(()) => {
                say("there is room again: lending goes on");
                State::Lent(server)
            }
            Err(error) => {
                say(&format!(
                    "there is room again, but borrowers cannot be told: {error}"
                ));
                self.watch.forget_room();
                State::Leaves(server, Instant::now())
            }
        }
    }

    fn lend_again(&mut self) -> State {
        self.watch.forget_room();
        match self.start() {
            Ok(Some(server)) => {
                say(&format!(
                    "there is room again: lending {} MiB",
                    self.config.server.ram_bytes >> 20
                ));
                State::Lent(server)
            }
            Ok(None) => State::Ended,
            Err(error) => {
                say(&format!("there is room again, but {error}"));
                State::Ended
            }
        }
    }
}

/// Whether a signal that ends this arrived.
fn is_asked_to_end(signals: &Signals) -> bool {
    let mut asked = false;
    while let Some(arrived) = signals.next() {
        asked |= ENDS.contains(&arrived.signal);
    }
    asked
}

fn say(what: &str) {
    let _ = writeln!(std::io::stderr(), "zcache: {what}");
}

/// Where a lender's files are if nobody says otherwise.
#[must_use]
pub fn default_folder() -> PathBuf {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/state"));
    let state = state.filter(|path| path.is_absolute()).or_else(home);
    state
        .unwrap_or_else(|| "/var/lib".into())
        .join("zcache-lend")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::configuration::TlsFiles;
    use crate::password::Password;

    fn config(name: &str) -> LendConfig {
        LendConfig {
            server: ServerConfig {
                ram_bytes: 1 << 30,
                listen: "127.0.0.1".parse().unwrap(),
                durability: Durability::Disk,
                prefix: "zc".to_owned(),
                tls: None,
            },
            program: None,
            folder: std::env::temp_dir().join(format!("zcache-lend-{name}-{}", std::process::id())),
            plaintext_allowed: false,
            keep_free_bytes: None,
            notice: Duration::ZERO,
            again_after: Duration::ZERO,
        }
    }

    #[test]
    fn what_cannot_be_is_refused_before_a_file_is_made() {
        let refused = |change: &dyn Fn(&mut LendConfig)| {
            let mut config = config("refused");
            change(&mut config);
            let refused = print(&config).expect_err("this cannot be");
            assert!(!config.folder.exists());
            refused.to_string()
        };
        let off_host = |config: &mut LendConfig| config.server.listen = "10.0.0.1".parse().unwrap();
        for (text, says) in [
            (refused(&off_host), "--plaintext"),
            (
                refused(&|config| config.server.ram_bytes = 1 << 20),
                "lend 32 MiB or more",
            ),
            (
                refused(&|config| config.server.prefix = "a b".to_owned()),
                "--prefix 'a b'",
            ),
        ] {
            assert!(text.contains(says), "{text}");
        }
    }

    #[test]
    fn what_is_printed_is_a_configuration_without_the_password() {
        let mut config = config("printed");
        config.server.listen = "10.0.0.1:7000".parse().unwrap();
        config.plaintext_allowed = true;
        let text = print(&config).unwrap();
        let password = Password::at(&config.folder.join("password")).unwrap();
        assert!(
            !text.contains(password.reveal()) && text.contains(&password.sha256()),
            "{text}"
        );
        let command = "zcache run --ram SIZE --remote redis://10.0.0.1:7000 --remote-user borrower --remote-password-file";
        assert!(
            text.contains(command) && text.contains("--remote-plaintext"),
            "{text}"
        );
        assert_eq!(print(&config).unwrap(), text, "the password is made once");
        config.server.tls = Some(TlsFiles {
            cert: "/dev/null".into(),
            key: "/dev/null".into(),
            ca: "/dev/null".into(),
        });
        let text = print(&config).unwrap();
        assert!(
            text.contains("rediss://10.0.0.1:7000") && !text.contains("--remote-plaintext"),
            "{text}"
        );
        fs::remove_dir_all(&config.folder).unwrap();
    }
}
