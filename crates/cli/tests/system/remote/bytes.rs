//! A server that answers otherwise than it should: other bits, another value, another node. The swap file has the page.

use super::proxy::{Answers, Proxy};
use super::scattered::Scattering;
use super::server::Server;
use crate::support::plain_only;

/// A port that no server is at.
const NOBODY: u16 = 1;

fn answers(how: Answers, seal: &str) {
    if plain_only() {
        return;
    }
    let server = Server::start();
    let proxy = Proxy::before(server.port);
    let mut run = Scattering::over([proxy.url()])
        .option("--remote-seal", seal)
        .start();
    run.passes(1);
    proxy.answer(how);
    run.passes(1);
    let changed = proxy.changed();
    proxy.answer(Answers::Rightly);
    run.passes(1);
    let held = run.held();
    held.assert_nothing_left([&server]);
    assert!(changed > 50, "{changed} replies were changed");
    assert!(held.remote("reads_lost") >= changed / 2, "who noticed?");
}

#[test]
fn a_bit_that_flipped_is_noticed_by_the_checksum() {
    answers(Answers::OtherBytes, "never");
}

#[test]
fn a_bit_that_flipped_is_noticed_by_the_seal() {
    answers(Answers::OtherBytes, "always");
}

#[test]
#[ignore = "takes long"]
fn a_value_of_another_place_is_noticed() {
    answers(Answers::OtherPlace, "never");
}

#[test]
fn a_node_that_is_gone_is_not_waited_for() {
    if plain_only() {
        return;
    }
    let server = Server::start();
    let proxy = Proxy::before(server.port);
    let mut run = Scattering::over([proxy.url()]).start();
    run.passes(1);
    proxy.send_elsewhere(NOBODY);
    run.passes(2);
    assert!(proxy.changed() > 0, "nothing was sent elsewhere");
    proxy.answer(Answers::Rightly);
    let then = run.so_far();
    run.wait_until("it goes back", |so_far| so_far.hits > then.hits + 500);
    run.held().assert_nothing_left([&server]);
}
