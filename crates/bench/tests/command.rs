//! The commands as a user runs them, without root and without zcache.

use std::process::{Command, Output};

fn bench(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_zcache-bench"))
        .args(args)
        .output()
        .expect("the program starts")
}

#[test]
fn the_workload_reports_what_it_did_as_one_line_of_json() {
    let output = bench(&[
        "workload",
        "--bytes",
        "2M",
        "--threads",
        "2",
        "--ops",
        "5000",
        "--warmup",
        "0",
    ]);
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(text.lines().count(), 1);
    let report: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(report["ops"], 5000);
    assert_eq!(report["verified_pages"], 512);
    assert_eq!(report["wrong_bytes"], 0);
}

#[test]
fn a_missing_zcache_is_named_with_the_way_out() {
    let output = bench(&[
        "compare",
        "--quick",
        "--contenders",
        "zcache-lz4",
        "--zcache",
        "/nonexistent/zcache",
    ]);
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(
        text.contains("/nonexistent/zcache") && text.contains("--contenders"),
        "{text}"
    );
}
