//! `zcache mount --remote`: pages of a tree that RAM has no room for come from servers. Whatever these do, the tree shows what the source has.
//!
//! The source becomes slow, so that servers are cheaper to read from.

use super::proxy::{Answers, Proxy};
use super::server::{Server, Setup};
use crate::mount::support::{Mounted, python};
use crate::support::{TempDir, eventually, plain_only, tests_file};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

/// Makes a file of pages that shrink to about a half, each of which says its number and the file's generation.
const MAKE: &str = "
import os, random, sys
path, pages, generation = sys.argv[1], int(sys.argv[2]), sys.argv[3]
words = [random.Random(n).randbytes(10) for n in range(4000)]
with open(path, 'r+b' if generation != '0' else 'wb') as file:
    for number in range(pages):
        chosen = random.Random(number).choices(words, k=420)
        file.write((b'%s %08d ' % (generation.encode(), number) + b''.join(chosen))[:4096])
    file.flush()
    os.fsync(file.fileno())
    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
";

/// Reads a file in the order of its pages, or in a random one, and checks every byte. Linux keeps none of it.
const CHECK: &str = "
import mmap, os, random, sys, time
path, pages, generation, order = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
words = [random.Random(n).randbytes(10) for n in range(4000)]
numbers = list(range(pages))
if order == 'random':
    random.shuffle(numbers)
file = os.open(path, os.O_RDONLY)
os.fsync(file)
os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
if order == 'random':
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
longest = 0
for number in numbers:
    begun = time.monotonic()
    page = os.pread(file, 4096, number * 4096)
    longest = max(longest, time.monotonic() - begun)
    chosen = random.Random(number).choices(words, k=420)
    expected = (b'%s %08d ' % (generation.encode(), number) + b''.join(chosen))[:4096]
    assert page == expected, (number, page[:20], expected[:20])
os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
print(longest)
";

/// 23 MiB, which hardly shrink.
const PAGES: u32 = 6_000;

/// After this long a change is old enough for pages to be kept beyond the next open.
const SETTLED: Duration = Duration::from_millis(2500);

/// A directory as a slow filesystem shows it.
struct SlowSource {
    server: Child,
    at: PathBuf,
}

impl SlowSource {
    fn of(directory: &Path, at: PathBuf) -> SlowSource {
        std::fs::create_dir(&at).expect("a directory");
        // The module is the system's Python's.
        let mut command = Command::new("/usr/bin/python3");
        command.arg(tests_file("mount/slow_source.py"));
        let server = command.arg(directory).arg(&at).spawn();
        let server = server.expect("python3 runs (python3-fusepy)");
        let there = || at.join("file").exists();
        assert!(eventually(Duration::from_secs(20), there), "python3-fusepy");
        SlowSource { server, at }
    }
}

impl Drop for SlowSource {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.at).output();
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// A mounted tree with one file.
struct Tree {
    mounted: Mounted,
    _source: SlowSource,
}

impl Tree {
    fn over(url: &str, options: &[&str]) -> Tree {
        let files = TempDir::new("remote-mount");
        let real = files.file("real");
        std::fs::create_dir(&real).expect("a directory");
        let path = real.join("file");
        python(MAKE, &[path.to_str().unwrap(), &PAGES.to_string(), "0"]);
        // A file that was changed just now is not trusted yet.
        std::thread::sleep(SETTLED);
        let source = SlowSource::of(&real, files.file("source"));
        let mut words = vec!["--ram", "16M", "--admit", "all", "--remote", url];
        words.extend(options);
        let tree = Tree {
            mounted: Mounted::over(files, &words),
            _source: source,
        };
        tree.check("0", "random");
        std::fs::write(real.join("slow"), "").expect("a file");
        tree
    }

    /// Reads all of the file through the mount; how long the longest read took.
    fn check(&self, generation: &str, order: &str) -> Duration {
        let path = self.mounted.target().join("file");
        let arguments = [
            path.to_str().unwrap(),
            &PAGES.to_string(),
            generation,
            order,
        ];
        let longest = python(CHECK, &arguments);
        Duration::from_secs_f64(longest.trim().parse().expect("seconds"))
    }

    fn count(&self, name: &str) -> u64 {
        self.mounted.stats()[name].as_u64().expect("a number")
    }

    fn pid(&self) -> String {
        self.mounted.server().to_string()
    }
}

#[test]
fn a_tree_larger_than_the_budget_comes_from_the_server() {
    if plain_only() {
        return;
    }
    let server = Server::start();
    let tree = Tree::over(&server.url(), &[]);
    tree.check("0", "random");
    let missed = tree.count("missed_pages");
    tree.check("0", "in order");
    tree.check("0", "random");
    let stats = tree.mounted.stats();
    let missed = stats["missed_pages"].as_u64().unwrap() - missed;
    assert!(
        missed < u64::from(PAGES) / 4,
        "{missed} of {}: {stats:#}",
        2 * PAGES
    );
    assert!(
        stats["swapin_pages"].as_u64().unwrap() > u64::from(PAGES),
        "{stats:#}"
    );
    assert_eq!(stats["tiers"][0]["tier"], "remote");
    let (peak, budget) = (&stats["ram_bytes_peak"], &stats["ram_bytes_budget"]);
    assert!(peak.as_u64() <= budget.as_u64(), "{stats:#}");
    assert!(server.key_names().len() > 100);
    tree.mounted.finish();
    let gone = || server.key_names().is_empty();
    assert!(
        eventually(Duration::from_secs(10), gone),
        "{:?}",
        server.key_names()
    );
}

