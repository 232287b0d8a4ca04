//! Why nothing is lent, and what to do about it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::listen::Listen;

/// Why nothing is lent.
#[derive(Debug)]
pub enum LendError {
    /// Neither server is installed.
    NoServer,
    /// A server is older than what borrowers work with, or is none.
    Version(PathBuf, String),
    /// Less is lent than a server is worth.
    Small {
        /// What was asked for.
        ram_bytes: u64,
        /// The least.
        least_bytes: u64,
    },
    /// The machine has less.
    NoRoom {
        /// What was asked for.
        ram_bytes: u64,
        /// What is available.
        available_bytes: u64,
        /// What stays free.
        keep_free_bytes: u64,
    },
    /// Plaintext would leave the machine.
    Plaintext(Listen),
    /// A prefix has characters that mean something in an access list.
    Prefix(String),
    /// A file has too little in it, or others may read it.
    Secret(PathBuf, &'static str),
    /// Another `zcache lend` uses the directory.
    InUse(PathBuf),
    /// A system call on a file failed.
    File(PathBuf, io::Error),
    /// The server cannot be started.
    Start(PathBuf, io::Error),
    /// The server ended; what it said last.
    Ended(String),
    /// The server does not answer.
    Silent(String),
    /// The system has no random bytes.
    NoRandom,
    /// Signals cannot be waited for.
    Signals(io::Error),
}

impl LendError {
    pub(crate) fn file(path: &Path) -> impl FnOnce(io::Error) -> LendError {
        move |error| LendError::File(path.to_owned(), error)
    }
}

impl fmt::Display for LendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: &u64| bytes >> 20;
        match self {
            LendError::NoServer => f.write_str(
                "neither valkey-server nor redis-server is installed: install the package valkey-server or redis-server \
                 (Debian, Ubuntu), valkey (Fedora, Alpine, Arch), or name one with --server",
            ),
            LendError::Version(path, said) => write!(
                f,
                "{} is not Redis 7, Valkey 7.2 or later: {said}",
                path.display()
            ),
            LendError::Small {
                ram_bytes,
                least_bytes,
            } => write!(
                f,
                "--ram {ram_bytes}: the server alone takes some of it; lend {} MiB or more",
                mib(least_bytes)
            ),
            LendError::NoRoom {
                ram_bytes,
                available_bytes,
                keep_free_bytes,
            } => write!(
                f,
                "--ram is {} MiB, but {} MiB are available here and {} MiB stay free (--keep-free): lend {} MiB at most",
                mib(ram_bytes),
                mib(available_bytes),
                mib(keep_free_bytes),
                available_bytes.saturating_sub(*keep_free_bytes) >> 20
            ),
            LendError::Plaintext(listen) => write!(
                f,
                "{listen} is reached from other machines, and everybody on the way could read the password and change pages: \
                 give --tls-cert, --tls-key and --tls-ca, or allow it with --plaintext"
            ),
            LendError::Prefix(text) => write!(
                f,
                "--prefix '{text}' is no part of a key: give letters, digits, '-', '_' and '.'"
            ),
            LendError::Secret(path, why) => write!(f, "{}: {why}", path.display()),
            LendError::InUse(path) => write!(
                f,
                "{} belongs to another zcache lend that runs: name another with --dir",
                path.display()
            ),
            LendError::File(path, error) => write!(f, "{}: {error}", path.display()),
            LendError::Start(path, error) => {
                write!(f, "{} cannot be started: {error}", path.display())
            }
            LendError::Ended(said) => write!(f, "the server ended by itself: {said}"),
            LendError::Silent(what) => write!(f, "the server does not answer: {what}"),
            LendError::NoRandom => f.write_str("the system has no random bytes for a password"),
            LendError::Signals(error) => write!(f, "cannot wait for signals: {error}"),
        }
    }
}

impl std::error::Error for LendError {}
