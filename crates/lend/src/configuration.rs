//! The server's configuration file.
//!
//! - Every word that comes from outside is quoted as the server reads quotes.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use zcache_remote::lender::{COMMANDS, notice};

use crate::listen::Listen;
use crate::password::Passwords;

/// What the server takes beside what it keeps: its own code and tables, and
/// connections' buffers.
const SERVER_BYTES: u64 = 12 << 20;

/// The part of what is kept by which its allocator takes more.
const ALLOCATOR_PART: u64 = 16;

/// The part that copies of pages take while a child of the server writes them
/// to a file or to a replica.
const FORK_PART: u64 = 4;

/// Of what is kept, the part that buffers of connections take at most, and the
/// least that they may.
const CLIENTS_PART: u64 = 10;
const CLIENTS_BYTES_MIN: u64 = 4 << 20;

/// The least that is worth a server.
pub(crate) const RAM_BYTES_MIN: u64 = 32 << 20;

/// What happens to pages when the server goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Durability {
    /// Borrowers have all of them on disk: RAM only, and gone at once.
    #[default]
    Disk,
    /// Borrowers have each at another lender too: RAM only.
    TwoCopies,
    /// They may be the only ones: also in a file, and at a replica.
    Wait,
}

/// Certificates of TLS, in PEM.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsFiles {
    /// The server's own.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Who signs borrowers.
    pub ca: PathBuf,
}

/// What a server is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerConfig {
    /// What it may take of this machine's RAM.
    pub ram_bytes: u64,
    /// Where it listens.
    pub listen: Listen,
    /// What happens to pages when it goes.
    pub durability: Durability,
    /// What keys begin with.
    pub prefix: String,
    /// Certificates; without these it speaks plaintext.
    pub tls: Option<TlsFiles>,
}

/// How `zcache lend` itself reaches its server.
pub(crate) struct Control<'a> {
    pub(crate) socket: &'a Path,
    pub(crate) sha256: &'a str,
}

/// The user that borrowers are.
pub(crate) const USER: &str = "borrower";

/// The user that a replica is.
pub(crate) const REPLICA_USER: &str = "replica";

/// The user that `zcache lend` is to its server.
pub(crate) const CONTROL_USER: &str = "lender";

impl ServerConfig {
    /// The most that it keeps, so that all of it is within its RAM.
    #[must_use]
    pub fn maxmemory(&self) -> u64 {
        let kept = self.ram_bytes.saturating_sub(SERVER_BYTES);
        let mut margin = kept / ALLOCATOR_PART;
        if self.durability == Durability::Wait {
            margin += kept / FORK_PART;
        }
        kept - margin
    }

    /// The file, with the hashes of passwords. `folder` has the
    /// server's files; a control is for a server that is watched.
    pub(crate) fn text(
        &self,
        folder: &Path,
        passwords: &Passwords,
        control: Option<&Control<'_>>,
    ) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: &str| {
            let _ = writeln!(text, "{name} {value}");
        };
        line("bind", &self.listen.address.to_string());
        let port = self.listen.port.to_string();
        match &self.tls {
            None => line("port", &port),
            Some(tls) => {
                line("port", "0");
                line("tls-port", &port);
                line("tls-cert-file", &quoted(&tls.cert));
                line("tls-key-file", &quoted(&tls.key));
                line("tls-ca-cert-file", &quoted(&tls.ca));
                line("tls-auth-clients", "yes");
                line("tls-protocols", "\"TLSv1.2 TLSv1.3\"");
                line("tls-replication", "yes");
            }
        }
        line("protected-mode", "yes");
        line("user", "default off");
        let prefix = &self.prefix;
        line(
            "user",
            &format!(
                "{USER} on #{} resetchannels ~{prefix}:* -@all {COMMANDS}",
                passwords.borrower.sha256()
            ),
        );
        if let Some(replica) = &passwords.replica {
            let hash = replica.sha256();
            line(
                "user",
                &format!("{REPLICA_USER} on #{hash} resetchannels -@all +psync +replconf +ping"),
            );
        }
        if let Some(control) = control {
            line("unixsocket", &quoted(control.socket));
            line("unixsocketperm", "700");
            let (hash, key) = (control.sha256, notice(prefix));
            line(
                "user",
                &format!(
                    "{CONTROL_USER} on #{hash} resetchannels ~{key} -@all +ping +set +unlink +scan +config|set"
                ),
            );
        }
        line("dir", &quoted(folder));
        line("daemonize", "no");
        line("databases", "1");
        line("loglevel", "warning");
        line("maxmemory", &self.maxmemory().to_string());
        line("maxmemory-policy", "noeviction");
        // In bytes: a part would follow maxmemory down when nothing more is taken.
        let clients = (self.maxmemory() / CLIENTS_PART).max(CLIENTS_BYTES_MIN);
        line("maxmemory-clients", &clients.to_string());
        line("save", "\"\"");
        match self.durability {
            Durability::Disk | Durability::TwoCopies => line("appendonly", "no"),
            Durability::Wait => {
                line("appendonly", "yes");
                line("appendfsync", "everysec");
                line("min-replicas-to-write", "1");
                line("min-replicas-max-lag", "10");
            }
        }
        if self.durability == Durability::Disk {
            // What borrowers have on disk too goes before anybody's own.
            line("oom-score-adj", "absolute");
            line("oom-score-adj-values", "900 900 900");
        }
        line("lazyfree-lazy-expire", "yes");
        line("tcp-keepalive", "60");
        line("shutdown-timeout", "2");
        text
    }
}

