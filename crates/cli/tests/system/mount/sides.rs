//! One file worked on from both sides at a time, in every way: whatever was read while it changed, nothing old and nothing torn is
//! kept, and no write is lost.

use super::support::{Mounted, python};

/// Rounds of work by several processes, each on pages of its own, while others read all and have pages dropped. After each round
/// every way to read gives what the source has, and each page what its owner wrote last.
const WORK: &str = "
import mmap, os, random, signal, sys, time
outer, inner, seed, watched = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] == 'watched'
print('seed', seed)
PAGES, PAGE, SIDES = 96, 4096, 4
size = PAGES * PAGE
open(outer, 'wb').write(bytes(size))
# What each page was filled with last, told by its owner after the write was acknowledged.
last = mmap.mmap(-1, PAGES)

stopping = False

def stop(*_):
    global stopping
    stopping = True

def owned(side, rng):
    # Asked for once before each write: a writer ends between two of them.
    if stopping:
        os._exit(0)
    return rng.randrange(PAGES // SIDES) * SIDES + side

def write_beside(rng, side=0):
    fd = os.open(inner, os.O_RDWR)
    while True:
        page, byte = owned(side, rng), rng.randrange(256)
        os.pwrite(fd, bytes([byte]) * PAGE, page * PAGE)
        last[page] = byte
        if rng.random() < 0.1:
            time.sleep(0.001)

def write_through(rng, side=1):
    fd = os.open(outer, os.O_RDWR)
    while True:
        page, byte = owned(side, rng), rng.randrange(256)
        cut = rng.randrange(1, PAGE)
        os.pwrite(fd, bytes([byte]) * cut, page * PAGE)
        os.pwrite(fd, bytes([byte]) * (PAGE - cut), page * PAGE + cut)
        last[page] = byte
        if rng.random() < 0.02:
            os.close(fd)
            fd = os.open(outer, os.O_RDWR)

def map_through(rng, side=2):
    fd = os.open(outer, os.O_RDWR)
    view = mmap.mmap(fd, size)
    while True:
        page, byte = owned(side, rng), rng.randrange(256)
        view[page * PAGE:(page + 1) * PAGE] = bytes([byte]) * PAGE
        view.flush(page * PAGE, PAGE)
        last[page] = byte

def replace_beside(rng, side=3):
    # Short writes that make and fill holes.
    fd = os.open(inner, os.O_RDWR)
    while True:
        page, byte = owned(side, rng), rng.randrange(256)
        for at in range(0, PAGE, 512):
            os.pwrite(fd, bytes([byte]) * 512, page * PAGE + at)
        last[page] = byte

def read_through(rng):
    view = None
    while True:
        fd = os.open(outer, os.O_RDONLY)
        for _ in range(rng.randrange(1, 20)):
            os.pread(fd, rng.choice([1, PAGE, 16 * PAGE, size]), rng.randrange(PAGES) * PAGE)
        if rng.random() < 0.5:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)

def started(work, number):
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGTERM, stop)
        try:
            work(random.Random(number))
        finally:
            os._exit(1)
    return child

def compare(round_, way, found, source):
    for page in range(PAGES):
        one, other = (bytes[page * PAGE:(page + 1) * PAGE] for bytes in (found, source))
        assert one == other, f'round {round_}, {way}: page {page} (side {page % SIDES}) has {set(one)}, the source {set(other)}'

held = os.open(outer, os.O_RDONLY)
view = mmap.mmap(held, size, prot=mmap.PROT_READ)
for round_ in range(8):
    works = [write_beside, write_through, map_through, replace_beside]
    writers = [started(work, seed * 1000 + round_ * 10 + n) for n, work in enumerate(works)]
    readers = [started(read_through, seed * 1000 + round_ * 10 + 5 + n) for n in range(2)]
    time.sleep(0.7)
    for child in writers:
        os.kill(child, signal.SIGTERM)
    for child in writers:
        assert os.waitpid(child, 0)[1] == 0
    for child in readers:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    source = open(inner, 'rb').read()
    for page in range(PAGES):
        assert source[page * PAGE:(page + 1) * PAGE] == bytes([last[page]]) * PAGE, f'page {page} was written and is lost'
    for turn in range(3):
        fd = os.open(outer, os.O_RDONLY)
        compare(round_, f'open {turn}', os.pread(fd, size, 0), source)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        compare(round_, f'again {turn}', b''.join(os.pread(fd, PAGE, page * PAGE) for page in range(PAGES)), source)
        os.close(fd)
    if watched:
        end = time.monotonic() + 20
        while time.monotonic() < end and (view[:] != source or os.pread(held, size, 0) != source):
            time.sleep(0.001)
        compare(round_, 'mapping', view[:], source)
        compare(round_, 'open all the time', os.pread(held, size, 0), source)
";

fn work(name: &str, options: &[&str], watched: &str) {
    let mounted = Mounted::new(name, options);
    let paths = [mounted.target(), mounted.source()].map(|path| path.join("file"));
    let [outer, inner] = paths.map(|path| path.to_str().expect("a path").to_owned());
    let seed = std::env::var("ZCACHE_MOUNT_SEED").unwrap_or_else(|_| "1".into());
    println!("ZCACHE_MOUNT_SEED={seed}");
    python(WORK, &[&outer, &inner, &seed, watched]);
    let stats = mounted.finish();
    assert_eq!(stats["damaged_pages"], 0, "{stats}");
    assert!(stats["admitted_pages"].as_u64() > Some(0), "{stats}");
}

#[test]
fn nothing_old_and_nothing_torn_is_kept_with_a_watch() {
    work(
        "sides-watch",
        &["--ram", "16M", "--admit", "all"],
        "watched",
    );
}

#[test]
fn nothing_old_and_nothing_torn_is_kept_without() {
    let options = ["--ram", "16M", "--admit", "all", "--no-watch"];
    work("sides-nowatch", &options, "not");
}
