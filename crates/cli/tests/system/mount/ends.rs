//! Where a file ends: nobody reads an end that was, nor is one kept.

use super::support::{Mounted, python};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

/// Reads a last page that is not whole, then makes the file longer somewhere else, again and again.
const GROWING: &str = "
import os, sys
outer, inner = sys.argv[1:]
PAGE = 4096
for number in range(300):
    path = f'{outer}{number}'
    fd = os.open(path, os.O_CREAT | os.O_RDWR)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    os.pwrite(fd, b'first', 0)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    assert os.pread(fd, PAGE, 0) == b'first'
    os.pwrite(fd, b'far', 40 * PAGE)
    for turn in range(3):
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        found = os.pread(fd, PAGE, 0)
        assert found == b'first' + bytes(PAGE - 5), f'file {number}, turn {turn}: cut off after {len(found)} bytes'
        size = os.fstat(fd).st_size
        assert size == 40 * PAGE + 3, f'file {number}, turn {turn}: {size} bytes'
    os.close(fd)
    os.unlink(path)
";

#[test]
fn a_file_that_grows_elsewhere_is_not_cut_off() {
    let mounted = Mounted::new("growing", &["--ram", "32M", "--admit", "all"]);
    let paths = [mounted.target(), mounted.source()].map(|path| path.join("file"));
    let [outer, inner] = paths.map(|path| path.to_str().expect("a path").to_owned());
    python(GROWING, &[&outer, &inner]);
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
    let names: Vec<String> = (0..20).map(|number| format!("file{number}")).collect();
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
print(sum(os.access(sys.argv[1] + '/' + name, os.R_OK) for name in os.listdir(sys.argv[1])))
granted = 0
for name in os.listdir(sys.argv[1]):
    try:
        os.close(os.open(sys.argv[1] + '/' + name, os.O_RDONLY))
        granted += 1
    except PermissionError:
        pass
print(granted)
";
    let target = mounted.target();
    let target = target.to_str().expect("a path");
    for (mode, granted) in [(0o644, "20\n20\n"), (0o600, "0\n0\n"), (0o644, "20\n20\n")] {
        set(mode);
        // So that the kernel has pages and attributes of each.
        for name in &names {
            std::fs::read(mounted.target().join(name)).expect("read");
        }
        assert_eq!(python(script, &[target]), granted, "mode {mode:o}");
    }
}
