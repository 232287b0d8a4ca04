//! A line to the server that is cut and healed.

use super::network::Line;
use super::scattered::Scattering;
use super::server::Setup;
use crate::support::plain_only;
use std::time::Duration;

#[test]
fn a_line_that_is_cut_costs_no_page_and_is_used_again_when_it_is_healed() {
    if plain_only() {
        return;
    }
    let line = Line::new();
    let server = Setup::new().within(line.namespace(), &line.there()).start();
    let mut run = Scattering::over([server.url()])
        .flag("--remote-plaintext")
        .start();
    run.passes(1);
    line.cut();
    run.wait_until("it is given up", |so_far| so_far.answering == 0);
    run.passes(1);
    let alone = run.so_far();
    line.heal();
    run.wait_until("it goes back", |so_far| {
        so_far.answering == 1 && so_far.hits > alone.hits + 500
    });
    let held = run.held();
    held.assert_nothing_left([&server]);
    assert!(
        held.longest() < Duration::from_millis(5500),
        "{:?}",
        held.longest()
    );
}

#[test]
#[ignore = "takes long"]
fn a_line_that_is_cut_leaves_the_other_copy() {
    if plain_only() {
        return;
    }
    let line = Line::new();
    let there = Setup::new().within(line.namespace(), &line.there()).start();
    let here = Setup::new().start();
    let mut run = Scattering::over([there.url(), here.url()])
        .option("--remote-durability", "two-copies")
        .flag("--remote-plaintext")
        .start();
    run.passes(1);
    line.cut();
    run.wait_until("it is given up", |so_far| so_far.answering == 1);
    run.passes(1);
    line.heal();
    run.wait_until("it is there again", |so_far| so_far.answering == 2);
    run.passes(1);
    let held = run.held();
    held.assert_nothing_left([&there, &here]);
    assert_eq!(held.remote("blocks_lost"), 0);
}
