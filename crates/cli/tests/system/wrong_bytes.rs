//! The known ways in which a pager from outside hands out wrong bytes: one program each (tests/torture/wrong_bytes/), as hard as it
//! can, at half of the memory that it needs. Ways 6 and 7, the deaths of pager and servant, are in `deaths`.

use crate::support::{Capped, Job, compile};
use std::time::Duration;

const SECONDS: &str = "6";

fn race(name: &str, bytes: &str, ram_mib: u64) {
    let scratch = crate::support::TempDir::new(name);
    let outcome = Job::new(compile::wrong_bytes(name))
        .args(["--seconds", SECONDS, "--bytes", bytes])
        .directory(scratch.path())
        .bound(Duration::from_secs(240))
        .under(&Capped::ram_mib(ram_mib));
    outcome.assert_success();
    assert!(outcome.out().contains("ok: "), "{}", outcome.out());
    eprintln!("{name}: {}", outcome.out());
}

#[test]
fn way_1_eviction_from_a_stale_list_of_mappings() {
    race("w1_stale_mapping", "64M", 32);
}

#[test]
fn way_2_another_handler_serves_what_an_event_made_invalid() {
    race("w2_two_handlers", "64M", 32);
}

#[test]
fn way_3_a_discard_is_announced_before_it_happens() {
    race("w3_dontneed", "64M", 32);
}

#[test]
fn way_4_copies_across_boundaries_of_mappings() {
    race("w4_boundaries", "64M", 32);
}

#[test]
fn way_5_fork_with_evicted_pages() {
    race("w5_fork", "64M", 40);
}

#[test]
fn way_8_pages_that_cannot_be_moved() {
    race("w8_unmovable", "64M", 32);
}

#[test]
fn way_9_storms_of_first_touches() {
    race("w9_first_touch", "128M", 40);
}

#[test]
fn what_children_do_not_inherit_follows_the_mappings() {
    race("fork_marks", "64M", 32);
}

#[test]
fn threads_that_end_on_evicted_pages_can_be_joined() {
    let outcome = Job::new(compile::wrong_bytes("thread_ends"))
        .args(["--seconds", SECONDS, "--bytes", "64M"])
        .env("GLIBC_TUNABLES", "glibc.pthread.rseq=0")
        .bound(Duration::from_secs(120))
        .under(&Capped::ram_mib(24));
    outcome.assert_success();
}
