//! Changes beside the mount where the source's filesystem is watched, and what of it is there where it is not.

use super::support::{Mounted, drop_pages, python};
use std::process::Command;
use std::time::{Duration, Instant};

const WATCHED: &[&str] = &["--ram", "32M", "--admit", "all"];
const UNWATCHED: &[&str] = &["--ram", "32M", "--admit", "all", "--no-watch"];

/// How long the kernel believes attributes and names: without a watch a change takes so long to be seen.
const LIFETIME: Duration = Duration::from_secs(1);

/// Runs a script with the paths of the same name in the target and in the source.
fn both(mounted: &Mounted, script: &str) -> String {
    let paths = [mounted.target(), mounted.source()].map(|path| path.join("file"));
    let [outer, inner] = paths.map(|path| path.to_str().expect("a path").to_owned());
    python(script, &[&outer, &inner])
}

/// Changes beside that leave no trace in size and time of modification, seen by a descriptor and a mapping that stay open.
const OPEN_FILE: &str = "
import mmap, os, sys, time
outer, inner = sys.argv[1:]
size = 9 * 4096
open(inner, 'wb').write(bytes(size))
fd = os.open(outer, os.O_RDONLY)
view = mmap.mmap(fd, size, prot=mmap.PROT_READ)
beside = os.open(inner, os.O_RDWR)
for number in range(1, 21):
    stat = os.fstat(beside)
    assert set(view[:]) == {number - 1}
    os.pwrite(beside, bytes([number]) * size, 0)
    os.utime(beside, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    while set(view[:]) != {number} or set(os.pread(fd, size, 0)) != {number}:
        time.sleep(0.001)
";

#[test]
fn an_open_file_and_a_mapping_see_a_change_at_once() {
    let mounted = Mounted::new("watch-open", WATCHED);
    let start = Instant::now();
    both(&mounted, OPEN_FILE);
    assert!(start.elapsed() < 20 * LIFETIME / 2, "{:?}", start.elapsed());
    let stats = mounted.finish();
    assert_eq!(stats["watched"], true, "{stats}");
    assert!(stats["watched_changes"].as_u64() >= Some(20), "{stats}");
    assert!(stats["notices"].as_u64() >= Some(20), "{stats}");
}

#[test]
fn names_and_attributes_changed_beside_are_seen_at_once() {
    let mounted = Mounted::new("watch-names", WATCHED);
    let script = "
import os, sys, time
outer, inner = sys.argv[1:]

def eventually(condition):
    while True:
        try:
            if condition():
                return
        except FileNotFoundError:
            pass
        time.sleep(0.001)

for number in range(10):
    open(inner, 'w').write(str(number))
    eventually(lambda: open(outer).read() == str(number))
    os.chmod(inner, 0o600 + number % 8)
    eventually(lambda: os.stat(outer).st_mode & 0o777 == 0o600 + number % 8)
    open(inner + '.new', 'w').write('replaced')
    os.stat(outer + '.new')
    os.rename(inner + '.new', inner)
    eventually(lambda: open(outer).read() == 'replaced')
    eventually(lambda: not os.path.exists(outer + '.new'))
    os.unlink(inner)
    eventually(lambda: not os.path.exists(outer))
";
    let start = Instant::now();
    both(&mounted, script);
    // Each of the ten rounds makes four changes that would be seen after the lifetime only.
    assert!(start.elapsed() < 20 * LIFETIME, "{:?}", start.elapsed());
}

/// A file that is written and read again by ever new descriptors keeps its pages; what somebody else writes is seen.
const DATABASE: &str = "
import os, random, sys
outer, inner = sys.argv[1:]
rng = random.Random(3)
pages = 200
model = bytearray(rng.randbytes(pages * 4096))
open(outer, 'wb').write(model)
beside = os.open(inner, os.O_RDWR)

def check(step):
    fd = os.open(outer, os.O_RDWR)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    found = b''.join(os.pread(fd, 4096, page * 4096) for page in range(pages))
    assert found == model, f'stale at {step}'
    return fd

for step in range(30):
    fd = check(step)
    at = rng.randrange(pages * 4096 - 6000)
    data = rng.randbytes(rng.choice([1, 100, 4096, 6000]))
    os.pwrite(fd, data, at)
    model[at:at + len(data)] = data
    os.close(fd)
    if step % 10 == 9:
        # Unnoticed by size and time of modification, between two writes of ours.
        stat = os.fstat(beside)
        at = rng.randrange(pages) * 4096
        os.pwrite(beside, b'beside' * 600, at)
        model[at:at + 3600] = b'beside' * 600
        os.utime(beside, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        os.close(check(step))
";

#[test]
fn a_file_written_through_the_mount_keeps_its_pages() {
    let mounted = Mounted::new("watch-database", WATCHED);
    both(&mounted, DATABASE);
    let watched = mounted.finish();
    let mounted = Mounted::new("nowatch-database", UNWATCHED);
    both(&mounted, DATABASE);
    let unwatched = mounted.finish();
    let hits = |stats: &serde_json::Value| stats["hit_pages"].as_u64().expect("a number");
    // Of 33 rounds of 200 pages, those after a change beside read anew.
    assert!(hits(&watched) > 4000, "{watched}");
    assert!(hits(&unwatched) < hits(&watched) / 4, "{unwatched}");
    assert_eq!(unwatched["watched"], false, "{unwatched}");
}

/// Attributes that were changed through the mount do not cost the file its pages.
#[test]
fn attributes_changed_through_the_mount_leave_the_pages() {
    let mounted = Mounted::new("watch-attributes", WATCHED);
    let path = mounted.target().join("file");
    std::fs::write(&path, vec![5; 400 << 10]).expect("written");
    drop_pages(&path);
    for mode in [0o600, 0o640, 0o644, 0o755] {
        assert_eq!(std::fs::read(&path).expect("read"), vec![5; 400 << 10]);
        drop_pages(&path);
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(&path, mode).expect("changed");
    }
    let stats = mounted.finish();
    assert!(stats["hit_pages"].as_u64() >= Some(300), "{stats}");
}

#[test]
fn stores_through_a_mapping_beside_are_seen_when_it_is_gone() {
    let mounted = Mounted::new("watch-mapping", WATCHED);
    let script = "
import mmap, os, sys, time
outer, inner = sys.argv[1:]
open(inner, 'wb').write(b'0' * 8192)
fd = os.open(inner, os.O_RDWR)
view = mmap.mmap(fd, 8192)
os.close(fd)
view[0:1] = b'1'
changed = os.stat(inner).st_ctime_ns
time.sleep(2.1)
for _ in range(3):
    assert open(outer, 'rb').read(1) == b'1'
    fd = os.open(outer, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)
# Into a page that is dirty already, which no time tells.
view[0:1] = b'2'
assert os.stat(inner).st_ctime_ns == changed
view.close()
while open(outer, 'rb').read(1) != b'2':
    time.sleep(0.001)
";
    both(&mounted, script);
}

#[test]
fn too_many_changes_to_be_told_are_all_changes() {
    let mounted = Mounted::new("watch-overflow", WATCHED);
    let (inner, outer) = (mounted.source().join("file"), mounted.target().join("file"));
    std::fs::write(&inner, vec![1; 8192]).expect("written");
    let open = std::fs::File::open(&outer).expect("open");
    let read = || {
        let mut bytes = vec![0; 8192];
        std::os::unix::fs::FileExt::read_at(&open, &mut bytes, 0).expect("read");
        bytes
    };
    assert_eq!(read(), vec![1; 8192]);
    let server = mounted.server().to_string();
    let signal = |signal: &str| {
        let sent = Command::new("kill").args([signal, &server]).status();
        assert!(sent.expect("kill runs").success());
    };
    signal("-STOP");
    let queue = std::fs::read_to_string("/proc/sys/fs/fanotify/max_queued_events");
    let queue: u32 = queue.expect("a limit").trim().parse().expect("a number");
    for number in 0..queue / 2 + 1000 {
        // Made and closed: two events and more.
        let path = mounted.source().join(format!("other{number}"));
        std::fs::write(path, "x").expect("written");
    }
    let times = std::fs::metadata(&inner)
        .and_then(|meta| meta.modified())
        .expect("times");
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(&inner)
        .expect("open");
    std::os::unix::fs::FileExt::write_all_at(&file, &[2; 8192], 0).expect("written");
    file.set_modified(times).expect("as before");
    signal("-CONT");
    assert!(
        crate::support::eventually(Duration::from_secs(20), || read() == vec![2; 8192]),
        "the change was lost with its event"
    );
    drop(open);
    let stats = mounted.finish();
    assert!(stats["watch_overflows"].as_u64() > Some(0), "{stats}");
}

/// A write leaves what else the page cache has of a file, and what is read afterwards is right.
const PAGE_CACHE: &str = "
import ctypes, os, random, sys, time
outer = sys.argv[1]
PAGE, PAGES = 4096, 4096
libc = ctypes.CDLL(None, use_errno=True)

def cached(fd):
    counts = (ctypes.c_uint64 * 5)()
    if libc.syscall(451, fd, (ctypes.c_uint64 * 2)(0, 0), counts, 0) != 0:
        print('no cachestat(2)')
        sys.exit()
    return counts[0]

rng = random.Random(3)
model = bytearray(rng.randbytes(PAGES * PAGE))
open(outer, 'wb').write(model)
fd, other = os.open(outer, os.O_RDWR), os.open(outer, os.O_RDONLY)
os.pread(fd, len(model), 0)
least = PAGES
for turn in range(200):
    at, data = rng.randrange(len(model) - 20000), rng.randbytes(rng.choice([1, 4096, 8192, 20000]))
    os.pwrite(fd, data, at)
    model[at:at + len(data)] = data
    at = rng.randrange(len(model) - 20000)
    assert os.pread(other, 20000, at) == model[at:at + 20000], f'turn {turn}'
    least = min(least, cached(fd))
assert least > PAGES * 9 // 10, f'only {least} of {PAGES} pages stayed'
assert os.pread(other, len(model), 0) == model
";

#[test]
fn a_write_leaves_the_other_pages_in_the_page_cache() {
    both(&Mounted::new("watch-page-cache", WATCHED), PAGE_CACHE);
}

#[test]
fn a_filesystem_within_the_source_is_not_watched_but_looked_at() {
    let mounted = Mounted::new("watch-within", WATCHED);
    let within = mounted.source().join("within");
    std::fs::create_dir(&within).expect("a folder");
    let mut command = Command::new("mount");
    crate::support::tool("mount", command.args(["-t", "tmpfs", "none"]).arg(&within));
    let script = "
import os, sys, time
outer, inner = (path.replace('file', 'within/file') for path in sys.argv[1:])
for number in range(3):
    open(inner, 'wb').write(bytes([number]) * 9000)
    fd = os.open(outer, os.O_RDONLY)
    assert os.pread(fd, 9000, 0) == bytes([number]) * 9000
    other = os.open(inner, os.O_RDWR)
    os.pwrite(other, b'beside' * 1500, 0)
    os.close(other)
    time.sleep(1.2)
    assert os.pread(fd, 9000, 0) == b'beside' * 1500
    os.close(fd)
";
    both(&mounted, script);
    crate::support::tool("mount", Command::new("umount").arg("--lazy").arg(&within));
}
