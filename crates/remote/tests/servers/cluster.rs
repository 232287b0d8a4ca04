//! A cluster of three masters with a replica each, under load: slots move, a
//! master dies, and nothing that was acknowledged is lost.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use zcache_remote::{Durability, Endpoint, RemoteConfig, RemoteTier};

use crate::load::{load, read_all};
use crate::server::{Server, listens, programs, until};

const NODES: usize = 6;

struct Cluster {
    nodes: Vec<Server>,
}

impl Cluster {
    fn start(more: &[&str]) -> Cluster {
        let mut arguments = vec!["--cluster-enabled", "yes", "--cluster-node-timeout", "1500"];
        arguments.extend(more);
        let nodes: Vec<Server> = (0..NODES).map(|_| Server::start(&arguments)).collect();
        assert!(nodes.iter().all(|node| listens(node.port)));
        let cluster = Cluster { nodes };
        let addresses = cluster.addresses();
        let mut create = vec!["--cluster", "create"];
        create.extend(addresses.iter().map(String::as_str));
        create.extend(["--cluster-replicas", "1", "--cluster-yes"]);
        cluster.cli(&create);
        until("the cluster is whole", || {
            cluster
                .nodes
                .iter()
                .all(|node| node.ask(&["CLUSTER", "INFO"]).contains("cluster_state:ok"))
                && cluster.masters().iter().all(|at| {
                    cluster.nodes[*at]
                        .ask(&["INFO", "replication"])
                        .contains("state=online")
                })
        });
        cluster
    }

    fn addresses(&self) -> Vec<String> {
        self.nodes
            .iter()
            .map(|node| format!("127.0.0.1:{}", node.port))
            .collect()
    }

    fn cli(&self, arguments: &[&str]) -> String {
        let mut cli = Command::new("timeout");
        cli.args(["60", programs().1])
            .args(arguments)
            .stdin(Stdio::null());
        let done = cli.output().expect("the client runs");
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(done.status.success(), "{arguments:?}: {text}");
        text
    }

    fn masters(&self) -> Vec<usize> {
        let is_master = |at: &usize| self.nodes[*at].ask(&["ROLE"]).starts_with("master");
        (0..NODES).filter(is_master).collect()
    }

    fn id(&self, at: usize) -> String {
        self.nodes[at].ask(&["CLUSTER", "MYID"]).trim().to_owned()
    }

    fn endpoint(&self) -> Endpoint {
        let url = format!("redis-cluster://{}", self.addresses()[..2].join(","));
        Endpoint::parse(&url).unwrap()
    }
}

#[test]
fn a_cluster_moves_slots_and_fails_over_and_loses_nothing() {
    let more = ["--appendonly", "yes", "--min-replicas-to-write", "1"];
    let mut cluster = Cluster::start(&more);
    let config = RemoteConfig::new(vec![cluster.endpoint()], Durability::Wait);
    let tier = RemoteTier::open(config).unwrap();
    let stop = AtomicBool::new(false);
    let (acknowledged, failed) = std::thread::scope(|scope| {
        let load = scope.spawn(|| load(&tier, 0, &stop));
        std::thread::sleep(Duration::from_secs(1));
        let masters = cluster.masters();
        let (from, to) = (cluster.id(masters[0]), cluster.id(masters[1]));
        let seed = cluster.addresses()[masters[0]].clone();
        let moved = [
            "--cluster",
            "reshard",
            &seed,
            "--cluster-from",
            &from,
            "--cluster-to",
            &to,
            "--cluster-slots",
            "1500",
            "--cluster-yes",
        ];
        cluster.cli(&moved);
        std::thread::sleep(Duration::from_millis(500));
        let masters = cluster.masters();
        cluster.nodes[masters[2]].kill();
        until("a replica takes over", || {
            let alive = (0..NODES).filter(|at| *at != masters[2]);
            let is_master = |at: usize| cluster.nodes[at].ask(&["ROLE"]).starts_with("master");
            alive.filter(|at| is_master(*at)).count() == 3
        });
        std::thread::sleep(Duration::from_secs(2));
        cluster.nodes[masters[2]].start_again();
        std::thread::sleep(Duration::from_secs(1));
        stop.store(true, Relaxed);
        load.join().unwrap()
    });
    let stats = tier.stats();
    println!("{acknowledged} acknowledged; {stats:?}");
    assert!(acknowledged > 300, "{stats:?}");
    assert_eq!(
        read_all(&tier, 0..acknowledged),
        (acknowledged as usize, 0),
        "{stats:?}"
    );
    assert_eq!((failed, stats.blocks_lost), (0, 0), "{stats:?}");
    until("every master may be written to", || {
        let replicated = |at: &usize| {
            let about = cluster.nodes[*at].ask(&["INFO", "replication"]);
            about.contains("state=online") && !about.contains("good_slaves:0")
        };
        cluster.masters().iter().all(replicated)
    });
    drop(tier);
    let masters = cluster.masters().into_iter();
    let left: Vec<String> = masters.flat_map(|at| cluster.nodes[at].keys()).collect();
    assert_eq!(left, Vec::<String>::new());
}

#[test]
fn two_copies_of_a_cluster_without_replication_waits_survive_a_master() {
    let mut cluster = Cluster::start(&[]);
    let config = RemoteConfig::new(vec![cluster.endpoint()], Durability::TwoCopies);
    let tier = RemoteTier::open(config).unwrap();
    let stop = AtomicBool::new(false);
    let (acknowledged, failed) = std::thread::scope(|scope| {
        let load = scope.spawn(|| load(&tier, 0, &stop));
        std::thread::sleep(Duration::from_secs(1));
        let master = cluster.masters()[0];
        cluster.nodes[master].kill();
        // Before anybody takes over it is back, and empty.
        std::thread::sleep(Duration::from_millis(100));
        cluster.nodes[master].start_again();
        std::thread::sleep(Duration::from_secs(4));
        stop.store(true, Relaxed);
        load.join().unwrap()
    });
    let stats = tier.stats();
    println!("{acknowledged} acknowledged; {stats:?}");
    assert_eq!(
        read_all(&tier, 0..acknowledged),
        (acknowledged as usize, 0),
        "{stats:?}"
    );
    assert_eq!((failed, stats.blocks_lost), (0, 0), "{stats:?}");
    assert!(acknowledged > 300, "{stats:?}");
}
