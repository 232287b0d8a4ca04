//! The same operations on the target and on the source's own filesystem have the same outcome: results, errnos, bytes.

use super::support::{Mounted, drop_pages};
use crate::support::{TempDir, tests_file, tool};
use std::path::Path;
use std::process::Command;

/// Runs the operations of a seed and gives what came of each.
fn operations(directory: &Path, seed: u64) -> String {
    let mut command = Command::new("timeout");
    command
        .args(["100", "python3"])
        .arg(tests_file("mount/operations.py"));
    tool(
        "python3",
        command
            .arg(directory)
            .args([seed.to_string(), "4000".into()]),
    )
}

fn differ(seed: u64, options: &[&str]) {
    let plain = TempDir::new("alike-plain");
    let mounted = Mounted::new("alike", options);
    let (expected, found) = (
        operations(plain.path(), seed),
        operations(&mounted.target(), seed),
    );
    let lines = expected.lines().zip(found.lines());
    if let Some((expected, found)) = lines.into_iter().find(|(one, other)| one != other) {
        panic!(
            "seed {seed} {options:?}: the filesystem says\n{expected}\nand zcache mount\n{found}"
        );
    }
    assert_eq!(expected.len(), found.len(), "seed {seed}");
    let stats = mounted.finish();
    assert_eq!(stats["damaged_pages"], 0, "{stats}");
}

#[test]
fn random_operations_have_the_same_outcome() {
    let first: u64 =
        std::env::var("ZCACHE_MOUNT_SEED").map_or(1, |seed| seed.parse().expect("a number"));
    for seed in first..first + 3 {
        println!("ZCACHE_MOUNT_SEED={seed}");
        differ(seed, &["--ram", "32M", "--admit", "all", "-o", "suid"]);
        differ(seed + 100, &["--ram", "16M", "-o", "suid"]);
    }
}

#[test]
fn pages_come_back_from_ram_as_they_were() {
    let mounted = Mounted::new("again", &["--ram", "32M"]);
    let path = mounted.target().join("file");
    // Ends within a page; every page differs.
    let bytes: Vec<u8> = (0..3_000_001u32)
        .map(|n| ((n / 7) ^ (n >> 12)) as u8)
        .collect();
    std::fs::write(&path, &bytes).expect("written");
    std::thread::sleep(std::time::Duration::from_millis(2100));
    for round in 0..5 {
        assert!(
            std::fs::read(&path).expect("read") == bytes,
            "round {round}"
        );
        drop_pages(&path);
    }
    let stats = mounted.finish();
    let pages = bytes.len().div_ceil(4096) as u64;
    assert!(stats["admitted_pages"].as_u64() >= Some(pages), "{stats}");
    assert!(stats["hit_pages"].as_u64() >= Some(2 * pages), "{stats}");
    let (peak, budget) = (&stats["ram_bytes_peak"], &stats["ram_bytes_budget"]);
    assert!(peak.as_u64() <= budget.as_u64(), "{stats}");
}

#[test]
fn the_budget_holds_when_everything_is_kept() {
    let mounted = Mounted::new("budget", &["--ram", "24M", "--admit", "all"]);
    let path = mounted.target().join("file");
    let mut word = 1u32;
    let bytes: Vec<u8> = (0..64 << 20)
        .map(|_| {
            word = word.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (word >> 24) as u8
        })
        .collect();
    std::fs::write(&path, &bytes).expect("written");
    for _ in 0..3 {
        assert!(std::fs::read(&path).expect("read") == bytes);
        drop_pages(&path);
    }
    let stats = mounted.finish();
    let (peak, budget) = (&stats["ram_bytes_peak"], &stats["ram_bytes_budget"]);
    assert!(peak.as_u64() <= budget.as_u64(), "{stats}");
    assert!(stats["evicted_pages"].as_u64() > Some(0), "{stats}");
}
