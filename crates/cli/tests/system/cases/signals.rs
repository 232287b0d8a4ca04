//! Signals that are handled, ignored or stop: as the program sends them, as others do, and as control groups freeze.

use super::support::{Group, agree, agree_job, case, compare, usual};
use crate::support::job::Running;
use crate::support::{Ended, eventually, plain_only, tree};
use std::time::Duration;

#[test]
fn waits_go_on_when_a_window_changes() {
    agree("signals/interrupted_waits", &["WINCH"]);
}

#[test]
fn waits_go_on_when_a_child_ends() {
    agree("signals/interrupted_waits", &["CHLD"]);
}

#[test]
fn waits_go_on_when_an_ignored_signal_comes() {
    agree("signals/interrupted_waits", &["IGN"]);
}

#[test]
fn traps_belong_to_the_program() {
    agree("signals/sigtrap", &[]);
}

#[test]
fn a_storm_of_stops() {
    agree("signals/storm", &["300"]);
}

#[test]
fn a_storm_of_stops_on_processes_that_fork() {
    agree("signals/storm", &["300", "forks"]);
}

#[test]
fn stops_while_a_process_is_born() {
    agree("signals/births", &["fork"]);
}

#[test]
fn stops_while_an_image_is_executed() {
    agree("signals/births", &["exec"]);
}

#[test]
fn stops_while_a_thread_is_born() {
    agree("signals/births", &["thread"]);
}

#[test]
fn a_control_group_is_frozen_and_thawed() {
    tree::need_root();
    let group = Group::of("freezer");
    agree_job(&case("signals/frozen", &[group.text()]));
}

#[test]
fn a_control_group_of_the_second_version_is_frozen_and_thawed() {
    tree::need_root();
    let group = Group::of_second_version();
    agree_job(&case("signals/frozen", &[group.text()]));
}

#[test]
fn a_helper_that_is_stopped_harms_its_own_process_alone() {
    agree("signals/helper_stopped", &["stop"]);
}

#[test]
fn a_helper_that_is_killed_harms_its_own_process_alone() {
    agree("signals/helper_stopped", &["kill"]);
}

/// The state of a process as ps shows it.
fn state(pid: u32) -> Option<char> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit_once(')')?.1.trim_start().chars().next()
}

fn program(running: &Running) -> u32 {
    let root = running.root();
    let mut found = None;
    eventually(Duration::from_secs(20), || {
        found = tree::named(root, "case-signals-sp");
        found.is_some()
    });
    // A signal to number 0 would reach the tests themselves.
    found
        .expect("the program runs, since it said that it is ready")
        .pid
}

/// Stops and continues whom `whom` says, again and again, while the program forks with much memory.
fn from_outside(whom: impl Fn(&Running) -> Vec<u32>) {
    let job = case("signals/spin", &["60"]).linger(Duration::from_secs(5));
    let plain = job.plain();
    plain.assert_ended(Ended::Exit(0));
    let mut running = job.start_under(&usual());
    running.wait_for_stdout("ready", 1);
    let pids = whom(&running);
    for round in 0..12 {
        for pid in &pids {
            tree::signal(*pid, "STOP");
        }
        std::thread::sleep(Duration::from_millis(100 + 20 * round));
        for pid in &pids {
            tree::signal(*pid, "CONT");
        }
        let stopped = || pids.iter().any(|pid| state(*pid) == Some('T'));
        assert!(
            eventually(Duration::from_secs(10), || !stopped()),
            "round {round}: still stopped after SIGCONT: {}",
            tree::describe(running.root())
        );
        std::thread::sleep(Duration::from_millis(30 + 7 * round));
    }
    compare(&plain, &running.wait());
}

#[test]
fn the_program_is_stopped_by_others() {
    from_outside(|running| vec![program(running)]);
}

#[test]
fn what_the_shell_started_is_stopped_by_others() {
    from_outside(|running| vec![running.first()]);
}

/// As a shell's `fg` does: both are continued.
#[test]
fn the_program_and_what_the_shell_started_are_stopped_by_others() {
    from_outside(|running| vec![program(running), running.first()]);
}

/// The program alone is stopped, as cpulimit does; both are continued, and nobody is left stopped.
#[test]
fn only_the_program_is_stopped_and_all_are_continued() {
    let job = case("signals/spin", &["60"]).linger(Duration::from_secs(5));
    let plain = job.plain();
    let mut running = job.start_under(&usual());
    running.wait_for_stdout("ready", 1);
    let (program, first) = (program(&running), running.first());
    for round in 0..8 {
        tree::signal(program, "STOP");
        std::thread::sleep(Duration::from_millis(300));
        tree::signal(program, "CONT");
        tree::signal(first, "CONT");
        assert!(
            eventually(Duration::from_secs(10), || state(first) != Some('T')
                && state(program) != Some('T')),
            "round {round}: still stopped after SIGCONT: {}",
            tree::describe(running.root())
        );
        std::thread::sleep(Duration::from_millis(90 + 11 * round));
    }
    compare(&plain, &running.wait());
}

#[test]
fn what_the_shell_started_is_killed() {
    if plain_only() {
        return;
    }
    for round in 0..10 {
        let mut running = case("signals/spin", &["2000"])
            .linger(Duration::from_secs(20))
            .start_under(&usual());
        running.wait_for_stdout("ready", 1);
        std::thread::sleep(Duration::from_millis(7 * round));
        tree::signal(running.first(), "KILL");
        let outcome = running.wait();
        outcome.assert_ended(Ended::Signal(9));
        assert_eq!(
            outcome.left_running, 0,
            "processes outlived it by 20 s: {}",
            outcome.report
        );
    }
}

#[test]
fn stops_that_meet_calls_of_ours_are_not_lost() {
    agree("signals/stops_meet_calls", &["100"]);
}

#[test]
fn a_handler_interrupts_a_wait_that_an_ignored_signal_has_met() {
    agree("signals/handler_beside_ignored", &["20"]);
}

#[test]
fn transfers_go_on_when_children_end() {
    for call in ["write", "send", "recv", "random", "zero", "getrandom"] {
        agree("signals/long_transfers", &[call]);
    }
}

#[test]
fn a_handler_ends_a_transfer() {
    agree("signals/long_transfers", &["handled"]);
}

#[test]
fn transfers_by_vectors_and_messages_go_on() {
    for call in [
        "writev", "pwritev2", "sendmsg", "recvmsg", "sendmmsg", "recvmmsg",
    ] {
        agree("signals/transfers_by_vectors", &[call]);
    }
}

#[test]
fn transfers_from_file_to_file_go_on() {
    for call in ["sendfile", "splice", "readv", "preadv"] {
        agree("signals/transfers_by_vectors", &[call]);
    }
}

#[test]
fn a_transfer_that_goes_on_ends_in_time() {
    for call in ["writev", "sendmsg"] {
        agree("signals/transfers_by_vectors", &[call, "timeout"]);
    }
}

#[test]
fn waits_keep_their_deadline_under_a_stream_of_signals() {
    agree("signals/deadlines", &["plain"]);
}

#[test]
fn waits_keep_their_deadline_under_a_filter() {
    agree("signals/deadlines", &["filtered"]);
}
