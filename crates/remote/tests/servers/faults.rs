//! Servers that die, stop, come back empty or are full, under load.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use zcache::tier::TierError;
use zcache_remote::{Durability, RemoteTier};

use crate::load::{load, read, read_all, write};
use crate::server::{Server, config, until};

#[test]
fn a_server_that_comes_back_empty_has_lost_all_and_takes_new_blocks() {
    let mut server = Server::start(&[]);
    let mut config = config(&[&server], Durability::Disk);
    config.posts = false;
    let tier = RemoteTier::open(config).unwrap();
    assert!(write(&tier, 0..200).iter().all(Result::is_ok));
    server.kill();
    server.start_again();
    until("the loss is known", || tier.stats().blocks == 0);
    assert_eq!(tier.stats().blocks_lost, 200);
    assert_eq!(read(&tier, 7, 0), Err(TierError::Lost));
    until("it is used again", || {
        write(&tier, 0..50).iter().all(Result::is_ok)
    });
    assert_eq!(read_all(&tier, 0..50), (50, 0));
}

#[test]
fn what_an_old_dump_brings_back_is_verified_and_the_rest_is_lost() {
    let mut server = Server::start(&["--dbfilename", "dump.rdb"]);
    let mut config = config(&[&server], Durability::Disk);
    config.posts = false;
    let tier = RemoteTier::open(config).unwrap();
    assert!(write(&tier, 0..100).iter().all(Result::is_ok));
    assert!(server.ask(&["SAVE"]).contains("OK"));
    assert!(server.folder().join("dump.rdb").exists());
    assert!(write(&tier, 100..200).iter().all(Result::is_ok));
    server.kill();
    server.start_again();
    until("it is up", || tier.is_up() && read(&tier, 0, 0).is_ok());
    assert_eq!(read_all(&tier, 0..100), (100, 0));
    for name in 100..200 {
        assert_eq!(read(&tier, name, 0), Err(TierError::Lost));
    }
}

/// So often in a row all copies must have been there.
const WHOLE_TIMES: u32 = 50;

#[test]
fn two_copies_lose_nothing_when_servers_are_killed_one_after_the_other() {
    let mut servers = [Server::start(&[]), Server::start(&[]), Server::start(&[])];
    let config = config(
        &[&servers[0], &servers[1], &servers[2]],
        Durability::TwoCopies,
    );
    let tier = RemoteTier::open(config).unwrap();
    let stop = AtomicBool::new(false);
    let (acknowledged, failed) = std::thread::scope(|scope| {
        let load = scope.spawn(|| load(&tier, 0, &stop));
        for (n, server) in servers.iter_mut().enumerate() {
            std::thread::sleep(Duration::from_millis(700));
            let lost = tier.stats().copies_lost;
            server.kill();
            std::thread::sleep(Duration::from_millis(if n == 1 { 100 } else { 700 }));
            server.start_again();
            // A block that was on this server and is on the next one alone would be lost
            // with that: each has two copies again, and stays so.
            until("the loss is known", || tier.stats().copies_lost > lost);
            let mut times = 0;
            until("all copies are there again", || {
                times = match tier.short_of_copies() {
                    0 => times + 1,
                    _ => 0,
                };
                times == WHOLE_TIMES
            });
        }
        stop.store(true, Relaxed);
        load.join().unwrap()
    });
    let stats = tier.stats();
    assert!(acknowledged > 500, "{acknowledged}: {stats:?}");
    assert!(stats.copies_lost > 50, "the kills were felt: {stats:?}");
    assert_eq!(
        read_all(&tier, 0..acknowledged),
        (acknowledged as usize, 0),
        "{stats:?}"
    );
    assert_eq!((failed, stats.blocks_lost), (0, 0), "{stats:?}");
}

