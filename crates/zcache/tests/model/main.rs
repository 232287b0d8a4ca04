//! A naive model beside the store: maps of what must come back, driven by the
//! same random operations as a store over tiers with faults.
//!
//! What the model knows of each page
//! - persistent, acknowledged, not overwritten, flushed or released: it comes
//!   back as it was, or as an error that a fault of its sectors explains;
//! - ephemeral: the last put, or a miss;
//! - never an older page after a newer put, and never a page after a miss until
//!   the next put.
//!
//! Pages by key are of one thread's pools, so that each of several threads has a
//! model of its own; the store, its tier, limits, codecs and faults are shared.
//! After each round of operations everything rests, and the store's equations
//! must hold. In the end the faults stop: what was never lost is readable, and
//! when all of it is flushed the store is as good as a fresh one.
//!
//! What is wrong with a page ends the run at once; what else is wrong (a refusal
//! without a reason, memory that is kept, a count) is told in the end, once for
//! each kind. Every run prints its seed, and `ZCACHE_SEED` repeats it: exactly
//! with one thread, but for what depends on the time. A seed that found something
//! becomes a test in `found.rs`.
//!
//! Does not: look inside the store.

mod client;
mod complaints;
mod expect;
mod found;
mod handles;
mod keys;
mod rest;
mod run;
mod shared;

#[path = "../support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use complaints::Complaints;
use support::random::{Random, SeedOnPanic, seed, seed_given};

/// How long each test runs unless `ZCACHE_MODEL_SECONDS` says otherwise.
const SECONDS: u64 = 10;

/// Runs that a test makes at least, however slow the machine is.
const RUNS_MIN: u64 = 8;

fn seconds() -> u64 {
    std::env::var("ZCACHE_MODEL_SECONDS").map_or(SECONDS, |seconds| {
        seconds.parse().expect("ZCACHE_MODEL_SECONDS is a number")
    })
}

/// Runs with one seed after the other until the time is over, or with the one of
/// the environment.
fn run(name: &str, threads: &[u64]) {
    let first = seed();
    let end = Instant::now() + Duration::from_secs(seconds());
    let complaints = Complaints::default();
    let mut runs = 0;
    while runs == 0 || seed_given().is_none() && (Instant::now() < end || runs < RUNS_MIN) {
        let seed = first.wrapping_add(runs);
        println!("{name}: ZCACHE_SEED={seed}");
        one(seed, threads, &complaints);
        runs += 1;
    }
    println!("{name}: {runs} runs, {:?}", complaints.seen);
    complaints.judge();
}

/// One run with this seed.
fn one(seed: u64, threads: &[u64], complaints: &Complaints) {
    let _seed = SeedOnPanic(seed);
    let mut random = Random(seed);
    complaints.begin(seed);
    let threads = random.pick(threads);
    run::run(&mut random, threads, complaints);
}

#[test]
fn one_thread_does_what_the_model_says() {
    run("one_thread", &[1]);
}

#[test]
fn several_threads_do_what_their_models_say() {
    run("several_threads", &[2, 3, 4, 8]);
}

/// The model can fail: a page that it is told wrongly is noticed.
#[test]
#[should_panic(expected = "wrong bytes")]
fn a_page_that_is_not_what_was_put_fails_the_run() {
    run::with_a_wrong_expectation();
}
