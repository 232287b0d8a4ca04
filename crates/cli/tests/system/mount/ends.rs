//! Where a file ends: nobody reads an end that was, nor is one kept.

use super::support::{Mounted, python};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

/// Reads a last page that is not whole, then makes the file longer somewhere else, again and again.
const GROWING: &str = "
import os, random, sys
outer = sys.argv[1]
PAGE = 4096
# It takes the worker some time to compress, and the write may come meanwhile.
tail = random.Random(1).randbytes(4000)
for number in range(500):
    path = f'{outer}{number}'
    fd = os.open(path, os.O_CREAT | os.O_RDWR)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    os.pwrite(fd, tail, 0)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    assert os.pread(fd, PAGE, 0) == tail
    os.pwrite(fd, b'far', 40 * PAGE)
    for turn in range(2):
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        found = os.pread(fd, PAGE, 0)
        assert found == tail + bytes(96), f'file {number}, turn {turn}: cut off after {len(found)} bytes'
        size = os.fstat(fd).st_size
        assert size == 40 * PAGE + 3, f'file {number}, turn {turn}: {size} bytes'
    os.close(fd)
    os.unlink(path)
";

#[test]
fn a_file_that_grows_elsewhere_is_not_cut_off() {
    let options = ["--ram", "32M", "--admit", "all", "--codec", "zstd"];
    let mounted = Mounted::new("growing", &options);
    let path = mounted.target().join("file");
    python(GROWING, &[path.to_str().expect("a path")]);
}

#[test]
fn the_first_read_after_a_change_beside_finds_the_new_end() {
    let mounted = Mounted::new("end-beside", &["--ram", "32M", "--no-watch"]);
    let script = "
import os, sys, time
outer, inner = sys.argv[1:]
files = []
for number in range(20):
    open(f'{inner}{number}', 'w').write('one\\n')
    fd = os.open(f'{outer}{number}', os.O_RDONLY)
    assert os.read(fd, 100) == b'one\\n' and os.read(fd, 100) == b''
    open(f'{inner}{number}', 'a').write('two\\n')
    files.append(fd)
time.sleep(1.2)
found = [os.read(fd, 100) for fd in files]
assert set(found) == {b'two\\n'}, found
";
    let paths = [mounted.target(), mounted.source()].map(|path| path.join("file"));
    let [outer, inner] = paths.map(|path| path.to_str().expect("a path").to_owned());
    python(script, &[&outer, &inner]);
}

#[test]
fn the_first_open_after_a_change_of_rights_beside_has_the_new_ones() {
    let mounted = Mounted::new("rights-beside", &["--ram", "32M", "--no-watch"]);
    let names: Vec<String> = (0..60).map(|number| format!("file{number}")).collect();
    let set = |mode| {
        for name in &names {
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(mounted.source().join(name), mode).expect("changed beside");
        }
        std::thread::sleep(Duration::from_millis(1200));
    };
    for name in &names {
        std::fs::write(mounted.source().join(name), "bytes").expect("written");
    }
    set(0o644);
    let script = "
import os, sys
os.setgid(65534), os.setuid(65534)
granted = 0
for number in range(60):
    try:
        os.close(os.open(f'{sys.argv[1]}/file{number}', os.O_RDONLY))
        granted += 1
    except PermissionError:
        pass
print(granted)
";
    let target = mounted.target();
    let target = target.to_str().expect("a path");
    for (mode, granted) in [(0o600, "0\n"), (0o644, "60\n"), (0o600, "0\n")] {
        // So that the kernel has pages and attributes of each.
        for name in &names {
            std::fs::read(mounted.target().join(name)).expect("read");
        }
        set(mode);
        assert_eq!(python(script, &[target]), granted, "mode {mode:o}");
    }
}
