//! Memory that does not come by faults stays within the budget as well: locked, populated, written to private files, copied by forks.

use super::support::{agree, agree_job, bash, case};
use crate::support::{Capped, compile, eventually, plain_only, tree, zcache};
use std::time::Duration;

#[test]
fn a_locked_mapping() {
    agree("budget/locked", &["flag", "200"]);
}

#[test]
fn all_future_memory_locked() {
    agree("budget/locked", &["future", "200"]);
}

#[test]
fn all_memory_locked() {
    agree("budget/locked", &["current", "200"]);
}

#[test]
fn all_memory_locked_when_touched() {
    agree("budget/locked", &["on-fault", "200"]);
}

#[test]
fn memory_locked_and_unlocked() {
    agree("budget/locked", &["unlocked", "200"]);
}

#[test]
fn many_locked_mappings() {
    agree("budget/locked", &["many", "300"]);
}

#[test]
fn a_locked_heap() {
    agree("budget/locked", &["heap", "100"]);
}

#[test]
fn a_populated_mapping() {
    agree("budget/locked", &["populate", "200"]);
}

#[test]
fn memory_populated_for_writing() {
    agree("budget/locked", &["populate-advice", "200"]);
}

#[test]
fn memory_populated_for_reading() {
    agree("budget/locked", &["populate-read", "200"]);
}

#[test]
fn huge_pages_by_advice() {
    agree("budget/locked", &["huge", "120"]);
}

#[test]
fn pages_collapsed_to_huge_ones() {
    agree("budget/locked", &["collapse", "120"]);
}

#[test]
fn memory_locked_before_it_is_touched() {
    agree("budget/locked", &["before", "120"]);
}

#[test]
fn memory_locked_on_fault_before_it_is_touched() {
    agree("budget/locked", &["before-on-fault", "120"]);
}

#[test]
fn memory_of_which_half_is_locked() {
    agree("budget/locked", &["half", "120"]);
}

#[test]
fn everything_found_in_the_map_is_locked() {
    agree("budget/locked", &["found", "120"]);
}

#[test]
fn locked_memory_that_grows() {
    agree("budget/locked", &["grown", "120"]);
}

#[test]
fn private_mappings_of_the_zero_device() {
    agree("budget/private_files", &["zero", "200"]);
}

#[test]
#[ignore = "differs: Linux pages no written pages of private files"]
fn a_private_file_mapping_written_fast() {
    agree("budget/private_files", &["disk", "150"]);
}

#[test]
#[ignore = "differs: Linux pages no written pages of private files"]
fn a_private_file_mapping_written_slowly() {
    agree("budget/private_files", &["slowly", "150"]);
}

#[test]
#[ignore = "differs: Linux pages no written pages of private files"]
fn a_private_file_mapping_beside_other_memory() {
    agree("budget/private_files", &["disk", "80", "120"]);
}

#[test]
#[ignore = "differs: Linux pages no written pages of private files"]
fn a_private_mapping_of_a_memory_file() {
    agree("budget/private_files", &["memfd", "120"]);
}

#[test]
#[ignore = "differs: Linux pages no written pages of private files"]
fn a_private_mapping_of_a_tmpfs_file() {
    agree("budget/private_files", &["shm", "120"]);
}

#[test]
fn memory_filled_by_reads() {
    agree("budget/growth", &["read"]);
}

#[test]
fn stacks_of_threads() {
    agree("budget/growth", &["stacks"]);
}

#[test]
fn children_that_all_write() {
    agree("budget/growth", &["forks"]);
}

#[test]
fn memory_that_doubles() {
    agree("budget/growth", &["doubling"]);
}

/// A program under zcache that starts another by zcache: nobody can be traced twice, so the inner one is refused, and its first line
/// says that this is the cause.
#[test]
fn zcache_within_zcache() {
    if plain_only() {
        return;
    }
    let hold = compile::case("rights/hold");
    let text = "\"$1\" run --ram 48M --swap none -- \"$2\" 60; echo status $?";
    let outcome = bash(text, &[&zcache(), &hold]).under(&Capped::ram_mib(128));
    outcome.assert_success();
    assert_eq!(outcome.out(), "status 125\n", "{}", outcome.err());
    let said = outcome.err();
    let first = said.lines().next().unwrap_or_default();
    assert!(first.contains("traced"), "the cause is not named: {said}");
}

/// The store's guard is killed while the store is large. Its successor does not keep a copy of the store.
#[test]
fn a_guard_that_is_killed() {
    if plain_only() {
        return;
    }
    let mut running = case("budget/churn", &["400", "6"])
        .bound(Duration::from_secs(120))
        .linger(Duration::from_secs(5))
        .start_under(
            &Capped::ram_mib(256)
                .option("--swap", "none")
                .option("--codec", "lz4"),
        );
    running.wait_for_stdout("filled", 1);
    let root = running.root();
    if let Some(guard) = tree::named(root, "zcache-guard") {
        tree::signal(guard.pid, "KILL");
        let again = eventually(Duration::from_secs(5), || {
            tree::named(root, "zcache-guard").is_some_and(|new| new.pid != guard.pid)
        });
        eprintln!("a new guard came: {again}");
    }
    let outcome = running.wait();
    outcome.assert_success();
    outcome.assert_within(256 << 20);
    assert_eq!(outcome.out(), "filled\nwrong pages: 0\n");
}

/// The summary of a run never says that more was held than allowed.
#[test]
fn rewriting_under_a_tight_budget() {
    agree_job(&case("budget/churn", &["100", "2"]));
}
