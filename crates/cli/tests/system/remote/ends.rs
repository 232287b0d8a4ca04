//! What is left of a run on the servers: nothing when it ends, and nothing for long when it is killed.

use super::scattered::Scattering;
use super::server::Server;
use crate::support::{plain_only, tree};
use std::time::{Duration, Instant};

#[test]
fn the_keys_of_a_run_that_is_killed_have_an_end() {
    if plain_only() {
        return;
    }
    let server = Server::start();
    let mut run = Scattering::over([server.url()]).start();
    run.passes(1);
    tree::signal(run.running.pager(), "KILL");
    run.end();
    server.assert_all_keys_end();
}

#[test]
fn a_program_that_is_killed_leaves_nothing() {
    if plain_only() {
        return;
    }
    let server = Server::start();
    let mut run = Scattering::over([server.url()]).start();
    run.passes(1);
    let root = run.running.root();
    let program = tree::named(root, "scatter").expect("the program");
    tree::signal(program.pid, "KILL");
    run.end();
    assert_eq!(server.key_names(), Vec::<String>::new());
}

#[test]
fn a_server_that_hangs_does_not_hold_up_the_end() {
    if plain_only() {
        return;
    }
    let server = Server::start();
    let mut run = Scattering::over([server.url()]).start();
    run.passes(1);
    let root = run.running.root();
    server.signal("STOP");
    let program = tree::named(root, "scatter").expect("the program");
    let begun = Instant::now();
    tree::signal(program.pid, "KILL");
    run.end();
    let took = begun.elapsed();
    eprintln!("the end took {took:?}");
    assert!(took < Duration::from_secs(15), "{took:?}");
}
