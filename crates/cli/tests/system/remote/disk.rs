//! One server before the swap file (durability `disk`): whatever the server does, no page is lost, and none waits for it.

use super::scattered::Scattering;
use super::server::{Server, Setup};
use crate::support::plain_only;
use std::time::Duration;

/// The longest that a touch may take, on a busy machine too: less than the server is away.
const LONGEST: Duration = Duration::from_millis(5500);

#[test]
fn blocks_go_to_the_server_and_come_back() {
    if plain_only() {
        return;
    }
    let server = Server::start();
    let mut run = Scattering::over([server.url()]).start();
    run.passes(2);
    assert!(server.keys() > 100, "{} keys", server.keys());
    let held = run.held();
    held.assert_nothing_left([&server]);
    assert!(held.remote("reads") > 1000 && held.remote("posted_blocks") > 1000);
    assert!(
        held.remote("reads_lost") + held.remote("reads_failed") < held.remote("reads") / 2,
        "most of what is asked for is there"
    );
    assert_eq!(held.remote("nodes_given_up"), 0);
}

#[test]
fn the_program_runs_on_by_disk_alone_and_goes_back_to_a_server_that_returns() {
    if plain_only() {
        return;
    }
    let mut server = Server::start();
    let mut run = Scattering::over([server.url()]).start();
    run.passes(1);
    server.kill();
    run.wait_until("it is given up", |so_far| so_far.answering == 0);
    let alone = run.so_far();
    run.passes(2);
    let still = run.so_far();
    assert!(
        still.hits <= alone.hits + 100,
        "nobody answered: {} then {}",
        alone.line(),
        still.line()
    );
    server.come_back();
    run.wait_until("it goes back", |so_far| {
        so_far.answering == 1 && so_far.hits > still.hits + 500 && so_far.kept_mib > 20
    });
    let held = run.held();
    held.assert_nothing_left([&server]);
    assert!(held.longest() < LONGEST, "{:?}", held.longest());
    assert!(held.remote("nodes_given_up") >= 1);
}

#[test]
fn a_server_that_is_stopped_is_not_waited_for() {
    if plain_only() {
        return;
    }
    let server = Server::start();
    let mut run = Scattering::over([server.url()]).start();
    run.passes(1);
    server.signal("STOP");
    std::thread::sleep(Duration::from_secs(6));
    server.signal("CONT");
    let then = run.so_far();
    run.wait_until("it goes back", |so_far| {
        so_far.answering == 1 && so_far.hits > then.hits + 500
    });
    let held = run.held();
    held.assert_nothing_left([&server]);
    assert!(held.longest() < LONGEST, "{:?}", held.longest());
}

#[test]
fn a_server_that_comes_back_empty_at_once_is_noticed() {
    if plain_only() {
        return;
    }
    let mut server = Server::start();
    let mut run = Scattering::over([server.url()]).start();
    run.passes(1);
    server.restart();
    run.passes(2);
    let held = run.held();
    held.assert_nothing_left([&server]);
    assert!(held.remote("blocks_lost") > 0, "it lost what it had");
    assert!(held.longest() < LONGEST, "{:?}", held.longest());
}

#[test]
fn a_server_that_comes_back_with_an_old_dump_gives_no_old_page() {
    if plain_only() {
        return;
    }
    let mut server = Server::start();
    let mut run = Scattering::over([server.url()]).start();
    run.passes(1);
    server.ask(&["SAVE"]);
    run.passes(2);
    server.restart();
    run.passes(2);
    assert!(server.keys() > 100, "the old dump was read");
    run.held();
    // What the dump brought back is unlinked by nobody: its lease ends it.
    for name in server.key_names() {
        let left: i64 = server
            .ask(&["TTL", &name])
            .text()
            .parse()
            .expect("a number");
        assert!((0..=300).contains(&left), "{name} stays for {left} s");
    }
}

#[test]
fn a_server_whose_memory_is_full_has_what_fits() {
    if plain_only() {
        return;
    }
    let server = Setup::new().option("maxmemory", "24mb").start();
    let mut run = Scattering::over([server.url()]).start();
    run.passes(2);
    let held = run.held();
    held.assert_nothing_left([&server]);
    assert!(held.remote("dropped_failed_blocks") > 0, "it was full");
    assert!(held.remote("reads") > held.remote("reads_lost"));
    assert_eq!(held.remote("nodes_given_up"), 0, "full is not sick");
}

#[test]
#[ignore = "takes long"]
fn no_more_is_kept_than_was_allowed() {
    if plain_only() {
        return;
    }
    let server = Server::start();
    let mut run = Scattering::over([server.url()])
        .option("--remote-max", "16M")
        .start();
    run.passes(2);
    let used = server.values().len();
    assert!(
        (8 << 20..=17 << 20).contains(&used),
        "{used} bytes are kept of 16 MiB that may be"
    );
    run.held().assert_nothing_left([&server]);
}
