//! Servers that have the only copies, two of each (durability `two-copies`): one server may do what it likes, and no page is lost.

use super::proxy::{Answers, Proxy};
use super::scattered::Scattering;
use super::server::Server;
use crate::support::plain_only;
use std::time::Duration;

fn two_copies(urls: &[String]) -> Scattering {
    Scattering::over(urls).option("--remote-durability", "two-copies")
}

#[test]
#[ignore = "takes long"]
fn three_servers_keep_what_no_disk_has_while_each_of_them_dies_once() {
    if plain_only() {
        return;
    }
    let mut servers = [Server::start(), Server::start(), Server::start()];
    let urls = servers.each_ref().map(Server::url);
    let mut run = two_copies(&urls).option("--swap", "none").start();
    run.passes(1);
    for server in &mut servers {
        server.kill();
        run.passes(1);
        server.come_back();
        run.wait_until("both copies are whole again", |so_far| {
            so_far.answering == 3
        });
        // Copies of what had only one are made in the background.
        run.passes(2);
    }
    let held = run.held();
    held.assert_nothing_left(&servers);
    assert_eq!(held.remote("blocks_lost"), 0);
    assert!(
        held.remote("copies_lost") > 0,
        "copies went with the servers"
    );
    assert!(held.remote("rewritten_segments") > 0);
}

#[test]
fn of_two_servers_one_dies_and_the_swap_file_takes_what_lacks_a_second() {
    if plain_only() {
        return;
    }
    let mut servers = [Server::start(), Server::start()];
    let urls = servers.each_ref().map(Server::url);
    let mut run = two_copies(&urls).start();
    run.passes(1);
    servers[0].kill();
    run.passes(2);
    servers[0].come_back();
    run.wait_until("it is there again", |so_far| so_far.answering == 2);
    run.passes(1);
    let held = run.held();
    held.assert_nothing_left(&servers);
    assert_eq!(held.remote("blocks_lost"), 0);
}

#[test]
fn a_server_that_is_stopped_is_overtaken_by_the_other_copy() {
    if plain_only() {
        return;
    }
    let servers = [Server::start(), Server::start()];
    let urls = servers.each_ref().map(Server::url);
    let mut run = two_copies(&urls).start();
    run.passes(1);
    servers[1].signal("STOP");
    std::thread::sleep(Duration::from_secs(6));
    servers[1].signal("CONT");
    run.wait_until("it is there again", |so_far| so_far.answering == 2);
    run.passes(1);
    let held = run.held();
    held.assert_nothing_left(&servers);
    assert_eq!(held.remote("blocks_lost"), 0);
    assert!(held.remote("reads_hedged") > 0);
}

#[test]
fn a_server_that_comes_back_empty_at_once_loses_no_page() {
    if plain_only() {
        return;
    }
    let mut servers = [Server::start(), Server::start(), Server::start()];
    let urls = servers.each_ref().map(Server::url);
    let mut run = two_copies(&urls).option("--swap", "none").start();
    run.passes(1);
    servers[1].restart();
    run.passes(2);
    let held = run.held();
    held.assert_nothing_left(&servers);
    assert_eq!(held.remote("blocks_lost"), 0);
    assert!(held.remote("copies_lost") > 0);
}

#[test]
fn of_two_copies_the_one_with_other_bytes_is_left_alone() {
    if plain_only() {
        return;
    }
    let servers = [Server::start(), Server::start()];
    let proxy = Proxy::before(servers[0].port);
    let mut run = two_copies(&[proxy.url(), servers[1].url()]).start();
    run.passes(1);
    proxy.answer(Answers::OtherBytes);
    run.passes(1);
    proxy.answer(Answers::Rightly);
    run.passes(1);
    assert!(proxy.changed() > 0, "no reply was changed");
    let held = run.held();
    held.assert_nothing_left(&servers);
    assert_eq!(held.remote("blocks_lost"), 0);
}
