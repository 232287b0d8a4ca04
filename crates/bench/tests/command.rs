//! The commands as a user runs them; one test needs root and the packages of `tests/packages.txt`.

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

/// The numbers of a row of a table in markdown whose first cell is this one.
fn row<'a>(table: &'a str, first: &str) -> Vec<&'a str> {
    let head = format!("| {first} |");
    let row = table.lines().find(|line| line.starts_with(&head));
    let row = row.unwrap_or_else(|| panic!("no row {first} in {table}"));
    row.trim_matches('|').split('|').map(str::trim).collect()
}

/// The percent of a page that ends a cell of costs.
fn percent(cell: &str) -> f64 {
    let inside = cell
        .rsplit_once('(')
        .and_then(|(_, rest)| rest.split_once("%)"));
    inside
        .and_then(|(percent, _)| percent.parse().ok())
        .unwrap_or_else(|| panic!("{cell}"))
}

#[test]
fn pages_cost_what_the_engine_says_they_do() {
    let output = bench(&["pages", "--pages", "1024"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(
        text.starts_with("- machine: ") && text.contains("\n- commit: "),
        "{text}"
    );
    // Tables of 36 or 56 bytes, and no packing loss.
    let raw = row(&text, "incompressible");
    assert_eq!(raw.len(), 6, "{text}");
    assert_eq!(raw[1], "1.00");
    for cell in &raw[2..4] {
        assert!((100.5..101.6).contains(&percent(cell)), "{text}");
    }
    // Objects and pools have records of their own.
    assert!((102.5..104.0).contains(&percent(raw[4])), "{text}");
    assert!((103.5..105.5).contains(&percent(raw[5])), "{text}");
    // An entry by handle has 24 bytes; an ephemeral page has no handle.
    assert!(
        (0.5..0.8).contains(&percent(row(&text, "same-filled")[2])),
        "{text}"
    );
    assert_eq!(row(&text, "same-filled, ephemeral")[2], "–");
    // What is in the tier takes tables and no frames.
    let away = row(&text, "mixed, in the tier only");
    assert!(
        away[1] == "–" && (0.6..0.9).contains(&percent(away[2])),
        "{text}"
    );
    // The second table: the bound that tables set.
    let bound = text.split("MiB of pages").nth(1).expect("a second table");
    let mixed = row(bound, "mixed");
    let mib: Vec<f64> = mixed[1..]
        .iter()
        .map(|cell| cell.parse().expect("a number"))
        .collect();
    assert!(
        (130.0..146.0).contains(&mib[0]) && mib[0] > mib[1] && mib[1] > mib[2],
        "{text}"
    );
}

/// A folder that is removed at the end, whatever the end is.
struct Folder(std::path::PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Pages of two live programs, stored in the kernel's zram and zswap and in zcache: needs root, python3 and sqlite3.
#[test]
fn pages_of_live_programs_come_back_from_every_contender() {
    let folder = Folder(std::path::PathBuf::from(format!(
        "/var/tmp/zcache-bench-test-{}",
        std::process::id()
    )));
    let path = folder.0.to_str().expect("UTF-8");
    let made = bench(&[
        "corpus",
        path,
        "--programs",
        "python3,sqlite3",
        "--sample",
        "4M",
    ]);
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "{said}");
    let manifest = std::fs::read_to_string(folder.0.join("manifest.json")).expect("a manifest");
    let manifest: serde_json::Value = serde_json::from_str(&manifest).expect("JSON");
    let names: Vec<_> = std::fs::read_dir(&folder.0).expect("the folder").collect();
    assert_eq!(names.len(), 3, "two programs and the manifest: {names:?}");
    for source in manifest["sources"].as_array().expect("sources") {
        assert_eq!(source["pages"], 1024, "{source}");
    }
    let json = folder.0.join("runs.json");
    let json_path = json.to_str().expect("UTF-8");
    let compare = || bench(&["density", path, "--repeats", "1", "--json", json_path]);
    let mut compared = compare();
    // One comparison at a time: somebody else's may be under way.
    for _ in 0..60 {
        if !String::from_utf8_lossy(&compared.stderr).contains("another comparison runs") {
            break;
        }
        std::thread::sleep(std::time::Duration::from_secs(2));
        compared = compare();
    }
    let said = String::from_utf8_lossy(&compared.stderr);
    assert!(compared.status.success(), "{said}");
    let text = std::fs::read_to_string(&json).expect("the runs");
    let runs: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let runs = runs["runs"].as_array().expect("runs");
    assert!(
        runs.iter()
            .any(|run| run["contender"] == "zcache-zstd-block"),
        "{said}"
    );
    for run in runs {
        assert_eq!(run["wrong_pages"], 0, "{run}");
        assert_eq!(run["held_bytes"], 8 << 20, "{run}");
        assert!(
            run["ram_bytes"]
                .as_u64()
                .is_some_and(|bytes| bytes > 1 << 20 && bytes < 10 << 20),
            "{run}"
        );
    }

    let packed = bench(&["allocators", path, "--repeats", "1"]);
    let said = String::from_utf8_lossy(&packed.stderr);
    assert!(packed.status.success(), "{said}");
    let tables = String::from_utf8_lossy(&packed.stdout);
    for allocator in ["block", "zbud", "ztri", "zsmalloc"] {
        for codec in ["lz4", "zstd"] {
            let row = format!("| {allocator} | {codec} |");
            assert_eq!(tables.matches(&row).count(), 3, "{row} in {tables}");
        }
    }

    // A page file that is not what the manifest says is refused, not measured.
    std::fs::write(folder.0.join("python3.pages"), [1; 4097]).expect("a shorter file");
    let refused = compare();
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("python3.pages"));
}

#[test]
fn a_corpus_is_not_written_over() {
    let refused = bench(&["corpus", "/tmp"]);
    assert_eq!(refused.status.code(), Some(2));
    let unknown = bench(&["corpus", "/nonexistent/corpus", "--programs", "emacs"]);
    let said = String::from_utf8_lossy(&unknown.stderr);
    assert!(
        said.contains("emacs") && said.contains("redis-server"),
        "{said}"
    );
}

/// Needs a valkey-server or redis-server, as the tests of the remote tier do.
#[test]
fn ram_of_other_machines_is_measured_on_servers_that_it_starts() {
    let output = bench(&["remote", "--quick", "--loopback", "--no-program"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    for (first, second) in [("none", "no"), ("0.2 ms", "yes"), ("1 ms", "yes")] {
        let start = format!("| {first} | {second} |");
        assert!(text.contains(&start), "{text}");
    }
    for way in ["disk", "`two-copies`, two servers"] {
        let rate = row(&text, way)[2];
        let median = rate
            .split(' ')
            .next()
            .and_then(|text| text.parse::<f64>().ok());
        assert!(median.is_some_and(|rate| rate > 0.0), "{text}");
    }
    let missing = bench(&[
        "remote",
        "--quick",
        "--server",
        "/nonexistent/valkey-server",
    ]);
    assert_eq!(missing.status.code(), Some(2));
    let said = String::from_utf8_lossy(&missing.stderr);
    assert!(said.contains("--server"), "{said}");
}
