//! A model of POSIX and of "changed beside" (`tests/mount/model`): seeded schedules of operations through the mount and beside it, each
//! done also on a twin of the source, which says what must come of it; zcache killed and stopped, the source frozen and full among
//! them.

use super::disk::SmallDisk;
use super::support::{Mounted, wait_until_dead};
use crate::support::{TempDir, tests_file, tool};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Operations of one schedule.
const COUNT: &str = "2000";

/// How long schedules are begun, unless this says otherwise.
const SECONDS: &str = "ZCACHE_MOUNT_SECONDS";
const SECONDS_SHORT: u64 = 12;

const DISK_BYTES: u64 = 400 << 20;

/// What a schedule runs on.
#[derive(Clone, Copy, Debug)]
struct Setting {
    source: &'static str,
    watched: bool,
    options: &'static [&'static str],
}

const SETTINGS: [Setting; 6] = [
    Setting {
        source: "ext4",
        watched: true,
        options: &["--ram", "16M", "--admit", "all"],
    },
    Setting {
        source: "ext4",
        watched: false,
        options: &["--ram", "16M", "--admit", "all", "--no-watch"],
    },
    Setting {
        source: "xfs",
        watched: true,
        options: &["--ram", "32M"],
    },
    Setting {
        source: "btrfs",
        watched: true,
        options: &["--ram", "32M", "--admit", "all", "--threads", "1"],
    },
    Setting {
        source: "tmpfs",
        watched: true,
        options: &["--ram", "32M", "--admit", "all"],
    },
    Setting {
        source: "ext4",
        watched: true,
        options: &["--ram", "64M", "--threads", "1"],
    },
];

fn disk(files: &TempDir, source: &str) -> SmallDisk {
    match source {
        "ext4" => SmallDisk::ext4(files, DISK_BYTES, 0),
        "xfs" => SmallDisk::xfs(files, DISK_BYTES),
        "btrfs" => SmallDisk::btrfs(files, DISK_BYTES, DISK_BYTES),
        _ => SmallDisk::tmpfs(files, 64 << 20),
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path of the tests")
}

/// Things that end by themselves a little later.
#[derive(Default)]
struct Later(Vec<JoinHandle<()>>);

impl Later {
    fn after(&mut self, millis: &str, work: impl FnOnce() + Send + 'static) {
        let pause = Duration::from_millis(millis.parse().expect("milliseconds"));
        self.0.push(std::thread::spawn(move || {
            std::thread::sleep(pause);
            work();
        }));
    }

    fn all_over(&mut self) {
        for one in self.0.drain(..) {
            one.join().expect("it ends");
        }
    }
}

fn signal(server: u32, name: &str) {
    let mut command = Command::new("kill");
    command.args(["-s", name, &server.to_string()]);
    tool("procps", &mut command);
}

fn freeze(source: &Path, flag: &str) {
    tool("util-linux", Command::new("fsfreeze").arg(flag).arg(source));
}

/// Makes an event that the schedule asks for.
fn happen(mounted: &Mounted, words: &[&str], later: &mut Later) {
    match *words {
        ["freeze", millis] => {
            // One thing at a time.
            later.all_over();
            let source = mounted.source();
            freeze(&source, "-f");
            later.after(millis, move || freeze(&source, "-u"));
        }
        ["stop", millis] => {
            later.all_over();
            let server = mounted.server();
            signal(server, "STOP");
            later.after(millis, move || signal(server, "CONT"));
        }
        ["kill", millis] => {
            let server = mounted.server();
            later.after(millis, move || signal(server, "KILL"));
        }
        ["mount"] => {
            later.all_over();
            wait_until_dead(&mounted.target());
            let output = mounted.unmount();
            assert!(output.status.success(), "{output:?}");
            mounted.mount();
        }
        _ => panic!("no such event: {words:?}"),
    }
}

fn events(source: &str) -> Vec<&'static str> {
    let mut events = vec![
        "compare",
        "drop_caches",
        "stop",
        "kill",
        "fill",
        "read_only",
    ];
    if source != "tmpfs" {
        events.push("freeze");
    }
    events
}

/// Runs the schedule of a seed.
fn schedule(seed: u64, setting: Setting) {
    let files = [TempDir::new("model"), TempDir::new("model-twin")];
    let [_disk, twin] = [0, 1].map(|side: usize| disk(&files[side], setting.source));
    let [files, _twin_files] = files;
    let options = [setting.options, &["-o", "suid,dev"]].concat();
    let mounted = Mounted::over(files, &options);
    let watched = if setting.watched {
        "watched"
    } else {
        "unwatched"
    };
    println!("ZCACHE_MOUNT_SEED={seed} {setting:?}");
    let mut command = Command::new("timeout");
    command.args(["-s", "KILL", "300", "python3"]);
    command.arg(tests_file("mount/model"));
    command.args([
        path(&mounted.target()),
        path(&mounted.source()),
        path(twin.at()),
    ]);
    command.args([&seed.to_string(), COUNT, watched]);
    command.args(events(setting.source));
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut model = command.spawn().expect("python3 runs");
    let mut answers = model.stdin.take().expect("a pipe");
    let mut later = Later::default();
    for line in BufReader::new(model.stdout.take().expect("a pipe")).lines() {
        let line = line.expect("a line");
        let words: Vec<&str> = line.split(' ').collect();
        let ["event", words @ ..] = &words[..] else {
            println!("{line}");
            continue;
        };
        happen(&mounted, words, &mut later);
        writeln!(answers, "done").expect("it waits for an answer");
    }
    later.all_over();
    let status = model.wait().expect("a child");
    assert!(status.success(), "ZCACHE_MOUNT_SEED={seed}: {status}");
    let stats = mounted.finish();
    assert_eq!(stats["damaged_pages"], 0, "{stats}");
    let (peak, budget) = (&stats["ram_bytes_peak"], &stats["ram_bytes_budget"]);
    assert!(peak.as_u64() <= budget.as_u64(), "{stats}");
}

#[test]
fn both_sides_and_a_twin_agree_by_seeded_schedules() {
    let number = |name: &str| {
        let text = std::env::var(name).ok();
        text.map(|text| text.parse::<u64>().expect("a number"))
    };
    let first = number("ZCACHE_MOUNT_SEED");
    let end = Instant::now() + Duration::from_secs(number(SECONDS).unwrap_or(SECONDS_SHORT));
    let mut seed = first.unwrap_or(1);
    loop {
        let setting = SETTINGS[(seed % SETTINGS.len() as u64) as usize];
        schedule(seed, setting);
        seed += 1;
        // A seed that was asked for is one schedule, unless a time was as well.
        let only = first.is_some() && number(SECONDS).is_none();
        if only || Instant::now() >= end {
            break;
        }
    }
}
