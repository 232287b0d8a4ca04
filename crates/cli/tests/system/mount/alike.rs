//! The same operations on the target and on the source's own filesystem have the same outcome: results, errnos, bytes.

use super::support::{Mounted, drop_pages};
use crate::support::{TempDir, eventually, tests_file, tool};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

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
fn pages_that_stay_are_compressed_harder() {
    let mounted = Mounted::new("cold", &["--ram", "64M", "--admit", "all"]);
    let path = mounted.target().join("file");
    // Words of one vocabulary, in which a dictionary finds much.
    let mut word = 1u32;
    let mut next = || {
        word = word.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        word >> 8
    };
    let words: Vec<String> = (0..2000).map(|_| format!("{:x} ", next())).collect();
    let text: String = (0..2_000_000)
        .map(|_| &words[(next() % 2000) as usize][..])
        .collect();
    std::fs::write(&path, &text).expect("written");
    for _ in 0..2 {
        assert!(std::fs::read(&path).expect("read") == text.as_bytes());
        drop_pages(&path);
    }
    let before = mounted.stats();
    let ratio = |stats: &serde_json::Value| stats["compression_ratio"].as_f64();
    let mut more = 0;
    assert!(
        eventually(Duration::from_secs(90), || {
            // A dictionary is learned from pages that come: those of the file may
            // all have come before the thread that learns had a processor.
            let part = mounted.target().join(format!("more{more}"));
            more += 1;
            std::fs::write(&part, &text[..1 << 20]).expect("written");
            drop_pages(&part);
            assert!(std::fs::read(&part).expect("read") == text.as_bytes()[..1 << 20]);
            std::thread::sleep(Duration::from_millis(500));
            mounted.stats()["cold_pages"].as_u64() > Some(1000)
        }),
        "{}",
        mounted.stats()
    );
    let after = mounted.stats();
    assert!(ratio(&after) > ratio(&before), "{before} {after}");
    assert!(std::fs::read(&path).expect("read") == text.as_bytes());
    let stats = mounted.finish();
    assert!(stats["hit_pages"].as_u64() > Some(1000), "{stats}");
    assert!(stats["cold_cpu_ns"].as_u64() > Some(0), "{stats}");
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

/// What random operations do not come to: calls that Python has no function for, or that need a second process.
const FEATURES: &str = "
import ctypes, errno, fcntl, mmap, os, subprocess, sys
os.chdir(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)

def renameat2(old, new, flags):
    result = libc.renameat2(-100, old.encode(), -100, new.encode(), flags)
    return 'done' if result == 0 else errno.errorcode[ctypes.get_errno()]

open('one', 'w').write('1')
open('two', 'w').write('2')
print('no-replace', renameat2('one', 'two', 1))
print('exchange', renameat2('one', 'two', 2), open('one').read(), open('two').read())
print('no-replace', renameat2('one', 'three', 1), sorted(os.listdir()))

fd = os.open('.', os.O_TMPFILE | os.O_RDWR, 0o640)
os.write(fd, b'unnamed')
print('unnamed', os.fstat(fd).st_nlink, sorted(os.listdir()))
assert libc.linkat(-100, f'/proc/self/fd/{fd}'.encode(), -100, b'named', 0x400) == 0
print('named', open('named').read(), oct(os.stat('named').st_mode))

fd = os.open('direct', os.O_CREAT | os.O_RDWR | os.O_DIRECT)
buffer = mmap.mmap(-1, 65536)
buffer[:] = bytes(range(256)) * 256
print('direct', os.pwritev(fd, [buffer], 4096))
buffer[:] = bytes(65536)
print(os.preadv(fd, [buffer], 8192), buffer[:4] == bytes(4), buffer[4096:4100] == bytes(range(4)), os.fstat(fd).st_size)

fd = os.open('large', os.O_CREAT | os.O_RDWR)
os.pwrite(fd, b'far away', 5 << 40)
print('large', os.fstat(fd).st_size, os.pread(fd, 100, 5 << 40), os.pread(fd, 3, 3 << 40))
os.ftruncate(fd, 0)

one, two = os.open('two', os.O_RDWR), os.open('two', os.O_RDWR)
fcntl.flock(one, fcntl.LOCK_EX)
try:
    fcntl.flock(two, fcntl.LOCK_EX | fcntl.LOCK_NB)
    print('flock: granted twice')
except OSError as error:
    print('flock', errno.errorcode[error.errno])
fcntl.lockf(one, fcntl.LOCK_EX, 10, 5)
script = 'import fcntl, os\\nfcntl.lockf(os.open(\"two\", os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, {})'
for at in (4, 5, 14, 15):
    print('lock at', at, subprocess.run(['python3', '-c', script.format(at)], stderr=subprocess.DEVNULL).returncode)

acl = bytes.fromhex('02000000' '01000600ffffffff' '0200040001000000' '04000400ffffffff' '10000600ffffffff' '20000000ffffffff')
os.setxattr('two', 'system.posix_acl_access', acl)
print('access list', os.getxattr('two', 'system.posix_acl_access') == acl, oct(os.stat('two').st_mode))
os.mkdir('folder')
os.setxattr('folder', 'system.posix_acl_default', acl)
os.umask(0o077)
open('folder/file', 'w').close()
os.mkdir('folder/inner')
print('inherited', oct(os.stat('folder/file').st_mode), os.listxattr('folder/file'), oct(os.stat('folder/inner').st_mode))
open('masked', 'w').close()
print('masked', oct(os.stat('masked').st_mode))

fd = os.open('gone', os.O_CREAT | os.O_RDWR)
os.unlink('gone')
os.write(fd, b'still here')
print('unlinked', os.pread(fd, 100, 0), os.fstat(fd).st_nlink, sorted(os.listdir()))
names = [f'name{number}' for number in range(3000)]
for name in names:
    open('folder/' + name, 'w').close()
found = set(os.listdir('folder'))
print('many', found >= set(names), len(found), len(list(os.scandir('folder'))))
print('filesystem', os.statvfs('.').f_bsize, os.statvfs('.').f_blocks, os.statvfs('.').f_namemax)
try:
    os.open('x' * 256, os.O_CREAT)
except OSError as error:
    print('long name', errno.errorcode[error.errno])
";

#[test]
fn rare_calls_have_the_same_outcome() {
    let plain = TempDir::new("features-plain");
    let mounted = Mounted::new("features", &["--ram", "32M"]);
    let run = |directory: &Path| {
        let directory = directory.to_str().expect("a path of the tests");
        super::support::python(FEATURES, &[directory])
    };
    let (expected, found) = (run(plain.path()), run(&mounted.target()));
    assert!(
        expected == found,
        "the filesystem says\n{expected}\nand zcache mount\n{found}"
    );
}
