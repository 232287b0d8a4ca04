//! Limits that somebody has set on the program bind the program, no more and no less than alone; what zcache needs is not taken from them.

use super::support::{Group, agree, agree_job, case, case_static, compare, usual};
use crate::support::{Ended, Job, tree};
use std::time::Duration;

/// `bash -c TEXT bash`, which ends with `exec "$@"`.
fn after(text: &str) -> [String; 4] {
    let text = format!("{text}; exec \"$@\"");
    ["/bin/bash".into(), "-c".into(), text, "bash".into()]
}

#[test]
fn processes_beyond_the_soft_limit_of_descriptors() {
    let job = case("limits/sleeping_processes", &["300"]);
    agree_job(&job.within(after("ulimit -Sn 1024")));
}

#[test]
#[ignore = "differs: the pager needs ten descriptors a process"]
fn processes_beyond_the_hard_limit_of_descriptors() {
    let job = case("limits/sleeping_processes", &["200"]);
    agree_job(&job.within(after("ulimit -n 256")));
}

#[test]
fn a_process_without_a_descriptor() {
    agree_job(&case_static("limits/no_descriptors", &["3"]));
}

/// What comes after the program in a pipe sees its end.
#[test]
fn a_pipe_behind_a_process_without_a_descriptor_ends() {
    let job = case_static("limits/no_descriptors", &["3"]);
    agree_job(&job.within(["/bin/bash", "-c", "set -o pipefail; \"$@\" | cat", "bash"]));
}

#[test]
#[ignore = "differs: helpers count as processes"]
fn a_users_limit_of_processes() {
    tree::need_root();
    agree("limits/process_count", &["user", "61234"]);
}

#[test]
fn a_limit_of_no_processes() {
    agree("limits/process_count", &["zero"]);
}

#[test]
#[ignore = "differs: helpers count as processes"]
fn a_control_groups_limit_of_processes() {
    tree::need_root();
    let group = Group::of("pids");
    group.set("pids.max", "20");
    agree_job(&case("limits/process_count", &["group", group.text()]));
}

#[test]
fn a_limit_of_address_space_from_outside() {
    let job = case("limits/address_space", &["outside"]);
    agree_job(&job.within(after("ulimit -v 400000")));
}

#[test]
fn a_limit_of_data_from_outside() {
    let job = case("limits/address_space", &["outside"]);
    agree_job(&job.within(after("ulimit -d 400000")));
}

#[test]
fn a_programs_own_limit_of_address_space() {
    agree("limits/address_space", &["as"]);
}

#[test]
fn a_programs_own_limit_of_data() {
    agree("limits/address_space", &["data"]);
}

#[test]
fn a_stack_larger_than_the_budget() {
    let job = case("limits/address_space", &["stack"]);
    agree_job(&job.within(after("ulimit -s 204800")));
}

#[test]
fn an_unlimited_stack_whose_limit_is_memory() {
    let job = case("rights/hold", &["100"]);
    agree_job(&job.within(after("ulimit -s unlimited")));
}

#[test]
fn no_locked_memory_is_allowed() {
    let job = case("rights/hold", &["100"]);
    agree_job(&job.within(after("ulimit -l 0")));
}

#[test]
#[ignore = "differs: a helper's code is a file in memory"]
fn no_file_may_be_written() {
    // The streams are files here, so what is said goes through cat.
    let text = "set -o pipefail; (ulimit -f 0; \"$@\" 2>&1) | cat";
    let job = case("rights/hold", &["100"]);
    agree_job(&job.within(["/bin/bash", "-c", text, "bash"]));
}

#[test]
fn no_signal_may_be_queued() {
    let job = case("rights/hold", &["100"]);
    agree_job(&job.within(after("ulimit -i 0")));
}

#[test]
fn a_filter_of_its_own_that_kills() {
    agree("limits/own_filter", &["kill"]);
}

#[test]
fn a_filter_of_its_own_that_refuses() {
    agree("limits/own_filter", &["errno"]);
}

/// The program's limits are what its caller set, not what zcache needed for itself.
#[test]
fn the_program_has_its_callers_limits() {
    let text = "ulimit -Sn 300; ulimit -c 0; ulimit -u 5000; ulimit -l 100; ulimit -s 4096";
    let job = Job::new("/bin/bash").args(["-c", "ulimit -a; ulimit -Ha"]);
    agree_job(&job.within(after(text)));
}

#[test]
fn a_bounded_time_of_the_processor() {
    let job = Job::new("/bin/bash")
        .args(["-c", "ulimit -t 1; while :; do :; done"])
        .bound(Duration::from_secs(60))
        .linger(Duration::from_secs(5));
    let plain = job.plain();
    plain.assert_ended(Ended::Signal(9));
    compare(&plain, &job.under(&usual()));
}

#[test]
fn a_filter_of_its_own_that_looks_at_arguments() {
    agree("limits/filter_of_arguments", &[]);
}

#[test]
fn a_users_limit_of_locked_memory() {
    tree::need_root();
    agree("limits/locked_memory", &[]);
}
