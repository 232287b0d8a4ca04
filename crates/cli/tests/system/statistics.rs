//! `--stats` and SIGUSR1: the JSON of `docs/stats.md` at the end, a summary of five lines for people, nothing when nobody asks.

use crate::support::{
    Capped, Job, TempDir, compile, eventually, job::number, plain_only, repository, tool, tree,
};
use std::process::Command;
use std::time::Duration;

/// The names in the table of `docs/stats.md`, sorted.
fn documented() -> Vec<String> {
    let path = repository().join("docs/stats.md");
    let text = std::fs::read_to_string(path).expect("docs/stats.md");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| "));
    let names = rows.filter_map(|row| row.split(" |").next());
    let mut names: Vec<String> = names
        .flat_map(|names| names.split(", "))
        .filter(|name| *name != "name")
        .map(str::to_owned)
        .collect();
    names.sort();
    names
}

/// The names at the outer level of a pretty-printed object, sorted.
fn written(json: &str) -> Vec<String> {
    let lines = json.lines().filter_map(|line| line.strip_prefix("  \""));
    let mut names: Vec<String> = lines
        .filter_map(|line| Some(line.split_once('"')?.0.to_owned()))
        .collect();
    names.sort();
    names
}

fn assert_is_statistics(path: &std::path::Path) -> String {
    let read = "import json, sys; data = json.load(open(sys.argv[1])); assert isinstance(data, dict); print(len(data))";
    tool(
        "python3",
        Command::new("/usr/bin/python3")
            .args(["-c", read])
            .arg(path),
    );
    let text = std::fs::read_to_string(path).expect("the statistics");
    assert_eq!(
        written(&text),
        documented(),
        "docs/stats.md and the statistics differ: {text}"
    );
    text
}

#[test]
fn the_statistics_file_has_the_documented_names_and_right_numbers() {
    if plain_only() {
        return;
    }
    let files = TempDir::new("stats");
    let path = files.file("stats.json");
    let job = Job::new(compile::hold()).args(["--bytes", "64M", "--passes", "3"]);
    let outcome = job.under(&Capped::ram_mib(32).option("--stats", &path));
    outcome.assert_success();
    let text = assert_is_statistics(&path);
    assert_eq!(number(&text, "ram_bytes_budget"), Some(f64::from(32 << 20)));
    assert!(
        number(&text, "faults").is_some_and(|n| n > 1000.0),
        "{text}"
    );
    assert!(
        number(&text, "ram_bytes_peak").is_some_and(|n| n > 0.0 && n <= f64::from(32 << 20) * 1.02),
        "{text}"
    );
    let sum = |names: &[&str]| -> f64 {
        let of = |name: &&str| number(&text, name).unwrap_or_else(|| panic!("{name} in {text}"));
        names.iter().map(of).sum()
    };
    let refused = ["pool_full", "tier_full", "tier_failing", "forked"];
    let refused_besides = ["no_memory", "handles_exhausted", "no_such_pool", "damaged"];
    assert_eq!(
        sum(&["attempts"]),
        sum(&["accepted"]) + sum(&refused) + sum(&refused_besides),
        "{text}"
    );
    assert!(sum(&["loads"]) > 1000.0, "{text}");
    let p50 = number(&text, "fault_ns_p50").unwrap_or(0.0);
    let p99 = number(&text, "fault_ns_p99").unwrap_or(0.0);
    assert!(p50 > 0.0 && p50 <= p99, "{text}");
    let summary = outcome.err();
    assert!(
        summary.lines().count() >= 5,
        "the summary is too short: {summary}"
    );
    assert!(
        outcome.out().ends_with("held\n") && !outcome.out().contains('{'),
        "stdout is not the program's own: {}",
        outcome.out()
    );
}

#[test]
fn a_program_that_fails_gets_its_statistics_as_well() {
    if plain_only() {
        return;
    }
    let files = TempDir::new("stats-fail");
    let path = files.file("stats.json");
    Job::shell("kill -9 $$").under(&Capped::ram_mib(32).option("--stats", &path));
    assert_is_statistics(&path);
}

#[test]
fn a_dash_prints_the_statistics() {
    if plain_only() {
        return;
    }
    let files = TempDir::new("stats-dash");
    let outcome = Job::shell("echo said").under(&Capped::ram_mib(32).option("--stats", "-"));
    outcome.assert_success();
    let both = outcome.out() + &outcome.err();
    let (begin, end) = (
        both.find('{').expect("an object"),
        both.rfind('}').expect("an object's end"),
    );
    let path = files.file("stats.json");
    std::fs::write(&path, both.get(begin..=end).unwrap_or_default()).expect("a copy");
    assert_is_statistics(&path);
}

#[test]
fn nothing_is_said_when_nobody_asks() {
    let outcome = Job::new(compile::hold())
        .args(["--bytes", "48M"])
        .under(&Capped::ram_mib(24));
    outcome.assert_success();
    assert_eq!(outcome.err(), "");
    assert_eq!(outcome.out(), "ready\nheld\n");
}

#[test]
fn sigusr1_prints_the_summary_while_the_program_runs() {
    if plain_only() {
        return;
    }
    let job = Job::new(compile::hold()).args(["--bytes", "64M", "--forever"]);
    let mut running = job.start_under(&Capped::ram_mib(32));
    running.wait_for_stdout("ready", 1);
    tree::signal(running.first(), "USR1");
    assert!(
        eventually(Duration::from_secs(60), || running.stderr().lines().count()
            >= 5),
        "no summary: {}",
        running.stderr()
    );
    let first = running.stderr().lines().count();
    tree::signal(running.first(), "USR1");
    assert!(
        eventually(Duration::from_secs(60), || running.stderr().lines().count()
            >= 2 * first),
        "no second summary"
    );
    assert!(
        running.is_running(),
        "the program did not survive SIGUSR1 to zcache: {}",
        running.stderr()
    );
    running.stop().assert_within(32 << 20);
}
