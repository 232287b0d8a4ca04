//! Addresses of hosts by their names, without waiting for a resolver where one was
//! known before.
//!
//! - A name is resolved in a thread of its own, which nobody waits for beyond his time.
//! - What was found last is used until a connection there fails; then the name is
//!   resolved again, for the next one.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// See the module's description.
#[derive(Default)]
pub(super) struct Names(Arc<Shared>);

#[derive(Default)]
struct Shared {
    known: Mutex<HashMap<String, Known>>,
    changed: Condvar,
}

#[derive(Default)]
struct Known {
    found: Vec<IpAddr>,
    failed: Option<String>,
    is_asked: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Names {
    /// The addresses of a host.
    pub(super) fn resolve(
        &self,
        host: &str,
        port: u16,
        within: Duration,
    ) -> io::Result<Vec<SocketAddr>> {
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, port)]);
        }
        let mut known = self.0.lock();
        if known.get(host).is_none_or(|known| known.found.is_empty()) {
            self.ask(&mut known, host);
            let is_open = |known: &mut HashMap<String, Known>| {
                known.get(host).is_some_and(|known| known.is_asked)
            };
            let waited = self.0.changed.wait_timeout_while(known, within, is_open);
            known = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        match known.get(host) {
            Some(known) if !known.found.is_empty() => Ok(known
                .found
                .iter()
                .map(|ip| SocketAddr::new(*ip, port))
                .collect()),
            Some(Known {
                failed: Some(why),
                is_asked: false,
                ..
            }) => Err(io::Error::other(why.clone())),
            _ => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Where a host was known to be, nobody answers.
    pub(super) fn doubt(&self, host: &str) {
        let mut known = self.0.lock();
        if known.contains_key(host) {
            self.ask(&mut known, host);
        }
    }

    /// Has a name be resolved, if that is not under way.
    fn ask(&self, known: &mut HashMap<String, Known>, host: &str) {
        let entry = known.entry(host.to_owned()).or_default();
        if entry.is_asked {
            return;
        }
        let (shared, name) = (Arc::clone(&self.0), host.to_owned());
        let resolve = move || {
            let found = (name.as_str(), 0).to_socket_addrs();
            let mut known = shared.lock();
            let entry = known.entry(name).or_default();
            entry.is_asked = false;
            match found {
                Ok(found) => {
                    entry.found = found.map(|address| address.ip()).collect();
                    entry.failed = None;
                }
                Err(error) => entry.failed = Some(error.to_string()),
            }
            drop(known);
            shared.changed.notify_all();
        };
        let builder = std::thread::Builder::new().name("zcache-resolve".to_owned());
        match builder.spawn(resolve) {
            Ok(_) => entry.is_asked = true,
            Err(error) => entry.failed = Some(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_kept_and_an_address_needs_nobody() {
        let names = Names::default();
        let second = Duration::from_secs(10);
        let literal = names.resolve("::1", 7, Duration::ZERO).unwrap();
        assert_eq!(literal, [SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 7))]);
        let here = names.resolve("localhost", 7, second).unwrap();
        assert!(here.iter().all(|address| address.ip().is_loopback()));
        assert_eq!(
            names.resolve("localhost", 8, Duration::ZERO).unwrap().len(),
            here.len()
        );
        names.doubt("localhost");
        assert!(
            names.resolve("localhost", 8, Duration::ZERO).is_ok(),
            "the last one serves"
        );
    }

    #[test]
    fn a_name_that_nobody_has_is_said() {
        let names = Names::default();
        assert!(
            names
                .resolve("no-such-host.invalid", 7, Duration::from_secs(30))
                .is_err()
        );
    }
}
