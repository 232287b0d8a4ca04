//! Where a server listens.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

/// The port where none is named, as borrowers have it.
const PORT: u16 = 6379;

/// An address of this machine and a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Listen {
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
}

impl Default for Listen {
    fn default() -> Listen {
        Listen {
            address: Ipv4Addr::LOCALHOST.into(),
            port: PORT,
        }
    }
}

impl Listen {
    /// Whether only this machine reaches it.
    pub(crate) fn is_loopback(self) -> bool {
        self.address.is_loopback()
    }

    /// What borrowers write for it: every address of a machine is none.
    pub(crate) fn host(self) -> String {
        match self.address {
            address if address.is_unspecified() => "HOST".to_owned(),
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        }
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Listen, String> {
        let wrong = || {
            format!(
                "'{text}' is no address to listen at; write an IP address of this machine and perhaps a port, \
                 for example 10.0.0.1, 10.0.0.1:7000, [::1]:7000 or 0.0.0.0 for all"
            )
        };
        let (address, port) = match text.parse::<IpAddr>() {
            Ok(address) => (address, PORT),
            Err(_) => {
                let (address, port) = text.rsplit_once(':').ok_or_else(wrong)?;
                let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']'));
                let address = match bare {
                    Some(bare) => IpAddr::V6(bare.parse().map_err(|_| wrong())?),
                    None => IpAddr::V4(address.parse().map_err(|_| wrong())?),
                };
                (address, port.parse().map_err(|_| wrong())?)
            }
        };
        match port {
            0 => Err(wrong()),
            _ => Ok(Listen { address, port }),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            IpAddr::V4(address) => write!(f, "{address}:{}", self.port),
            IpAddr::V6(address) => write!(f, "[{address}]:{}", self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_read() {
        for (text, shown, loopback) in [
            ("10.0.0.1", "10.0.0.1:6379", false),
            ("127.0.0.1:7000", "127.0.0.1:7000", true),
            ("::1", "[::1]:6379", true),
            ("[fe80::1]:7000", "[fe80::1]:7000", false),
            ("0.0.0.0", "0.0.0.0:6379", false),
        ] {
            let listen: Listen = text.parse().unwrap();
            assert_eq!(
                (listen.to_string().as_str(), listen.is_loopback()),
                (shown, loopback)
            );
        }
        assert_eq!("0.0.0.0".parse::<Listen>().unwrap().host(), "HOST");
    }

    #[test]
    fn what_is_no_address_is_refused_with_an_example() {
        for text in [
            "",
            "lender",
            "10.0.0.1:0",
            "10.0.0.1:70000",
            "10.0.0",
            "fe80::1]:7",
            "[10.0.0.1]:7",
        ] {
            let error = text.parse::<Listen>().expect_err(text);
            assert!(error.contains("10.0.0.1:7000"), "{error}");
        }
    }
}
