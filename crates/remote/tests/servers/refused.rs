//! What is refused at the start, and what the refusal says.

use std::time::{Duration, Instant};

use zcache_remote::{Address, Durability, Endpoint, OpenError, RemoteConfig, RemoteTier, Secret};

use crate::load::{read_all, write};
use crate::server::{Server, config};

fn refusal(config: RemoteConfig, says: &[&str]) {
    let start = Instant::now();
    let error = RemoteTier::open(config).expect_err("it is refused");
    let text = error.to_string();
    for part in says {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
    assert!(!text.contains("hunter2"), "{text}");
    assert!(start.elapsed() < Duration::from_secs(5), "{text}");
}

#[test]
fn plaintext_to_another_machine_is_refused() {
    let endpoint = Endpoint::parse("redis://192.0.2.1:6379").unwrap();
    let config = RemoteConfig::new(vec![endpoint], Durability::Disk);
    refusal(
        config.clone(),
        &["192.0.2.1:6379", "rediss://", "--remote-plaintext"],
    );
    let mut allowed = config;
    allowed.plaintext_allowed = true;
    allowed.timeouts.connect = Duration::from_millis(300);
    assert!(allowed.is_sealed());
    let error = RemoteTier::open(allowed).unwrap_err();
    assert!(matches!(error, OpenError::Unreachable(..)), "{error}");
}

#[test]
fn a_server_that_evicts_or_is_not_there_is_refused() {
    let mut server = Server::start(&["--maxmemory", "50mb", "--maxmemory-policy", "allkeys-lru"]);
    refusal(
        config(&[&server], Durability::Disk),
        &["allkeys-lru", "maxmemory-policy noeviction"],
    );
    server.kill();
    refusal(
        config(&[&server], Durability::Disk),
        &["127.0.0.1", "start valkey-server or redis-server"],
    );
}

#[test]
fn one_server_by_two_names_is_not_two_copies() {
    let server = Server::start(&[]);
    let mut twice = config(&[&server], Durability::TwoCopies);
    let Endpoint::Server(Address::Tcp { port, .. }) = twice.endpoints[0].clone() else {
        panic!("a server by itself");
    };
    let other = format!("redis://localhost:{port}");
    twice.endpoints.push(Endpoint::parse(&other).unwrap());
    refusal(twice, &["127.0.0.1", "localhost", "are one server"]);
}

#[test]
fn a_server_that_says_nothing_is_not_waited_for() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    for scheme in ["redis", "rediss"] {
        let endpoint = Endpoint::parse(&format!("{scheme}://{address}")).unwrap();
        let config = RemoteConfig::new(vec![endpoint], Durability::Disk);
        refusal(config, &["no answer in time"]);
    }
    // TLS to a server that speaks without.
    let server = Server::start(&[]);
    let mut plain = config(&[&server], Durability::Disk);
    let Endpoint::Server(Address::Tcp { port, .. }) = plain.endpoints[0] else {
        panic!("a server by itself");
    };
    let endpoint = Endpoint::parse(&format!("rediss://127.0.0.1:{port}")).unwrap();
    plain.endpoints = vec![endpoint];
    refusal(plain, &["127.0.0.1"]);
}

#[test]
fn passwords_and_rights_are_tried_at_the_start() {
    let server = Server::start(&["--requirepass", "hunter2"]);
    refusal(
        config(&[&server], Durability::Disk),
        &["wants a password", "ZCACHE_REMOTE_PASSWORD"],
    );
    let with = |user: Option<&str>, password: &str| {
        let mut config = config(&[&server], Durability::Disk);
        config.username = user.map(str::to_owned);
        config.password = Some(Secret::new(password.to_owned()));
        config.posts = false;
        config
    };
    refusal(
        with(None, "hunter1"),
        &["refuses", "ZCACHE_REMOTE_PASSWORD"],
    );
    drop(RemoteTier::open(with(None, "hunter2")).unwrap());
    let server = Server::start(&[]);
    for user in [
        "lender on >hunter2 ~zc:* +get +set +getrange +unlink +expire +wait +ping +info",
        "poor on >hunter2 ~zc:* +get +set +unlink +expire +wait +ping +info",
        "elsewhere on >hunter2 ~other:* +@all",
    ] {
        let mut words = vec!["ACL", "SETUSER"];
        words.extend(user.split(' '));
        assert!(server.ask(&words).contains("OK"), "{user}");
    }
    let with = |user: &str| {
        let mut config = config(&[&server], Durability::Disk);
        config.username = Some(user.to_owned());
        config.password = Some(Secret::new("hunter2".to_owned()));
        config.posts = false;
        config
    };
    refusal(with("poor"), &["lacks rights", "getrange"]);
    refusal(with("elsewhere"), &["lacks rights", "~PREFIX:*"]);
    refusal(with("nobody"), &["refuses the user"]);
    let tier = RemoteTier::open(with("lender")).unwrap();
    assert!(write(&tier, 0..40).iter().all(Result::is_ok));
    assert_eq!(read_all(&tier, 0..40), (40, 0));
}

#[test]
fn durability_that_servers_cannot_give_is_refused() {
    let server = Server::start(&[]);
    refusal(
        config(&[&server], Durability::TwoCopies),
        &["two masters", "there are 1"],
    );
    refusal(config(&[&server], Durability::Wait), &["appendonly yes"]);
    let server = Server::start(&["--appendonly", "yes"]);
    refusal(
        config(&[&server], Durability::Wait),
        &["min-replicas-to-write 1"],
    );
    let server = Server::start(&["--appendonly", "yes", "--min-replicas-to-write", "1"]);
    refusal(config(&[&server], Durability::Wait), &["a replica"]);
}

#[test]
fn a_cluster_and_a_server_are_told_apart() {
    let server = Server::start(&[]);
    let mut as_cluster = config(&[&server], Durability::Disk);
    let url = format!("redis-cluster://127.0.0.1:{}", server.port);
    as_cluster.endpoints = vec![Endpoint::parse(&url).unwrap()];
    refusal(as_cluster, &["no cluster", "redis://"]);
    let node = Server::start(&["--cluster-enabled", "yes"]);
    refusal(config(&[&node], Durability::Disk), &["redis-cluster://"]);
}