/// A path as the server reads one.
fn quoted(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    let mut text = String::from('"');
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'"' | b'\\' => text.extend(['\\', char::from(*byte)]),
            b' '..=b'~' => text.push(char::from(*byte)),
            other => {
                let _ = write!(text, "\\x{other:02x}");
            }
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::password::Password;

    fn config(durability: Durability) -> ServerConfig {
        ServerConfig {
            ram_bytes: 1 << 30,
            listen: Listen::default(),
            durability,
            prefix: "zc".to_owned(),
            tls: None,
        }
    }

    fn text(config: &ServerConfig) -> String {
        let password = |text: &str| Password::known(text);
        let passwords = Passwords {
            borrower: password("abc"),
            replica: (config.durability == Durability::Wait).then(|| password("abc")),
        };
        config.text(Path::new("/var/lib/x"), &passwords, None)
    }

    #[test]
    fn nothing_is_evicted_or_saved_and_nobody_else_comes_in() {
        let text = text(&config(Durability::Disk));
        for line in [
            "bind 127.0.0.1",
            "port 6379",
            "protected-mode yes",
            "user default off",
            "maxmemory-policy noeviction",
            "maxmemory-clients 99483648",
            "save \"\"",
            "appendonly no",
            "user borrower on #ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad resetchannels ~zc:* -@all +get +set +getrange +unlink +expire +wait +ping +info +cluster|slots +asking",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
        assert!(
            !text.contains("unixsocket") && !text.contains("tls-"),
            "{text}"
        );
    }

    #[test]
    fn only_copies_are_in_a_file_and_at_a_replica() {
        let text = text(&config(Durability::Wait));
        for line in [
            "appendonly yes",
            "appendfsync everysec",
            "min-replicas-to-write 1",
            "user replica on #ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad resetchannels -@all +psync +replconf +ping",
            "save \"\"",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
        assert!(!text.contains("oom-score-adj"), "{text}");
    }

    #[test]
    fn tls_leaves_no_plain_port_and_asks_borrowers_for_certificates() {
        let mut config = config(Durability::TwoCopies);
        config.tls = Some(TlsFiles {
            cert: "/c".into(),
            key: "/k".into(),
            ca: "/a".into(),
        });
        let text = text(&config);
        for line in [
            "port 0",
            "tls-port 6379",
            "tls-auth-clients yes",
            "tls-ca-cert-file \"/a\"",
            "appendonly no",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
    }

    #[test]
    fn no_path_becomes_a_line_of_its_own() {
        let path = Path::new("/a \"b\\\nuser default on");
        assert_eq!(quoted(path), r#""/a \"b\\\x0auser default on""#);
    }

    #[test]
    fn the_server_and_what_it_keeps_are_within_what_is_lent() {
        for (durability, part) in [(Durability::Disk, 0.92), (Durability::Wait, 0.67)] {
            let config = config(durability);
            let part_kept = config.maxmemory() as f64 / config.ram_bytes as f64;
            assert!(part_kept > part && part_kept < part + 0.02, "{part_kept}");
        }
        let mut least = config(Durability::Wait);
        least.ram_bytes = RAM_BYTES_MIN;
        assert!(least.maxmemory() > 12 << 20);
    }
}
