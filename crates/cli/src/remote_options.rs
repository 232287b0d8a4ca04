//! What the user says of other machines' RAM, made into a tier of the list.
//!
//! - No secret is an argument: everybody on the machine can read these.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use zcache_pager::tier::{Keeps, ListedTier, OpenError, TierSource};
use zcache_remote::{
    Durability, Endpoint, PASSWORD_VARIABLE, RemoteConfig, RemoteTier, Sealing, Secret, Tls,
};

use crate::size;

/// Of the budget, the part that blocks take which wait to be sent, at most.
const QUEUE_PART: u64 = 32;

/// Bounds of that, in bytes.
const QUEUE_BYTES: std::ops::RangeInclusive<u64> = (512 << 10)..=(8 << 20);

/// When a page that left for other machines is safe.
#[derive(Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Safe {
    /// The swap file has it too
    #[default]
    Disk,
    /// Two servers have it
    TwoCopies,
    /// A server, its replica and their files have it
    Wait,
}

/// Whether servers can read what they keep.
#[derive(Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Seal {
    /// Not those on other machines
    #[default]
    OffHost,
    /// They cannot
    Always,
    /// They can
    Never,
}

/// RAM of other machines
#[derive(Args)]
#[command(next_help_heading = "Other machines' RAM")]
pub(crate) struct RemoteOptions {
    /// A Valkey or Redis server (7 or later) that keeps blocks in its RAM:
    /// redis://HOST[:PORT], rediss://HOST[:PORT] (TLS), unix:///SOCKET,
    /// redis-cluster://HOST,HOST,… or rediss-cluster://…; may be given again for more
    /// servers. Blocks go there before the disk, where that is cheaper to read from.
    // Read later: what is wrong with an argument, the parser repeats with the argument.
    #[arg(long, value_name = "URL")]
    remote: Vec<String>,

    /// The most bytes that servers keep for this run, all copies counted; without
    /// this, what they have.
    #[arg(long, value_name = "SIZE", value_parser = size::parse, requires = "remote")]
    remote_max: Option<u64>,

    /// When a block that left counts as safe.
    #[arg(long, value_name = "WHEN", default_value = "disk", requires = "remote")]
    remote_durability: Safe,

    /// The user, where servers know several; or set ZCACHE_REMOTE_USER.
    #[arg(long, value_name = "NAME", requires = "remote")]
    remote_user: Option<String>,

    /// A file with the password in its first line, which only its owner can read; or
    /// set ZCACHE_REMOTE_PASSWORD.
    #[arg(long, value_name = "FILE", requires = "remote")]
    remote_password_file: Option<PathBuf>,

    /// Who signed the servers' certificates (PEM); without this, whom the system trusts.
    #[arg(long, value_name = "FILE", requires = "remote")]
    remote_ca: Option<PathBuf>,

    /// Our certificate for TLS (PEM), where servers ask for one.
    #[arg(long, value_name = "FILE", requires = "remote_key")]
    remote_cert: Option<PathBuf>,

    /// Its private key (PEM), which only its owner can read.
    #[arg(long, value_name = "FILE", requires = "remote_cert")]
    remote_key: Option<PathBuf>,

    /// Whether servers can read what they keep: it is encrypted with a key that only
    /// this run knows.
    #[arg(
        long,
        value_name = "WHERE",
        default_value = "off-host",
        requires = "remote"
    )]
    remote_seal: Seal,

    /// Allow redis:// to other machines: everybody on the way can see and change what is sent.
    #[arg(long, requires = "remote")]
    remote_plaintext: bool,

    /// What keys begin with, where an access list wants it.
    #[arg(long, value_name = "TEXT", default_value = "zc", requires = "remote")]
    remote_prefix: String,
}

/// What of our environment is not for the program.
pub(crate) fn secret_variables() -> Vec<OsString> {
    vec![PASSWORD_VARIABLE.into()]
}

impl RemoteOptions {
    /// The tier that is asked for, if one is.
    pub(crate) fn tier(self, ram_bytes: u64, has_disk: bool) -> Result<Option<TierSource>, String> {
        if self.remote.is_empty() {
            return Ok(None);
        }
        let endpoints = self.remote.iter().map(|url| Endpoint::parse(url));
        let endpoints = endpoints.collect::<Result<Vec<_>, _>>();
        let endpoints = endpoints.map_err(|error| format!("--remote: {error}"))?;
        let durability = match self.remote_durability {
            Safe::Disk => Durability::Disk,
            Safe::TwoCopies => Durability::TwoCopies,
            Safe::Wait => Durability::Wait,
        };
        if durability == Durability::Disk && !has_disk {
            return Err(
                "--remote keeps each block in the swap file too, but --swap is none; give \
                 --swap PATH, or --remote-durability two-copies or wait"
                    .into(),
            );
        }
        let mut config = RemoteConfig::new(endpoints, durability).with_environment();
        config.bytes_max = self.remote_max;
        config.username = self.remote_user.or(config.username);
        if let Some(path) = &self.remote_password_file {
            let secret = Secret::read(path);
            let secret = secret.map_err(|error| format!("--remote-password-file: {error}"))?;
            config.password = Some(secret);
        }
        config.tls = Tls::read(
            self.remote_ca.as_deref(),
            self.remote_cert.as_deref(),
            self.remote_key.as_deref(),
        )
        .map_err(|error| format!("--remote-ca, --remote-cert, --remote-key: {error}"))?;
        config.seal = match self.remote_seal {
            Seal::OffHost => Sealing::OffHost,
            Seal::Always => Sealing::Always,
            Seal::Never => Sealing::Never,
        };
        config.plaintext_allowed = self.remote_plaintext;
        config.prefix = self.remote_prefix;
        let queue = ram_bytes / QUEUE_PART;
        config.queue_bytes_max = queue.clamp(*QUEUE_BYTES.start(), *QUEUE_BYTES.end());
        config.window_bytes_max = config.queue_bytes_max / 4;
        Ok(Some(source(config)))
    }
}

/// The tier, to be opened where the store is.
fn source(config: RemoteConfig) -> TierSource {
    let name = "other machines' RAM";
    TierSource::new(name, move || {
        let keeps = match config.durability {
            Durability::Disk => Keeps::Perhaps,
            Durability::TwoCopies | Durability::Wait => Keeps::Surely,
        };
        let copies = match config.durability {
            Durability::TwoCopies => 2,
            Durability::Disk | Durability::Wait => 1,
        };
        let tier = RemoteTier::open(config.clone()).map_err(|error| OpenError::Tier {
            name: "--remote".to_owned(),
            why: error.to_string(),
        })?;
        Ok(ListedTier {
            name: name.to_owned(),
            tier: Box::new(Arc::new(tier)),
            bytes_max: config.bytes_max.map(|bytes| bytes / copies),
            keeps,
        })
    })
}
