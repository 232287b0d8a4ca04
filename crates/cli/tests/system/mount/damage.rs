//! Bits of zcache's RAM that flip: the bytes come from the source, and the mount goes on.

use super::support::{Mounted, python};

/// Flips so many bits of where the store has its pages and tables, between reads and writes of a file that is kept.
const FLIPS: &str = "
import array, os, random, sys
outer, server, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
print('seed', seed)
rng = random.Random(seed)
PAGE, PAGES = 4096, 3000
words = [bytes([n]) * rng.randrange(8, 80) for n in range(200)]
pages = [(rng.randbytes(900) + b''.join(rng.choices(words, k=90)) + bytes(PAGE))[:PAGE] for _ in range(PAGES)]
open(outer, 'wb').write(b''.join(pages))
fd = os.open(outer, os.O_RDWR)
os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)

def read(number):
    os.posix_fadvise(fd, number * PAGE, PAGE, os.POSIX_FADV_DONTNEED)
    assert os.pread(fd, PAGE, number * PAGE) == pages[number], f'page {number} is wrong'

for number in range(PAGES):
    read(number)
memory = open(f'/proc/{server}/mem', 'r+b', buffering=0)

def resident():
    # The store has its frames in long ranges; the rooms of threads are shorter, and their stacks hardly used.
    found = []
    pagemap = open(f'/proc/{server}/pagemap', 'rb', buffering=0)
    for line in open(f'/proc/{server}/maps'):
        fields = line.split()
        first, end = (int(part, 16) for part in fields[0].split('-'))
        if fields[1] == 'rw-p' and len(fields) == 5 and end - first > 5 << 18:
            pagemap.seek(first // PAGE * 8)
            entries = array.array('Q', pagemap.read((end - first) // PAGE * 8))
            there = [first + number * PAGE for number, entry in enumerate(entries) if entry >> 63]
            found += there if len(there) > 300 else []
    return found

places = resident()
assert len(places) > 400, f'only {len(places)} pages of the store found'
for turn in range(60):
    for _ in range(20):
        at = rng.choice(places) + rng.randrange(PAGE)
        memory.seek(at)
        old = memory.read(1)[0]
        memory.seek(at)
        memory.write(bytes([old ^ 1 << rng.randrange(8)]))
    for _ in range(200):
        number = rng.randrange(PAGES)
        if rng.random() < 0.3:
            pages[number] = rng.randbytes(1000) + pages[number][1000:]
            os.pwrite(fd, pages[number], number * PAGE)
        read(number)
for number in range(PAGES):
    read(number)
";

#[test]
fn flipped_bits_are_read_from_the_source_and_counted() {
    let options = ["--ram", "64M", "--admit", "all", "--cold-cpu", "0"];
    let mounted = Mounted::new("flips", &options);
    let server = mounted.server().to_string();
    let threads = || {
        std::fs::read_dir(format!("/proc/{server}/task"))
            .expect("it lives")
            .count()
    };
    let path = mounted.target().join("file");
    let seed = std::env::var("ZCACHE_MOUNT_SEED").unwrap_or_else(|_| "1".into());
    let before = threads();
    python(FLIPS, &[path.to_str().expect("a path"), &server, &seed]);
    assert!(
        threads() >= before,
        "{} of {before} threads are left",
        threads()
    );
    let stats = mounted.finish();
    assert!(stats["damaged_pages"].as_u64() > Some(0), "{stats}");
    assert!(stats["hit_pages"].as_u64() > Some(3000), "{stats}");
}
