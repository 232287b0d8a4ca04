//! A master, its replica and their files (durability `wait`): what both acknowledged is there after a failover, and when every copy
//! is gone, the program is told so by SIGBUS.

use super::cluster::Cluster;
use super::scattered::Scattering;
use crate::support::{Ended, plain_only};

const FILES: [(&str, &str); 3] = [
    ("appendonly", "yes"),
    ("appendfsync", "everysec"),
    ("min-replicas-to-write", "1"),
];

fn waiting(cluster: &Cluster) -> Scattering {
    Scattering::over([cluster.url()])
        .option("--remote-durability", "wait")
        .option("--swap", "none")
}

#[test]
fn a_master_dies_and_what_its_replica_acknowledged_is_there() {
    if plain_only() {
        return;
    }
    let mut cluster = Cluster::start(&FILES);
    let mut run = waiting(&cluster).start();
    run.passes(1);
    cluster.servers[0].kill();
    cluster.wait_for_master(3);
    // With its replica gone the new master takes nothing, until there is one again.
    cluster.servers[0].come_back();
    run.passes(2);
    let held = run.held();
    held.assert_nothing_left(&cluster.servers);
    assert_eq!(held.remote("blocks_lost"), 0);
}

#[test]
#[ignore = "takes long"]
fn servers_that_restart_at_once_have_their_files() {
    if plain_only() {
        return;
    }
    let mut cluster = Cluster::start(&FILES);
    let mut run = waiting(&cluster).start();
    run.passes(1);
    cluster.servers[1].restart();
    cluster.servers[4].restart();
    run.passes(2);
    let held = run.held();
    held.assert_nothing_left(&cluster.servers);
}

#[test]
fn when_every_copy_is_gone_the_program_gets_a_bus_error_and_no_zeros() {
    if plain_only() {
        return;
    }
    let mut cluster = Cluster::start(&FILES);
    let mut run = waiting(&cluster).start();
    run.passes(1);
    for server in &mut cluster.servers {
        server.kill();
    }
    let outcome = run.end();
    outcome
        .assert_ended(Ended::Signal(7))
        .assert_says(&["zcache", "lost"]);
    assert!(!outcome.err().contains("WRONG"), "{}", outcome.err());
}
