//! What a remote tier is told: where, how safe, how fast.
//!
//! Off the data path. Secrets come from files or the environment, and are shown
//! by no `Debug`.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::endpoint::Endpoint;

/// When a block counts as written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Durability {
    /// The disk has every block too. The tier takes copies, and may lose them.
    #[default]
    Disk,
    /// When two masters have it.
    TwoCopies,
    /// When a master and one of its replicas have it, and both also write files.
    Wait,
}

/// Whether peers can read what they keep.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Sealing {
    /// They cannot when an endpoint is on another machine.
    #[default]
    OffHost,
    /// They never can.
    Always,
    /// They can: chunks have checksums only.
    Never,
}

/// A password or a private key.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// The environment's variable with the password.
pub const PASSWORD_VARIABLE: &str = "ZCACHE_REMOTE_PASSWORD";

/// The environment's variable with the user.
pub const USER_VARIABLE: &str = "ZCACHE_REMOTE_USER";

impl Secret {
    /// A secret from elsewhere.
    #[must_use]
    pub fn new(text: String) -> Secret {
        Secret(text)
    }

    /// The first line of a file.
    ///
    /// # Errors
    /// [`SecretError`] when it cannot be read, is empty or others may read it.
    pub fn read(path: &Path) -> Result<Secret, SecretError> {
        let fail = |why| SecretError {
            path: path.to_owned(),
            why,
        };
        must_be_private(path)?;
        let text = std::fs::read_to_string(path).map_err(|error| fail(SecretFault::Io(error)))?;
        match text.lines().next() {
            Some(line) if !line.is_empty() => Ok(Secret(line.to_owned())),
            _ => Err(fail(SecretFault::Empty)),
        }
    }

    /// The password of [`PASSWORD_VARIABLE`], if there is one.
    #[must_use]
    pub fn from_environment() -> Option<Secret> {
        let text = std::env::var(PASSWORD_VARIABLE).ok()?;
        (!text.is_empty()).then_some(Secret(text))
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// A file of a secret or certificate that is of no use.
#[derive(Debug)]
pub struct SecretError {
    path: PathBuf,
    why: SecretFault,
}

#[derive(Debug)]
enum SecretFault {
    Io(io::Error),
    Empty,
    Open,
    NotPem(&'static str),
    Halves,
}

impl fmt::Display for SecretError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.why {
            SecretFault::Io(error) => write!(f, "{path}: {error}"),
            SecretFault::Empty => write!(f, "{path}: the first line is empty"),
            SecretFault::Open => write!(
                f,
                "{path}: others may read it; give it to its owner alone: chmod 600 {path}"
            ),
            SecretFault::NotPem(what) => write!(f, "{path}: no {what} in PEM is in it"),
            SecretFault::Halves => write!(
                f,
                "{path}: a client's certificate and its key go together; give both"
            ),
        }
    }
}

impl std::error::Error for SecretError {}

/// Certificates of TLS, in PEM.
#[derive(Clone, Default)]
pub struct Tls {
    /// Who may sign servers; else whom the system trusts.
    pub(crate) ca: Option<Vec<u8>>,
    /// Our certificate and its key.
    pub(crate) client: Option<(Vec<u8>, Secret)>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`SecretError`].
    pub fn read(
        ca: Option<&Path>,
        cert: Option<&Path>,
        key: Option<&Path>,
    ) -> Result<Tls, SecretError> {
        let ca = ca.map(|path| read_pem(path, "CERTIFICATE", "certificate"));
        let client = match (cert, key) {
            (None, None) => None,
            (Some(cert), Some(key)) => {
                must_be_private(key)?;
                let pem = read_pem(key, "PRIVATE KEY", "private key")?;
                let key = Secret(String::from_utf8_lossy(&pem).into_owned());
                Some((read_pem(cert, "CERTIFICATE", "certificate")?, key))
            }
            (Some(path), None) | (None, Some(path)) => {
                return Err(SecretError {
                    path: path.to_owned(),
                    why: SecretFault::Halves,
                });
            }
        };
        Ok(Tls {
            ca: ca.transpose()?,
            client,
        })
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("ca", &self.ca.is_some())
            .field("client", &self.client.is_some())
            .finish()
    }
}

/// Whether a file is its owner's alone.
fn must_be_private(path: &Path) -> Result<(), SecretError> {
    use std::os::unix::fs::PermissionsExt;
    let fail = |why| SecretError {
        path: path.to_owned(),
        why,
    };
    let found = std::fs::metadata(path).map_err(|error| fail(SecretFault::Io(error)))?;
    match found.permissions().mode() & 0o077 {
        0 => Ok(()),
        _ => Err(fail(SecretFault::Open)),
    }
}

fn read_pem(path: &Path, label: &str, what: &'static str) -> Result<Vec<u8>, SecretError> {
    let fail = |why| SecretError {
        path: path.to_owned(),
        why,
    };
    let bytes = std::fs::read(path).map_err(|error| fail(SecretFault::Io(error)))?;
    let text = String::from_utf8_lossy(&bytes);
    let holds = |line: &str| line.starts_with("-----BEGIN ") && line.contains(label);
    match text.lines().any(holds) {
        true => Ok(bytes),
        false => Err(fail(SecretFault::NotPem(what))),
    }
}