#[test]
fn a_stopped_server_delays_no_read_that_another_can_answer() {
    let servers = [Server::start(&[]), Server::start(&[])];
    let hedge_min = Duration::from_millis(1);
    let mut pair = config(&[&servers[0], &servers[1]], Durability::TwoCopies);
    pair.timeouts.hedge_min = hedge_min;
    let tier = RemoteTier::open(pair).unwrap();
    assert!(write(&tier, 0..200).iter().all(Result::is_ok));
    for n in 0..400 {
        read(&tier, n % 200, 1).unwrap();
    }
    let mut config = config(&[&servers[0]], Durability::Disk);
    config.posts = false;
    config.timeouts.hedge_min = hedge_min;
    let single = RemoteTier::open(config).unwrap();
    assert!(write(&single, 0..100).iter().all(Result::is_ok));
    servers[0].signal("STOP");
    let start = Instant::now();
    let mut slowest = Duration::ZERO;
    let mut failed_slowest = Duration::ZERO;
    let mut name = 0;
    while start.elapsed() < Duration::from_secs(4) {
        let began = Instant::now();
        read(&tier, name % 200, 2).unwrap();
        slowest = slowest.max(began.elapsed());
        let began = Instant::now();
        assert!(read(&single, name % 100, 2).is_err());
        failed_slowest = failed_slowest.max(began.elapsed());
        name += 1;
    }
    println!("{name} reads; the slowest {slowest:?}, the slowest failure {failed_slowest:?}");
    assert!(slowest < Duration::from_millis(500), "{slowest:?}");
    assert!(
        failed_slowest < Duration::from_millis(500),
        "{failed_slowest:?}"
    );
    assert!(single.stats().nodes[0].is_open && !single.is_up());
    servers[0].signal("CONT");
    until("it is asked again", || {
        single.is_up() && tier.stats().nodes.iter().all(|node| !node.is_open)
    });
    until("it answers", || read(&single, 3, 0).is_ok());
    assert_eq!(tier.stats().blocks_lost, 0);
}

#[test]
fn a_full_server_refuses_what_is_to_be_kept_and_posted_blocks_are_dropped() {
    let server = Server::start(&["--maxmemory", "12mb", "--maxmemory-policy", "noeviction"]);
    let mut through = config(&[&server], Durability::Disk);
    through.posts = false;
    let tier = RemoteTier::open(through).unwrap();
    let mut kept = 0;
    let refused = loop {
        let results = write(&tier, kept..kept + 16);
        match results.iter().find(|result| result.is_err()) {
            None => kept += 16,
            Some(error) => break *error,
        }
        assert!(kept < 2000, "12 MB hold no 2000 blocks");
    };
    assert_eq!(refused, Err(TierError::NO_SPACE));
    assert!(kept > 300, "{kept}");
    assert_eq!(
        read_all(&tier, 0..kept),
        (kept as usize, 0),
        "what was kept is still there"
    );
    let posting = RemoteTier::open(config(&[&server], Durability::Disk)).unwrap();
    for n in 0..20 {
        assert!(
            write(&posting, n * 16..n * 16 + 16)
                .iter()
                .all(Result::is_ok)
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    until("all are dropped or kept", || {
        posting.stats().queued_bytes == 0
    });
    let stats = posting.stats();
    assert!(stats.dropped_failed > 100, "{stats:?}");
    assert_eq!(stats.posted, 320);
}

#[test]
fn with_every_server_gone_posting_costs_nothing_and_comes_back() {
    let mut server = Server::start(&[]);
    let tier = RemoteTier::open(config(&[&server], Durability::Disk)).unwrap();
    assert!(write(&tier, 0..16).iter().all(Result::is_ok));
    server.kill();
    until("it is known", || !tier.is_up());
    let start = Instant::now();
    assert!(write(&tier, 16..1040).iter().all(Result::is_ok));
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
    assert!(read(&tier, 16, 0).is_err());
    server.start_again();
    until("it is up again", || tier.is_up());
    assert!(write(&tier, 2000..2016).iter().all(Result::is_ok));
    until("all is sent", || tier.stats().queued_bytes == 0);
    until("it answers", || read(&tier, 2000, 0).is_ok());
}
