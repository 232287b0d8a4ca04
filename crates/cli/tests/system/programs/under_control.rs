//! Programs that others stop, freeze, count and limit: once the program alone inside zcache, once zcache with its whole tree.

use crate::support::{Job, agrees, compile, tests_file};
use std::ffi::OsString;

/// Memory that is checked for about half a second alone.
const HOLD: [&str; 4] = ["--bytes", "48M", "--passes", "12"];

fn hold() -> Job {
    Job::new(compile::hold()).args(HOLD)
}

/// The words of a script of `tests/programs/`, which ends with the program that it controls.
fn script(name: &str, arguments: &[&str]) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec!["sh".into(), tests_file("programs").join(name).into()];
    words.extend(arguments.iter().map(Into::into));
    words
}

/// Runs a controlled program inside zcache.
fn inside(mut controller: Vec<OsString>, program: &[OsString]) {
    let first = controller.remove(0);
    agrees(
        &Job::new(first).args(controller).args(program.to_vec()),
        || (),
    );
}

/// Runs zcache with its whole tree controlled.
fn outside(controller: Vec<OsString>, job: Job) {
    agrees(&job.within(controller), || ());
}

fn hold_words() -> Vec<OsString> {
    let mut words: Vec<OsString> = vec![compile::hold().into()];
    words.extend(HOLD.map(Into::into));
    words
}

/// It stops the one process that it starts: the program, or the one that stands for it outside.
const CPULIMIT: [&str; 5] = ["cpulimit", "--limit=60", "-f", "-q", "--"];

#[test]
#[ignore = "long"]
fn cpulimit_inside() {
    inside(CPULIMIT.map(Into::into).to_vec(), &hold_words());
}

#[test]
#[ignore = "long"]
fn cpulimit_outside() {
    outside(CPULIMIT.map(Into::into).to_vec(), hold());
}

/// As cpulimit would with `-m`, which fails by itself on trees that fork: every process is stopped and goes on, all the time.
fn stop_and_go() -> Vec<OsString> {
    script("stop_and_go.sh", &[])
}

/// A tree that forks, shares tasks among processes, and ends them.
const POOL: &str = "programs/multiprocessing_pool.py";

#[test]
#[ignore = "long"]
fn stops_of_a_whole_tree_inside() {
    inside(
        stop_and_go(),
        &[super::PYTHON.into(), tests_file(POOL).into()],
    );
}

#[test]
#[ignore = "long"]
fn stops_of_a_whole_tree_outside() {
    outside(stop_and_go(), Job::new(super::PYTHON).arg(tests_file(POOL)));
}

#[test]
#[ignore = "long"]
fn timeout_that_stops_inside() {
    inside(script("stopped.sh", &[]), &hold_words());
}

#[test]
#[ignore = "long"]
fn timeout_that_stops_outside() {
    outside(script("stopped.sh", &[]), hold());
}

#[test]
#[ignore = "long"]
fn frozen_inside() {
    inside(script("frozen.sh", &["v1"]), &hold_words());
}

#[test]
#[ignore = "long"]
fn frozen_outside() {
    outside(script("frozen.sh", &["v1"]), hold());
}

#[test]
#[ignore = "long"]
fn frozen_by_the_unified_hierarchy_inside() {
    inside(script("frozen.sh", &["v2"]), &hold_words());
}

#[test]
#[ignore = "long"]
fn frozen_by_the_unified_hierarchy_outside() {
    outside(script("frozen.sh", &["v2"]), hold());
}

/// The program is refused the same fork as alone: nothing of zcache is counted with it.
#[test]
#[ignore = "long"]
fn as_many_processes_as_alone_inside() {
    let words = [compile::program("refused_forks", &[]).into()];
    inside(script("pids.sh", &["24"]), &words);
}

/// What zcache needs itself is counted too, so the program may be refused earlier, and must find out by the error alone.
#[test]
#[ignore = "long"]
fn few_processes_outside() {
    let job = Job::new(compile::program("refused_forks", &[])).arg("--any-number");
    outside(script("pids.sh", &["24"]), job);
}

#[test]
#[ignore = "long"]
fn a_transient_group_inside() {
    inside(script("transient.sh", &[]), &hold_words());
}

#[test]
#[ignore = "long"]
fn a_transient_group_outside() {
    outside(script("transient.sh", &[]), hold());
}

/// As systemd and container engines start what they start: by clone3 with the control group as an argument.
#[test]
#[ignore = "long"]
fn born_into_a_control_group() {
    let words = [compile::program("into_cgroup", &[]).into()];
    inside(words.to_vec(), &hold_words());
}
