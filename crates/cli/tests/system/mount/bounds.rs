//! What a mount takes of memory and descriptors, and that limits of whoever started it do not reach into other people's calls.

use super::support::{Mounted, drop_pages, python};
use crate::support::{TempDir, tool, zcache};
use std::path::Path;
use std::process::Command;

const FILES: usize = 60_000;

/// Makes many empty files, in folders of a thousand.
const MANY: &str = "
import os, sys
for number in range(int(sys.argv[2])):
    folder = f'{sys.argv[1]}/{number // 1000}'
    if number % 1000 == 0:
        os.mkdir(folder)
    os.mknod(f'{folder}/{number}')
";

/// Looks at each file, and says how many there were.
fn look_at_all(folder: &Path) -> usize {
    let mut command = Command::new("find");
    command.arg(folder).args(["-type", "f", "-size", "-2"]);
    tool("findutils", &mut command).lines().count()
}

#[test]
fn inodes_are_within_the_budget_and_given_back() {
    let files = TempDir::new("many");
    let source = files.file("source");
    std::fs::create_dir(&source).expect("a source");
    let mixed = |n: u32| (n.wrapping_mul(2_654_435_761) >> 13) as u8;
    let bytes: Vec<u8> = (0..2 << 20).map(mixed).collect();
    std::fs::write(source.join("hot"), &bytes).expect("written");
    python(
        MANY,
        &[source.to_str().expect("a path"), &FILES.to_string()],
    );
    let mounted = Mounted::over(files, &["--ram", "16M"]);
    assert_eq!(look_at_all(&mounted.target()), FILES);
    let stats = mounted.stats();
    let count = |stats: &serde_json::Value, name: &str| stats[name].as_u64().expect("a number");
    let peak = count(&stats, "ram_bytes_peak");
    assert!(peak <= count(&stats, "ram_bytes_budget"), "{stats}");
    // Linux forgets some when it is asked; before 6.18 it is not.
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("Linux tells");
    let mut numbers = release
        .split('.')
        .map(|number| number.parse::<u32>().unwrap_or(0));
    match (numbers.next(), numbers.next()) >= (Some(6), Some(18)) {
        true => assert!(count(&stats, "inodes") < FILES as u64 / 2, "{stats}"),
        false => std::fs::write("/proc/sys/vm/drop_caches", "2").expect("root may"),
    }
    // Pages are kept again as before.
    let hot = mounted.target().join("hot");
    for _ in 0..4 {
        drop_pages(&hot);
        assert!(std::fs::read(&hot).expect("read") == bytes);
        std::thread::sleep(std::time::Duration::from_millis(300));
    }
    let stats = mounted.finish();
    assert!(count(&stats, "admitted_pages") >= 500, "{stats}");
}

#[test]
fn at_the_limit_of_descriptors_look_ups_make_room() {
    let files = TempDir::new("descriptors");
    let [lower, upper, work, source] = ["lower", "upper", "work", "source"].map(|name| {
        let path = files.file(name);
        std::fs::create_dir(&path).expect("a directory");
        path
    });
    // Without handles each inode keeps a descriptor.
    let mut command = Command::new("mount");
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.display(),
        upper.display(),
        work.display()
    );
    command.args(["-t", "overlay", "none", "-o", &options]);
    tool("mount", command.arg(&source));
    python(MANY, &[source.to_str().expect("a path"), "3000"]);
    // Root that may not raise its limits.
    let starter = [
        "setpriv",
        "--bounding-set",
        "-sys_resource",
        "prlimit",
        "--nofile=512:512",
    ];
    let mounted = Mounted::started_by(files, &starter, &["--ram", "32M"]);
    assert_eq!(look_at_all(&mounted.target()), 3000);
    let script = "
import os, sys
held = [os.open(f'{sys.argv[1]}/0/{number}', os.O_RDONLY) for number in range(50)]
for number in range(3000):
    os.stat(f'{sys.argv[1]}/{number // 1000}/{number}')
print(len(held), len(os.listdir(sys.argv[1] + '/1')))
";
    let said = python(script, &[mounted.target().to_str().expect("a path")]);
    assert_eq!(said.trim(), "50 1000");
    assert!(mounted.unmount().status.success());
    let _ = Command::new("umount").arg("--lazy").arg(source).output();
}

#[test]
fn limits_of_whoever_started_it_bind_nobody_else() {
    let files = TempDir::new("limits");
    std::fs::create_dir(files.file("source")).expect("a source");
    let starter = [
        "prlimit",
        "--fsize=65536:unlimited",
        "--nofile=64:4096",
        "--cpu=1:unlimited",
    ];
    let mounted = Mounted::started_by(files, &starter, &["--ram", "32M"]);
    let path = mounted.target().join("long");
    std::fs::write(&path, vec![7; 8 << 20]).expect("longer than the limit");
    let script = "
import os, sys
held = [os.open(f'{sys.argv[1]}/{number}', os.O_RDWR | os.O_CREAT) for number in range(500)]
os.ftruncate(held[0], 1 << 30)
for f in held:
    os.pwrite(f, b'x', 1 << 20)
# More processor time than the limit.
f = os.open(f'{sys.argv[1]}/long', os.O_RDONLY)
for _ in range(150):
    os.posix_fadvise(f, 0, 0, os.POSIX_FADV_DONTNEED)
    assert len(os.pread(f, 8 << 20, 0)) == 8 << 20
";
    python(script, &[mounted.target().to_str().expect("a path")]);
    assert_eq!(std::fs::read(&path).expect("read"), vec![7; 8 << 20]);
    mounted.finish();
}

#[test]
fn what_the_machine_or_the_budget_has_no_room_for_is_refused() {
    let files = TempDir::new("refused");
    for (options, why) in [
        (["--ram", "1000T"].as_slice(), "more than this machine has"),
        (
            &["--ram", "64M", "--threads", "500"],
            "room for the requests of 64 threads",
        ),
    ] {
        let mut command = Command::new(zcache());
        command.arg("mount").args(options);
        command.args([files.path(), &files.file("nowhere")]);
        let output = command.output().expect("zcache runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(125), "{said}");
        assert!(said.contains(why), "{said}");
    }
}
