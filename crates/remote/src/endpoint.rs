//! Where servers are: what `--remote` takes.
//!
//! Off the data path. Does not connect, and does not know secrets: a URL that
//! has one is refused, because the command line is there for every user to see.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

/// The port of a server that names none.
const PORT: u16 = 6379;

/// One server's address.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Address {
    /// By TCP.
    Tcp {
        /// A name or an IP address.
        host: String,
        /// The port.
        port: u16,
        /// Whether TLS is spoken.
        tls: bool,
    },
    /// By a socket of this machine.
    Unix(PathBuf),
}

impl Address {
    /// Whether what is sent there leaves the machine.
    #[must_use]
    pub fn is_off_host(&self) -> bool {
        match self {
            Address::Unix(_) => false,
            Address::Tcp { host, .. } => {
                let ip = host.parse::<IpAddr>();
                host != "localhost" && !ip.is_ok_and(|ip| ip.is_loopback())
            }
        }
    }

    /// Whether others on the way can read along.
    #[must_use]
    pub fn is_plaintext_off_host(&self) -> bool {
        self.is_off_host() && !matches!(self, Address::Tcp { tls: true, .. })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp { host, port, .. } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Address::Tcp { host, port, .. } => write!(f, "{host}:{port}"),
            Address::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// One server, or one cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Endpoint {
    /// A server by itself.
    Server(Address),
    /// A cluster, by some of its nodes; the others are learned from these.
    Cluster(Vec<Address>),
}

/// Why a URL is no endpoint. The text is not repeated: wherever it is wrong, a secret may
/// be in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EndpointError {
    /// It begins otherwise than an endpoint.
    Scheme,
    /// It has a user or a password in it.
    Secret,
    /// No host is named.
    NoHost,
    /// The port is no number from 1 to 65,535.
    Port,
    /// Something stands behind the host.
    Path,
    /// More than one host, where only a cluster has several.
    Several,
}

impl fmt::Display for EndpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            EndpointError::Scheme => {
                "no remote begins so: give redis://HOST[:PORT], rediss://HOST[:PORT] (TLS), redis-cluster://H1,H2,..., \
                 rediss-cluster://H1,H2,... or unix:///PATH"
            }
            EndpointError::Secret => {
                "a remote's URL must not hold a user or a password, because the command line is there for all to see: \
                 put the password into a file (--remote-password-file) or into ZCACHE_REMOTE_PASSWORD, \
                 and the user into ZCACHE_REMOTE_USER"
            }
            EndpointError::NoHost => "a remote's URL names no host: give one after the scheme, or unix:///PATH",
            EndpointError::Port => "what follows the host in a remote's URL is no port: give :1 to :65535",
            EndpointError::Path => {
                "nothing may follow host and port in a remote's URL; only database 0 is used"
            }
            EndpointError::Several => {
                "several hosts in one URL are for redis-cluster:// and rediss-cluster://; repeat --remote for servers by themselves"
            }
        })
    }
}

impl std::error::Error for EndpointError {}

impl Endpoint {
    /// Reads `redis://`, `rediss://`, `redis-cluster://` or `rediss-cluster://`
    /// with a host (several for a cluster), or `unix://` with a path. The same
    /// with `valkey` in the place of `redis`.
    ///
    /// # Errors
    /// [`EndpointError`], which says what to give instead.
    pub fn parse(url: &str) -> Result<Endpoint, EndpointError> {
        let (scheme, rest) = url.split_once("://").ok_or(EndpointError::Scheme)?;
        if rest.contains('@') {
            return Err(EndpointError::Secret);
        }
        if scheme == "unix" {
            return match rest.starts_with('/') {
                true => Ok(Endpoint::Server(Address::Unix(PathBuf::from(rest)))),
                false => Err(EndpointError::NoHost),
            };
        }
        let (tls, cluster) = match scheme {
            "redis" | "valkey" => (false, false),
            "rediss" | "valkeys" => (true, false),
            "redis-cluster" | "valkey-cluster" => (false, true),
            "rediss-cluster" | "valkeys-cluster" => (true, true),
            _ => return Err(EndpointError::Scheme),
        };
        let hosts = rest.strip_suffix('/').unwrap_or(rest);
        if hosts.contains(['/', '?', '#']) {
            return Err(EndpointError::Path);
        }
        let addresses = hosts
            .split(',')
            .map(|host| address(host, tls))
            .collect::<Result<Vec<_>, _>>()?;
        match (cluster, addresses.as_slice()) {
            (true, _) => Ok(Endpoint::Cluster(addresses)),
            (false, [one]) => Ok(Endpoint::Server(one.clone())),
            (false, _) => Err(EndpointError::Several),
        }
    }

