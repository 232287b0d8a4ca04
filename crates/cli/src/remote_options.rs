//! What the user says of other machines' RAM, made into a tier of the list.
//!
//! - No secret is an argument: everybody on the machine can read these.
//! - What is lost of a mount is in its source: only a program's pages need be safe.

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

/// When a program's page that left is safe
#[derive(Args)]
#[command(next_help_heading = "Other machines' RAM")]
pub(crate) struct DurabilityOption {
    /// When a block that left counts as safe.
    #[arg(long, value_name = "WHEN", default_value = "disk", requires = "remote")]
    remote_durability: Safe,
}

/// RAM of other machines
#[derive(Args)]
#[command(next_help_heading = "Other machines' RAM")]
pub(crate) struct RemoteOptions {
    /// A Valkey or Redis server (7 or later) that keeps blocks in its RAM:
    /// redis://HOST[:PORT], rediss://HOST[:PORT] (TLS), unix:///SOCKET,
    /// redis-cluster://HOST,HOST,… or rediss-cluster://…; may be given again for more
    /// servers. The coldest blocks go there before they go to the disk or, of a mount, are
    /// dropped.
    // Read later: what is wrong with an argument, the parser repeats with the argument.
    #[arg(long, value_name = "URL")]
    remote: Vec<String>,

    /// The most bytes that servers keep for this run, all copies counted; without
    /// this, what they have.
    #[arg(long, value_name = "SIZE", value_parser = size::parse, requires = "remote")]
    remote_max: Option<u64>,

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
    /// The tier for a program's pages, if one is asked for.
    pub(crate) fn tier(
        self,
        durability: &DurabilityOption,
        ram_bytes: u64,
        has_disk: bool,
    ) -> Result<Option<TierSource>, String> {
        if self.remote.is_empty() {
            return Ok(None);
        }
        let durability = match durability.remote_durability {
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
        let config = self.config(durability, ram_bytes)?;
        Ok(Some(source(config)))
    }

    /// The tier for pages that can be had again elsewhere, if one is asked for: one copy
    /// of each, which counts once a server has it.
    pub(crate) fn tier_of_cache(self, ram_bytes: u64) -> Result<Option<TierSource>, String> {
        if self.remote.is_empty() {
            return Ok(None);
        }
        let mut config = self.config(Durability::Disk, ram_bytes)?;
        config.posts = false;
        Ok(Some(source(config)))
    }

    /// Takes an option of mount(8): its name without `remote-`, which is empty for a
    /// server. False when there is none of this name.
    pub(crate) fn set(&mut self, name: &str, value: Option<&str>) -> Result<bool, String> {
        match (name, value) {
            ("", Some(url)) => self.remote.push(url.to_owned()),
            ("max", Some(value)) => self.remote_max = Some(size::parse(value)?),
            ("user", Some(value)) => self.remote_user = Some(value.to_owned()),
            ("password-file", Some(value)) => self.remote_password_file = Some(value.into()),
            ("ca", Some(value)) => self.remote_ca = Some(value.into()),
            ("cert", Some(value)) => self.remote_cert = Some(value.into()),
            ("key", Some(value)) => self.remote_key = Some(value.into()),
            ("seal", Some(value)) => {
                self.remote_seal = Seal::from_str(value, false)
                    .map_err(|_| format!("remote-seal={value}: off-host, always or never"))?;
            }
            ("plaintext", None) => self.remote_plaintext = true,
            ("prefix", Some(value)) => self.remote_prefix = value.to_owned(),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn config(self, durability: Durability, ram_bytes: u64) -> Result<RemoteConfig, String> {
        let endpoints = self.remote.iter().map(|url| Endpoint::parse(url));
        let endpoints = endpoints.collect::<Result<Vec<_>, _>>();
        let endpoints = endpoints.map_err(|error| format!("--remote: {error}"))?;
        let mut config = RemoteConfig::new(endpoints, durability).with_environment();
        config.bytes_max = self.remote_max;
        config.username = self.remote_user.or(config.username);
        if let Some(path) = &self.remote_password_file {
            let secret = Secret::read(path);
            let secret = secret.map_err(|error| format!("--remote-password-file: {error}"))?;
            config.password = Some(secret);
        }
        if config.username.is_some() && config.password.is_none() {
            return Err(
                "--remote-user needs a password: put it into a file (--remote-password-file) or into ZCACHE_REMOTE_PASSWORD"
                    .into(),
            );
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
        Ok(config)
    }
}

/// The tier, to be opened where the store is.
fn source(config: RemoteConfig) -> TierSource {
    let name = "other machines' RAM";
    TierSource::new(name, move || {
        let keeps = match config.posts {
            true => Keeps::Perhaps,
            false => Keeps::Surely,
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
