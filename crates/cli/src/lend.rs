//! `zcache lend`: reads the command line.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use zcache_lend::{Durability, LendConfig, Listen, ServerConfig, TlsFiles};

use crate::size;

/// What becomes of borrowers' pages when this machine lends no more.
#[derive(Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Safe {
    /// They have them on disk too: RAM only, taken back at once
    #[default]
    Disk,
    /// They have them at another lender too: RAM only, taken back after --notice
    TwoCopies,
    /// These may be the only ones: also in a file and at a replica, never taken back
    Wait,
}

/// Lend RAM of this machine to `zcache run --remote` on others.
///
/// Starts valkey-server or redis-server (7 or later; whichever is installed)
/// with a configuration of its own, prints the command for borrowers, and ends
/// the server when it ends itself: by SIGTERM, SIGINT or in any other way.
///
/// One user, `borrower`, can reach the server, with a password that is made in
/// DIR/password, for the few commands that borrowers send, on keys of one prefix.
///
/// When this machine has less than --keep-free available, or its programs wait
/// for memory, it lends no more: with --durability disk the server ends and its
/// RAM is free at once; with two-copies borrowers are told, and it ends when they
/// have moved everything, after --notice at the latest; with wait they are
/// told, and it ends when they have moved everything. It lends again when there has been
/// room for --again-after. docs/remote.md has what is promised when.
///
/// Ends with 0, or with 125 when it cannot lend.
#[derive(Args)]
pub(crate) struct Lend {
    /// What the server may take of this machine's RAM, for example 2G (K, M, G, T:
    /// powers of 1024). Somewhat less is kept for borrowers: the server itself and
    /// its allocator take a part.
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    ram: u64,

    /// An IP address of this machine to listen at, and a port (6379): 10.0.0.1,
    /// 10.0.0.1:7000, [::1]:7000, or 0.0.0.0 for all.
    #[arg(long, value_name = "ADDRESS[:PORT]", default_value_t)]
    listen: Listen,

    /// What becomes of borrowers' pages when this machine lends no more. They
    /// give --remote-durability the same.
    #[arg(long, value_name = "WHEN", default_value = "disk")]
    durability: Safe,

    /// The server's certificate (PEM). With all three of these it speaks TLS only.
    #[arg(long, value_name = "FILE", requires = "tls_key", requires = "tls_ca")]
    tls_cert: Option<PathBuf>,

    /// Its private key (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// Who signs the certificates that borrowers must have (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_ca: Option<PathBuf>,

    /// Allow other machines without TLS: everybody on the way can read the password and
    /// what is sent, and change it.
    #[arg(long)]
    plaintext: bool,

    /// What stays available to this machine; without it a sixteenth of its RAM.
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    keep_free: Option<u64>,

    /// How long borrowers may take to move what this machine takes back, where
    /// they have it at another lender too, or where it was asked to end.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    notice: u64,

    /// How long there must be room before it lends again.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    again_after: u64,

    /// What borrowers' keys begin with.
    #[arg(long, value_name = "TEXT", default_value = "zc")]
    prefix: String,

    /// Where the password and the server's files are, with `wait` also its pages;
    /// without it zcache-lend below $XDG_STATE_HOME or ~/.local/state.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,

    /// The server's program; without it valkey-server or redis-server of PATH.
    #[arg(long, value_name = "PROGRAM")]
    server: Option<PathBuf>,

    /// Print the server's configuration and start nothing; the password is made if it
    /// is not there. Nobody watches this machine's memory then.
    #[arg(long)]
    print: bool,
}

impl Lend {
    /// Lends until it is asked to end.
    ///
    /// # Errors
    /// What to tell the user.
    pub(crate) fn run(self) -> Result<(), String> {
        let tls = match (self.tls_cert, self.tls_key, self.tls_ca) {
            (Some(cert), Some(key), Some(ca)) => Some(TlsFiles { cert, key, ca }),
            _ => None,
        };
        let config = LendConfig {
            server: ServerConfig {
                ram_bytes: self.ram,
                listen: self.listen,
                durability: match self.durability {
                    Safe::Disk => Durability::Disk,
                    Safe::TwoCopies => Durability::TwoCopies,
                    Safe::Wait => Durability::Wait,
                },
                prefix: self.prefix,
                tls,
            },
            program: self.server,
            folder: self.dir.unwrap_or_else(zcache_lend::default_folder),
            plaintext_allowed: self.plaintext,
            keep_free_bytes: self.keep_free,
            notice: Duration::from_secs(self.notice),
            again_after: Duration::from_secs(self.again_after),
        };
        if !self.print {
            return zcache_lend::lend(&config).map_err(|error| error.to_string());
        }
        let text = zcache_lend::print(&config).map_err(|error| error.to_string())?;
        match io::stdout().write_all(text.as_bytes()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(format!("the configuration cannot be written: {error}"))
            }
            _ => Ok(()),
        }
    }
}