    /// The addresses that are known from the start.
    #[must_use]
    pub fn addresses(&self) -> &[Address] {
        match self {
            Endpoint::Server(address) => std::slice::from_ref(address),
            Endpoint::Cluster(addresses) => addresses,
        }
    }
}

fn address(text: &str, tls: bool) -> Result<Address, EndpointError> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, behind) = rest.split_once(']').ok_or(EndpointError::NoHost)?;
            match behind.strip_prefix(':') {
                None if !behind.is_empty() => return Err(EndpointError::Port),
                port => (host, port),
            }
        }
        None => match text.rsplit_once(':') {
            // An IPv6 address without brackets is a host with no port.
            Some((host, _)) if host.contains(':') => (text, None),
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    if host.is_empty() {
        return Err(EndpointError::NoHost);
    }
    let port = match port {
        None => PORT,
        Some(port) => match port.parse() {
            Ok(0) | Err(_) => return Err(EndpointError::Port),
            Ok(port) => port,
        },
    };
    Ok(Address::Tcp {
        host: host.to_owned(),
        port,
        tls,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16, tls: bool) -> Address {
        Address::Tcp {
            host: host.to_owned(),
            port,
            tls,
        }
    }

    #[test]
    fn each_form_is_read() {
        let server = |address| Ok(Endpoint::Server(address));
        assert_eq!(
            Endpoint::parse("redis://lender"),
            server(tcp("lender", 6379, false))
        );
        assert_eq!(
            Endpoint::parse("rediss://10.0.0.2:7000/"),
            server(tcp("10.0.0.2", 7000, true))
        );
        assert_eq!(
            Endpoint::parse("valkey://[::1]:7000"),
            server(tcp("::1", 7000, false))
        );
        assert_eq!(
            Endpoint::parse("redis://fe80::1"),
            server(tcp("fe80::1", 6379, false))
        );
        assert_eq!(
            Endpoint::parse("unix:///run/v.sock"),
            server(Address::Unix("/run/v.sock".into()))
        );
        assert_eq!(
            Endpoint::parse("rediss-cluster://a,b:7001"),
            Ok(Endpoint::Cluster(vec![
                tcp("a", 6379, true),
                tcp("b", 7001, true)
            ]))
        );
    }

    #[test]
    fn a_refusal_says_what_to_do_and_repeats_no_secret() {
        for (url, says) in [
            ("redis://user:hunter2@host", "--remote-password-file"),
            ("foo:hunter2@host", "give redis://"),
            ("http://host", "give redis://"),
            ("redis://", "names no host"),
            ("unix://run/v", "names no host"),
            ("redis://h:0", "no port"),
            ("redis://h:65536", "no port"),
            ("redis://h/1", "database 0"),
            ("redis://h?password=hunter2", "database 0"),
            ("redis://h/hunter2", "database 0"),
            ("redis://h:hunter2", "no port"),
            ("redis://[::1]x7101", "no port"),
            ("redis://a,b", "repeat --remote"),
        ] {
            let text = Endpoint::parse(url).unwrap_err().to_string();
            assert!(text.contains(says), "{url}: {text}");
            assert!(!text.contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn what_leaves_the_machine_is_known() {
        for host in ["127.0.0.1", "127.9.9.9", "::1", "localhost"] {
            assert!(!tcp(host, 1, false).is_off_host(), "{host}");
        }
        assert!(tcp("10.0.0.2", 1, false).is_plaintext_off_host());
        assert!(!tcp("10.0.0.2", 1, true).is_plaintext_off_host());
        assert!(
            tcp("localhost.example", 1, false).is_off_host(),
            "a name is asked of others"
        );
    }
}
