//! Namespaces that the program makes: of processes, mounts, users and others. Tests whose numbers could hit strangers run in a PID
//! namespace of their own.

use super::support::{agree, agree_job, case};
use crate::support::{Job, compile, tree};
use std::time::Duration;

/// What keeps a test's processes and numbers apart from the machine's.
const APART: [&str; 5] = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];

fn same_number(how: &str) {
    tree::need_root();
    let job = case("namespaces/same_numbers", &[how]);
    agree_job(&job.within(APART));
}

#[test]
fn a_process_has_the_number_of_another() {
    same_number("outer");
}

#[test]
fn a_process_has_the_number_before_anothers() {
    same_number("before");
}

#[test]
fn a_process_has_the_number_of_a_helper() {
    same_number("helper");
}

#[test]
fn a_short_process_has_the_number_of_another() {
    same_number("short");
}

#[test]
fn a_user_namespace() {
    agree("namespaces/entered", &["user"]);
}

#[test]
#[ignore = "differs: a process whose children are born elsewhere has no helper"]
fn a_namespace_of_users_processes_and_mounts() {
    agree("namespaces/entered", &["user,pid,mount"]);
}

#[test]
fn a_namespace_of_processes() {
    agree_job(&case("namespaces/entered", &["pid"]).within(APART));
}

#[test]
fn a_namespace_of_processes_with_its_own_proc() {
    agree_job(&case("namespaces/entered", &["pid,mount"]).within(APART));
}

#[test]
fn a_namespace_of_mounts() {
    agree("namespaces/entered", &["mount"]);
}

#[test]
fn namespaces_of_everything_else() {
    agree("namespaces/entered", &["ipc,uts,net,cgroup"]);
}

#[test]
fn tables_of_ones_own() {
    agree("namespaces/entered", &["files,fs"]);
}

#[test]
fn a_namespace_that_comes_with_the_process() {
    agree_job(&case("namespaces/entered", &["clone-pid,mount"]).within(APART));
}

#[test]
fn a_user_namespace_that_comes_with_the_process() {
    agree("namespaces/entered", &["clone-user"]);
}

#[test]
#[ignore = "differs: a wait for clones sees the helper"]
fn the_first_process_of_a_namespace() {
    agree_job(&case("namespaces/first_process", &[]).within(APART));
}

/// The command that container runtimes and sandboxes build on.
fn unshare(options: &[&str]) {
    let job = Job::new("unshare")
        .args(options)
        .arg(compile::case("rights/hold"))
        .arg("100")
        .bound(Duration::from_secs(60));
    agree_job(&job.within(APART));
}

#[test]
fn unshare_pid_fork_mount_proc() {
    unshare(&["--pid", "--fork", "--mount-proc"]);
}

#[test]
fn unshare_user_with_everything() {
    unshare(&[
        "--user",
        "--map-root-user",
        "--pid",
        "--fork",
        "--mount-proc",
        "--ipc",
        "--net",
        "--uts",
        "--kill-child",
    ]);
}

#[test]
fn a_namespace_within_a_namespace() {
    let mut options = vec!["--pid", "--fork", "--mount-proc", "unshare"];
    options.extend(["--pid", "--fork", "--mount-proc", "--kill-child"]);
    unshare(&options);
}