#[test]
fn what_is_changed_is_not_taken_from_the_server() {
    if plain_only() {
        return;
    }
    let server = Server::start();
    let tree = Tree::over(&server.url(), &[]);
    tree.check("0", "in order");
    for (generation, path) in [
        ("1", tree.mounted.target().join("file")),
        ("2", tree.mounted.source().join("file")),
    ] {
        assert!(tree.count("swapped_pages") > 1000);
        python(
            MAKE,
            &[path.to_str().unwrap(), &PAGES.to_string(), generation],
        );
        tree.check(generation, "random");
        tree.check(generation, "in order");
    }
}

#[test]
fn a_server_that_dies_hangs_or_comes_back_empty_costs_time_and_no_byte() {
    if plain_only() {
        return;
    }
    let mut server = Server::start();
    let tree = Tree::over(&server.url(), &[]);
    tree.check("0", "random");
    server.signal("STOP");
    let longest = tree.check("0", "random");
    eprintln!("the longest read beside a server that hangs took {longest:?}");
    assert!(longest < Duration::from_secs(5), "{longest:?}");
    server.signal("CONT");
    server.kill();
    let longest = tree.check("0", "random");
    assert!(longest < Duration::from_secs(5), "{longest:?}");
    server.restart();
    let came_back = || {
        let before = tree.count("swapin_pages");
        tree.check("0", "random");
        tree.count("swapin_pages") > before + 1000
    };
    assert!(
        eventually(Duration::from_secs(60), came_back),
        "{:#}",
        tree.mounted.stats()
    );
}

#[test]
#[ignore = "takes long"]
fn a_server_that_is_full_keeps_the_newest() {
    if plain_only() {
        return;
    }
    let server = Setup::new().option("maxmemory", "11mb").start();
    let tree = Tree::over(&server.url(), &[]);
    for _ in 0..2 {
        tree.check("0", "random");
    }
    let (before, written) = (tree.count("swapin_pages"), tree.count("writeback_pages"));
    tree.check("0", "random");
    let stats = tree.mounted.stats();
    assert!(tree.count("swapin_pages") > before + 500, "{stats:#}");
    assert!(tree.count("writeback_pages") > written + 500, "{stats:#}");
}

#[test]
#[ignore = "takes long"]
fn a_limit_of_ours_is_kept() {
    if plain_only() {
        return;
    }
    let server = Server::start();
    let tree = Tree::over(&server.url(), &["-o", "remote-max=6M"]);
    for _ in 0..2 {
        tree.check("0", "random");
    }
    let stats = tree.mounted.stats();
    let kept = stats["tiers"][0]["kept_bytes"].as_u64().unwrap();
    assert!((3 << 20..=6 << 20).contains(&kept), "{stats:#}");
    assert!(stats["swapin_pages"].as_u64().unwrap() > 500, "{stats:#}");
}

#[test]
#[ignore = "takes long"]
fn a_server_that_answers_other_bytes_is_not_believed() {
    if plain_only() {
        return;
    }
    let server = Server::start();
    let proxy = Proxy::before(server.port);
    let tree = Tree::over(&proxy.url(), &["--remote-seal", "never"]);
    tree.check("0", "random");
    proxy.answer(Answers::OtherBytes);
    tree.check("0", "random");
    assert!(
        proxy.changed() > 50,
        "{} replies were changed",
        proxy.changed()
    );
}

#[test]
fn a_mount_that_is_killed_leaves_keys_that_end() {
    if plain_only() {
        return;
    }
    let server = Server::start();
    let tree = Tree::over(&server.url(), &[]);
    let killed = Command::new("kill").args(["-KILL", &tree.pid()]).status();
    assert!(killed.expect("kill runs").success());
    server.assert_all_keys_end();
}

#[test]
fn a_server_that_is_not_there_is_said_at_the_start() {
    if plain_only() {
        return;
    }
    let files = TempDir::new("remote-mount-refused");
    for name in ["source", "target"] {
        std::fs::create_dir(files.file(name)).expect("a directory");
    }
    for (option, why) in [
        ("remote=redis://127.0.0.1:1", "refused"),
        ("remote=http://127.0.0.1", "--remote"),
        ("remote-durability=disk", "no such option"),
        ("remote-seal=perhaps", "off-host, always or never"),
    ] {
        let output = Command::new(crate::support::zcache())
            .args(["mount", "-o", option])
            .args([files.file("source"), files.file("target")])
            .output()
            .expect("zcache runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{option}: {said}");
        assert!(said.contains(why), "{option}: {said}");
    }
}
