//! Programs whose compiler put checks into them: shadow memory at fixed addresses, and reports that must be the same.

use crate::support::{Capped, Ended, Job, User, agrees, compile, plain_only};
use std::path::PathBuf;

/// The program with the address sanitizer and the one for undefined behaviour.
fn addresses() -> PathBuf {
    compile::program("addresses", &["-fsanitize=address,undefined"])
}

fn races() -> PathBuf {
    compile::program("races", &["-fsanitize=thread"])
}

/// What the sanitizers write to standard error holds addresses and numbers of processes; the rest is put on standard output.
const REPORT: &str = "\"$@\" 2>&1 | sed -n -e 's/==[0-9]*==//' -e '/^zcache: /d' \
    -e '/^[a-z0-9]/p' -e 's/ (pid=[0-9]*)//' -e '/SUMMARY/p' -e '/ERROR: /s/ on address.*//p'";

fn reported(program: PathBuf, what: &str) -> Job {
    Job::shell(REPORT).arg("sh").arg(program).arg(what)
}

/// The leak check attaches to the program as a debugger does, so it is off but where it is the subject.
const NO_LEAK_CHECK: &str = "detect_leaks=0";

#[test]
#[ignore = "long"]
fn address_sanitizer_over_a_sound_program() {
    let job = Job::new(addresses()).arg("sound");
    agrees(&job.env("ASAN_OPTIONS", NO_LEAK_CHECK), || ());
}

#[test]
#[ignore = "long"]
fn address_sanitizer_of_an_ordinary_user() {
    let user = User::nobody();
    let job = Job::new(user.brings(&addresses())).arg("sound");
    agrees(&job.env("ASAN_OPTIONS", NO_LEAK_CHECK).by(&user), || ());
}

#[test]
#[ignore = "long"]
fn address_sanitizer_finds_a_use_after_free() {
    let job = reported(addresses(), "used").env("ASAN_OPTIONS", NO_LEAK_CHECK);
    let (plain, _) = agrees(&job, || ());
    assert!(
        plain.out().contains("heap-use-after-free"),
        "{}",
        plain.out()
    );
}

/// A task has one tracer, which zcache is: the leak check finds that out and says so, and the program ends as under a debugger.
#[test]
#[ignore = "long"]
fn leak_check_says_that_it_is_traced() {
    let job = Job::new(addresses()).arg("leaky");
    job.plain()
        .assert_ended(Ended::Exit(1))
        .assert_says(&["192 byte(s) leaked in 3 allocation(s)"]);
    if plain_only() {
        return;
    }
    job.under(&Capped::ram_mib(40))
        .assert_ended(Ended::Exit(1))
        .assert_says(&["LeakSanitizer does not work under ptrace"]);
}

#[test]
#[ignore = "long"]
fn thread_sanitizer_over_a_sound_program() {
    let (plain, _) = agrees(&Job::new(races()).arg("sound"), || ());
    plain.assert_success();
}

#[test]
#[ignore = "long"]
fn thread_sanitizer_of_an_ordinary_user() {
    let user = User::nobody();
    let job = Job::new(user.brings(&races())).arg("sound");
    agrees(&job.by(&user), || ());
}

#[test]
#[ignore = "long"]
fn thread_sanitizer_finds_a_race() {
    let (plain, _) = agrees(&Job::new(races()).arg("racy"), || ());
    plain.assert_ended(Ended::Exit(66));
}
