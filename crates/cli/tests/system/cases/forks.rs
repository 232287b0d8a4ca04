//! Births that are refused, that wait, that are killed, and every call that makes a process.

use super::support::{Group, agree, agree_job, case};
use crate::support::tree;

#[test]
fn births_that_are_refused() {
    agree("forks/refused", &[]);
}

/// In a group whose limit lets no child in.
fn refused_by_a_group(mib: &str, rounds: &str) {
    tree::need_root();
    let group = Group::of("pids");
    group.set("pids.max", "2");
    agree_job(&case("forks/process_limit", &[group.text(), mib, rounds]));
}

#[test]
fn births_that_a_control_group_refuses() {
    refused_by_a_group("8", "20");
}

#[test]
fn births_of_large_processes_that_a_control_group_refuses() {
    refused_by_a_group("40", "8");
}

#[test]
fn processes_that_are_killed_while_they_fork() {
    agree("forks/killed_early", &["fork", "300"]);
}

#[test]
fn processes_that_are_killed_while_they_execute() {
    agree("forks/killed_early", &["exec", "100"]);
}

#[test]
fn processes_that_are_killed_while_a_child_borrows_their_memory() {
    agree("forks/killed_early", &["vfork", "100"]);
}

#[test]
fn processes_that_are_killed_while_they_start_threads() {
    agree("forks/killed_early", &["thread", "100"]);
}

#[test]
fn children_by_fork() {
    agree("forks/clones", &["fork"]);
}

#[test]
fn children_by_clone() {
    agree("forks/clones", &["clone"]);
}

#[test]
fn children_by_clone3() {
    agree("forks/clones", &["clone3"]);
}

#[test]
fn children_by_clone3_with_a_pidfd() {
    agree("forks/clones", &["clone3-pidfd"]);
}

#[test]
fn children_by_clone3_in_a_control_group() {
    tree::need_root();
    let group = Group::of_second_version();
    agree("forks/clones", &["clone3-cgroup", group.text()]);
}

#[test]
fn children_of_the_parents_parent() {
    agree("forks/clones", &["parent"]);
}

#[test]
fn children_in_the_same_memory() {
    agree("forks/clones", &["vm"]);
}

#[test]
fn children_that_borrow_memory_and_execute() {
    agree("forks/clones", &["vfork"]);
}

#[test]
fn children_by_posix_spawn() {
    agree("forks/clones", &["spawn"]);
}

#[test]
fn children_that_end_without_a_signal() {
    agree("forks/clones", &["no-signal"]);
}

#[test]
fn forks_larger_than_the_budget() {
    agree("forks/large_forks", &["100", "10"]);
}

#[test]
fn many_ranges_that_are_not_inherited() {
    agree("forks/many_ranges", &["20000"]);
}

#[test]
fn waiting_forks_hold_up_nobody_else() {
    agree("forks/waiting_beside", &[]);
}

#[test]
fn memory_beside_what_cannot_be_watched_is_inherited() {
    agree("forks/unwatched_neighbour", &[]);
}

#[test]
fn a_thread_executes_an_image_while_the_first_one_waits_in_a_call() {
    agree("forks/exec_beside_leader", &[]);
}

#[test]
fn forks_beside_threads_that_touch_memory_all_the_time() {
    agree("forks/beside_touching", &["1"]);
    agree("forks/beside_touching", &["4"]);
}
