//! `--codec auto`, the default: a quiet program is packed by zstd, one that sweeps over more than its RAM gets lz4, and zstd again
//! when it rests.

use crate::support::{
    Capped, Job, TempDir, eventually, job::Running, plain_only, tests_file, tree,
};
use std::path::Path;
use std::time::Duration;

/// What the summary says of codecs: pages by lz4, pages by zstd, and who makes fresh ones.
#[derive(Clone, Debug, PartialEq)]
struct Summary {
    ratio: f64,
    lz4_pages: u64,
    zstd_pages: u64,
    fresh: String,
}

/// Asks for a summary and reads it.
fn summary(running: &mut Running) -> Summary {
    let count = |running: &Running| running.stderr().matches("fresh ones by").count();
    let before = count(running);
    tree::signal(running.first(), "USR1");
    assert!(
        eventually(Duration::from_secs(60), || count(running) > before),
        "no summary: {}",
        running.stderr()
    );
    let said = running.stderr();
    let line = said.lines().rfind(|line| line.contains("fresh ones by"));
    let words: Vec<&str> = line.unwrap_or("").split([' ', ',', ';']).collect();
    let before = |word: &str| {
        let at = words.iter().position(|other| *other == word);
        let number = at.and_then(|at| words.get(at - 2)?.parse().ok());
        number.unwrap_or_else(|| panic!("no {word} in {line:?}"))
    };
    let ratio = words.iter().find_map(|word| word.strip_suffix(":1"));
    Summary {
        ratio: ratio.and_then(|ratio| ratio.parse().ok()).unwrap_or(0.0),
        lz4_pages: before("lz4"),
        zstd_pages: before("zstd"),
        fresh: words.last().unwrap_or(&"").to_string(),
    }
}

fn sweeps(asked: &Path, codec: &str) -> Running {
    let job = Job::new("/usr/bin/python3")
        .arg(tests_file("programs/sweeps.py"))
        .arg(asked)
        .arg((80 << 20).to_string());
    // Without a disk, and without cold pages, so that fresh ones are all there are.
    let capped = Capped::ram_mib(72)
        .option("--swap", "none")
        .option("--cold-cpu", "0")
        .option("--codec", codec);
    let mut running = job.start_under(&capped);
    running.wait_for_stdout("filled", 1);
    running
}

#[test]
fn the_codec_follows_what_the_program_does() {
    if plain_only() {
        return;
    }
    let files = TempDir::new("codecs");
    let asked = files.file("sweep");
    let mut running = sweeps(&asked, "auto");
    let quiet = summary(&mut running);
    assert_eq!(quiet.fresh, "zstd", "{quiet:?}");
    assert!(quiet.zstd_pages > 10 * quiet.lz4_pages, "{quiet:?}");
    let mut last = quiet.clone();
    let mut becomes = |fresh: &str| {
        let became = eventually(Duration::from_secs(120), || {
            last = summary(&mut running);
            last.fresh == fresh
        });
        assert!(became, "{last:?}: {}", running.stderr());
    };
    std::fs::write(&asked, "").expect("a file");
    becomes("lz4");
    std::fs::remove_file(&asked).expect("it is there");
    becomes("zstd");
    assert!(!running.stdout().contains("wrong"), "{}", running.stdout());
    running.stop().assert_within(72 << 20);
}

#[test]
fn a_quiet_program_is_packed_as_densely_as_by_zstd() {
    if plain_only() {
        return;
    }
    let files = TempDir::new("density");
    let [auto, zstd, lz4] = ["auto", "zstd", "lz4"].map(|codec| {
        let mut running = sweeps(&files.file("never"), codec);
        let found = summary(&mut running);
        running.stop();
        found
    });
    assert!(auto.ratio > zstd.ratio * 0.95, "{auto:?} {zstd:?}");
    assert!(auto.ratio > lz4.ratio * 1.2, "{auto:?} {lz4:?}");
    assert_eq!((lz4.zstd_pages, lz4.fresh.as_str()), (0, "lz4"));
    assert_eq!((zstd.lz4_pages, zstd.fresh.as_str()), (0, "zstd"));
}
