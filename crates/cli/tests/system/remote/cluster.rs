//! A cluster of three masters with a replica each.

use super::client::Reply;
use super::server::{Server, Setup};
use crate::support::eventually;
use std::time::Duration;

const MASTERS: usize = 3;
const SLOTS: usize = 16384;
const BOUND: Duration = Duration::from_secs(60);

/// Six servers; the first three start as masters, and the replica of each stands three behind it.
pub(super) struct Cluster {
    pub(super) servers: Vec<Server>,
}

impl Cluster {
    /// With more lines of the servers' configuration.
    pub(super) fn start(options: &[(&str, &str)]) -> Cluster {
        let servers = (0..2 * MASTERS).map(|_| {
            let mut setup = Setup::new()
                .option("cluster-enabled", "yes")
                .option("cluster-port", super::server::free_port().to_string())
                .option("cluster-node-timeout", "2000")
                // What is left of a cluster goes on with the slots that it has.
                .option("cluster-require-full-coverage", "no")
                .option("repl-diskless-sync-delay", "0");
            for (name, value) in options {
                setup = setup.option(name, *value);
            }
            setup.start()
        });
        let cluster = Cluster {
            servers: servers.collect(),
        };
        cluster.join();
        cluster
    }

    fn join(&self) {
        let first = &self.servers[0];
        for (n, server) in self.servers.iter().enumerate() {
            server.ask(&["CLUSTER", "SET-CONFIG-EPOCH", &(n + 1).to_string()]);
            if n < MASTERS {
                let (from, to) = (SLOTS * n / MASTERS, SLOTS * (n + 1) / MASTERS - 1);
                server.ask(&[
                    "CLUSTER",
                    "ADDSLOTSRANGE",
                    &from.to_string(),
                    &to.to_string(),
                ]);
            }
        }
        for server in &self.servers[1..] {
            let bus = server.option("cluster-port");
            first.ask(&[
                "CLUSTER",
                "MEET",
                "127.0.0.1",
                &server.port.to_string(),
                &bus,
            ]);
        }
        self.wait_until("all know each other", |server| {
            let nodes = server.ask(&["CLUSTER", "NODES"]).text();
            nodes.lines().count() == 2 * MASTERS && !nodes.contains("handshake")
        });
        for (n, replica) in self.servers[MASTERS..].iter().enumerate() {
            replica.ask(&["CLUSTER", "REPLICATE", &self.id(n)]);
        }
        self.wait_until("the replicas follow", |server| {
            let info = server.ask(&["INFO", "replication"]).text();
            info.contains("master_link_status:up") || info.contains("state=online")
        });
        self.wait_until("it is ready", |server| {
            let info = server.ask(&["CLUSTER", "INFO"]).text();
            let nodes = server.ask(&["CLUSTER", "NODES"]).text();
            info.contains("cluster_state:ok") && nodes.matches("slave").count() == MASTERS
        });
    }

    #[track_caller]
    fn wait_until(&self, what: &str, holds: impl Fn(&Server) -> bool) {
        for server in &self.servers {
            assert!(
                eventually(BOUND, || holds(server)),
                "the cluster does not get on: {what}: {}",
                server.log()
            );
        }
    }

    /// What `--remote` takes: two of its nodes.
    pub(super) fn url(&self) -> String {
        let ports = (self.servers[0].port, self.servers[1].port);
        format!(
            "redis-cluster://127.0.0.1:{},127.0.0.1:{}",
            ports.0, ports.1
        )
    }

    /// The name that nodes know a server by.
    pub(super) fn id(&self, n: usize) -> String {
        self.servers[n].ask(&["CLUSTER", "MYID"]).text()
    }

    /// Waits until a server that was a replica is a master.
    #[track_caller]
    pub(super) fn wait_for_master(&self, n: usize) {
        let server = &self.servers[n];
        let is_master = || server.ask(&["ROLE"]).text().starts_with("master");
        assert!(
            eventually(BOUND, is_master),
            "no failover: {}",
            server.log()
        );
    }

    /// Moves so many slots from one server to another as operators do, key by key.
    pub(super) fn move_slots(&self, from: usize, to: usize, count: usize) {
        let (from_id, to_id) = (self.id(from), self.id(to));
        let port = self.servers[to].port.to_string();
        let first = SLOTS * from / MASTERS;
        for slot in first..first + count {
            let slot = slot.to_string();
            let set = |n: usize, words: &[&str]| {
                let mut all = vec!["CLUSTER", "SETSLOT", &slot];
                all.extend_from_slice(words);
                self.servers[n].ask(&all);
            };
            set(to, &["IMPORTING", &from_id]);
            set(from, &["MIGRATING", &to_id]);
            while let Reply::List(keys) =
                self.servers[from].ask(&["CLUSTER", "GETKEYSINSLOT", &slot, "64"])
            {
                if keys.is_empty() {
                    break;
                }
                let keys: Vec<String> = keys.iter().map(Reply::text).collect();
                let mut all = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
                all.extend(keys.iter().map(String::as_str));
                self.servers[from].ask(&all);
            }
            set(to, &["NODE", &to_id]);
            set(from, &["NODE", &to_id]);
        }
    }
}
