//! A cluster of three masters and their replicas: masters die, with and without their replicas, and slots move.

use super::client::Reply;
use super::cluster::Cluster;
use super::scattered::Scattering;
use super::server::Server;
use crate::support::plain_only;
use std::time::Duration;

fn two_copies(cluster: &Cluster) -> Scattering {
    Scattering::over([cluster.url()]).option("--remote-durability", "two-copies")
}

#[test]
fn a_master_dies_and_its_replica_takes_over() {
    if plain_only() {
        return;
    }
    let mut cluster = Cluster::start(&[]);
    let mut run = two_copies(&cluster).start();
    run.passes(1);
    cluster.servers[0].kill();
    cluster.wait_for_master(3);
    run.passes(2);
    let held = run.held();
    held.assert_nothing_left(&cluster.servers[1..]);
    assert_eq!(held.remote("blocks_lost"), 0);
}

#[test]
fn a_master_and_its_replica_die_and_the_other_copies_are_there() {
    if plain_only() {
        return;
    }
    let mut cluster = Cluster::start(&[]);
    let mut run = two_copies(&cluster).start();
    run.passes(1);
    cluster.servers[0].kill();
    cluster.servers[3].kill();
    run.passes(2);
    let held = run.held();
    assert_eq!(held.remote("blocks_lost"), 0);
    let living = [1, 2, 4, 5].map(|n| &cluster.servers[n]);
    held.assert_nothing_left(living);
}

#[test]
fn every_node_dies_and_the_disk_has_what_they_had() {
    if plain_only() {
        return;
    }
    let mut cluster = Cluster::start(&[]);
    let mut run = Scattering::over([cluster.url()]).start();
    run.passes(1);
    for server in &mut cluster.servers {
        server.kill();
    }
    run.passes(2);
    let held = run.held();
    assert!(
        held.longest() < Duration::from_millis(5500),
        "{:?}",
        held.longest()
    );
}

#[test]
fn slots_move_while_the_program_runs_and_the_master_that_got_them_dies() {
    if plain_only() {
        return;
    }
    let mut cluster = Cluster::start(&[]);
    let mut run = two_copies(&cluster).option("--swap", "none").start();
    run.passes(1);
    cluster.move_slots(0, 1, 400);
    run.passes(1);
    cluster.servers[1].kill();
    cluster.wait_for_master(4);
    run.passes(2);
    let held = run.held();
    let living = [0, 2, 3, 4, 5].map(|n| &cluster.servers[n]);
    held.assert_nothing_left(living);
    assert_eq!(held.remote("blocks_lost"), 0);
}

#[test]
fn slots_move_at_once_where_the_server_can() {
    if plain_only() {
        return;
    }
    let known = Server::start().ask(&["COMMAND", "INFO", "cluster|migrateslots"]);
    if known == Reply::List(vec![Reply::Nothing]) {
        eprintln!("this server moves slots by the slow way alone");
        return;
    }
    let mut cluster = Cluster::start(&[]);
    let mut run = two_copies(&cluster).option("--swap", "none").start();
    run.passes(1);
    let to = cluster.id(1);
    cluster.servers[0].ask(&[
        "CLUSTER",
        "MIGRATESLOTS",
        "SLOTSRANGE",
        "0",
        "400",
        "NODE",
        &to,
    ]);
    run.passes(1);
    cluster.servers[1].kill();
    cluster.wait_for_master(4);
    run.passes(2);
    let held = run.held();
    assert_eq!(held.remote("blocks_lost"), 0);
}
