//! The walk-through of `docs/remote.md`, as it is written, and its table of counts.

use crate::support::{TempDir, plain_only, repository, tree, zcache};
use std::process::Command;

fn document() -> String {
    std::fs::read_to_string(repository().join("docs/remote.md")).expect("docs/remote.md")
}

/// A section without its heading.
fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let start = text.find(&format!("\n## {heading}\n"));
    let behind = &text[start.unwrap_or_else(|| panic!("no section {heading}")) + 1..];
    let body = &behind[behind.find('\n').unwrap_or(0)..];
    &body[..body.find("\n## ").unwrap_or(body.len())]
}

/// The commands of its blocks, in their order.
fn commands(section: &str) -> String {
    let blocks = section.split("```sh\n").skip(1);
    blocks
        .filter_map(|block| block.split("```").next())
        .collect()
}

#[test]
fn the_walk_through_of_two_machines_runs_as_written() {
    if plain_only() {
        return;
    }
    tree::need_root();
    let script = commands(section(&document(), "Two machines"));
    assert!(script.lines().count() > 20, "{script}");
    let files = TempDir::new("two-machines");
    let folder = zcache().parent().map(|path| path.to_owned());
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{path}", folder.expect("a folder of zcache").display());
    // Names of namespaces are files below /run, and what a failure leaves running ends with its first process.
    let output = Command::new("unshare")
        .args([
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "bash",
            "-c",
        ])
        .arg(format!(
            "set -euo pipefail; mount -t tmpfs tmpfs /run; {script}"
        ))
        .current_dir(files.path())
        .env("PATH", path)
        .output()
        .expect("unshare is in the Debian package util-linux");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
    assert!(said.contains("nothing is lent now"), "{said}");
}

#[test]
fn the_table_of_counts_is_what_is_counted() {
    let source = repository().join("crates/remote/src/report.rs");
    let source = std::fs::read_to_string(source).expect("report.rs");
    let (_, list) = source
        .split_once("counts: vec![")
        .expect("a list of counts");
    let mut counted: Vec<&str> = list.split('"').skip(1).step_by(2).collect();
    let text = document();
    let rows = section(&text, "What it counts").lines();
    let rows = rows.filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
    let mut documented: Vec<&str> = rows.flat_map(|names| names.split(", ")).collect();
    documented.retain(|name| *name != "name");
    counted.sort_unstable();
    documented.sort_unstable();
    assert_eq!(documented, counted);
}
