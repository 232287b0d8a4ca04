//! The simulated network, with its open connections counted for each server.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use zcache_remote::Address;
use zcache_remote::link::{Command, Link, LinkError, Network, Reply};
use zcache_remote::simulated::SimulatedNetwork;

/// Counts what goes through it.
pub(super) struct Counted {
    inner: SimulatedNetwork,
    open: Vec<Arc<AtomicU64>>,
}

struct CountedLink {
    inner: Box<dyn Link>,
    open: Arc<AtomicU64>,
}

impl Counted {
    pub(super) fn new(inner: SimulatedNetwork, servers: usize) -> Counted {
        let open = (0..servers).map(|_| Arc::default()).collect();
        Counted { inner, open }
    }

    /// Connections to a server that are open now.
    pub(super) fn open(&self, server: usize) -> u64 {
        self.open[server].load(Relaxed)
    }
}

impl Network for Counted {
    fn connect(&self, address: &Address, within: Duration) -> Result<Box<dyn Link>, LinkError> {
        let inner = self.inner.connect(address, within)?;
        let is_it = |server: &usize| SimulatedNetwork::address(*server) == *address;
        let number = match address {
            Address::Tcp { host, .. } => host.rsplit('-').next().and_then(|text| text.parse().ok()),
            Address::Unix(_) => None,
        };
        let found = number
            .filter(is_it)
            .and_then(|server| self.open.get(server));
        let open = Arc::clone(found.ok_or_else(|| LinkError::Broken("no such host".to_owned()))?);
        open.fetch_add(1, Relaxed);
        Ok(Box::new(CountedLink { inner, open }))
    }
}

impl Link for CountedLink {
    fn send(&mut self, commands: &[Command]) -> Result<(), LinkError> {
        self.inner.send(commands)
    }

    fn receive(&mut self, within: Duration) -> Result<Reply, LinkError> {
        self.inner.receive(within)
    }
}

impl Drop for CountedLink {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Relaxed);
    }
}