/// How long is waited for what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timeouts {
    /// For a connection.
    pub connect: Duration,
    /// For the answer to a read, once hedging is no way out.
    pub read: Duration,
    /// For the answer to a write.
    pub write: Duration,
    /// How long a read of the only copies is tried again, as while a cluster
    /// fails over.
    pub patience: Duration,
    /// The least time after which another copy is asked.
    pub hedge_min: Duration,
    /// For giving everything back at the end.
    pub end: Duration,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            connect: Duration::from_millis(1000),
            read: Duration::from_millis(1000),
            write: Duration::from_millis(2000),
            patience: Duration::from_secs(20),
            hedge_min: Duration::from_millis(1),
            end: Duration::from_secs(3),
        }
    }
}

/// A remote tier.
#[derive(Clone, Debug)]
pub struct RemoteConfig {
    /// The servers and clusters.
    pub endpoints: Vec<Endpoint>,
    /// The most bytes that servers keep for this tier, all copies counted.
    pub bytes_max: Option<u64>,
    /// When a block counts as written.
    pub durability: Durability,
    /// Whether a write only takes a copy, to be sent later or not at all.
    pub posts: bool,
    /// What keys begin with.
    pub prefix: String,
    /// What this machine is called in keys.
    pub host: String,
    /// Whether peers can read what they keep.
    pub seal: Sealing,
    /// Whether plaintext may go to other machines.
    pub plaintext_allowed: bool,
    /// The user; a password without one is the default user's.
    pub username: Option<String>,
    /// The password.
    pub password: Option<Secret>,
    /// Certificates.
    pub tls: Tls,
    /// How long is waited for what.
    pub timeouts: Timeouts,
    /// After how long without a word from us servers give our RAM back.
    pub lease: Duration,
    /// Blocks that wait to be sent, in bytes, where writes only take copies.
    pub queue_bytes_max: u64,
    /// Bytes on their way to one node.
    pub window_bytes_max: u64,
}

impl RemoteConfig {
    /// The defaults for these endpoints.
    #[must_use]
    pub fn new(endpoints: Vec<Endpoint>, durability: Durability) -> RemoteConfig {
        let lease = match durability {
            Durability::Disk => Duration::from_secs(300),
            // A program that is stopped for the night keeps its only copies.
            Durability::TwoCopies | Durability::Wait => Duration::from_secs(24 * 3600),
        };
        RemoteConfig {
            endpoints,
            bytes_max: None,
            durability,
            posts: durability == Durability::Disk,
            prefix: "zc".to_owned(),
            host: host_name(),
            seal: Sealing::OffHost,
            plaintext_allowed: false,
            username: None,
            password: None,
            tls: Tls::default(),
            timeouts: Timeouts::default(),
            lease,
            queue_bytes_max: 8 << 20,
            window_bytes_max: 1 << 20,
        }
    }

    /// Takes user and password from the environment, where they are there.
    #[must_use]
    pub fn with_environment(mut self) -> RemoteConfig {
        self.password = Secret::from_environment().or(self.password);
        self.username = std::env::var(USER_VARIABLE).ok().or(self.username);
        self
    }

    /// Whether chunks are sealed with a key.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        let mut addresses = self.endpoints.iter().flat_map(Endpoint::addresses);
        self.seals(addresses.any(|address| address.is_off_host()))
    }

    /// The same, where it is known whether any server is on another machine.
    pub(crate) fn seals(&self, is_off_host: bool) -> bool {
        match self.seal {
            Sealing::Always => true,
            Sealing::Never => false,
            Sealing::OffHost => is_off_host,
        }
    }

    /// How many masters each block is on.
    pub(crate) fn copies(&self) -> usize {
        match self.durability {
            Durability::TwoCopies if !self.posts => 2,
            _ => 1,
        }
    }
}

/// The machine's name, of characters that a key may have.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let kept = name.trim().chars().take(64);
    let name: String = kept
        .filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c))
        .collect();
    if name.is_empty() {
        "host".to_owned()
    } else {
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_shown() {
        let mut config = RemoteConfig::new(Vec::new(), Durability::Disk);
        config.password = Some(Secret::new("hunter2".to_owned()));
        config.tls.client = Some((b"cert".to_vec(), Secret::new("hunter2".to_owned())));
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn a_file_that_others_read_is_no_secret() {
        use std::os::unix::fs::PermissionsExt;
        let path = std::env::temp_dir().join(format!("zcache-secret-{}", std::process::id()));
        std::fs::write(&path, "hunter2\nmore\n").unwrap();
        let mode = |mode| std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        mode(0o640);
        let text = Secret::read(&path).unwrap_err().to_string();
        assert!(text.contains("chmod 600"), "{text}");
        mode(0o600);
        assert_eq!(Secret::read(&path).unwrap().reveal(), "hunter2");
        let text = Tls::read(Some(&path), None, None).unwrap_err().to_string();
        assert!(text.contains("no certificate in PEM"), "{text}");
        let text = Tls::read(None, Some(&path), None).unwrap_err().to_string();
        assert!(text.contains("give both"), "{text}");
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn what_leaves_the_machine_is_sealed_by_default() {
        let config = |url| RemoteConfig::new(vec![Endpoint::parse(url).unwrap()], Durability::Disk);
        assert!(config("redis://10.0.0.2").is_sealed());
        assert!(config("rediss://10.0.0.2").is_sealed());
        assert!(!config("redis://127.0.0.1").is_sealed());
        assert!(!config("unix:///run/v.sock").is_sealed());
    }
}
