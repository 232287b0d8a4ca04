//! Stores through mappings of the mount: in the source, or an error says that they are not.

use super::support::{Mounted, python};
use crate::support::{TempDir, tool};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// Leaves so much room, stores more than that, and says who says so and what is there.
const NO_ROOM: &str = "
import mmap, os, sys
outer, inner = sys.argv[1:]
size = 128 << 10
for room in (0, 32 << 10, 64 << 10, 100 << 10, 4 << 20):
    fd = os.open(outer, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    other = os.open(outer, os.O_RDONLY)
    os.ftruncate(fd, size)
    stat = os.statvfs(os.path.dirname(inner))
    with open(inner + '.ballast', 'wb') as ballast:
        ballast.write(bytes([1]) * max(0, stat.f_bfree * stat.f_bsize - room))
    view = mmap.mmap(fd, size)
    view[:] = b'm' * size
    refused = []
    for name, call in (('msync', view.flush), ('fsync', lambda: os.fsync(fd)), ('fsync of another', lambda: os.fsync(other))):
        try:
            call()
        except OSError:
            refused.append(name)
    os.unlink(inner + '.ballast')
    view.close(), os.close(fd), os.close(other)
    stored = open(inner, 'rb').read().count(b'm')
    assert (stored == size) == (refused == []), f'room for {room}: {stored} bytes of {size} are there, refused by {refused}'
    assert refused == [] or 'fsync of another' in refused, refused
    assert stored == size or room < size, f'room for {room}: only {stored} bytes'
    os.unlink(outer)
";

#[test]
fn what_the_source_has_no_room_for_is_an_error() {
    let files = TempDir::new("no-room");
    let source = files.file("source");
    std::fs::create_dir(&source).expect("a source");
    let mut command = Command::new("mount");
    command.args(["-t", "tmpfs", "-o", "size=4M", "none"]);
    tool("mount", command.arg(&source));
    let mounted = Mounted::over(files, &["--ram", "32M"]);
    let paths = [mounted.target(), mounted.source()].map(|path| path.join("file"));
    let [outer, inner] = paths.map(|path| path.to_str().expect("a path").to_owned());
    python(NO_ROOM, &[&outer, &inner]);
}

/// Stores into holes, and what every call and tool makes of them while the mapping lives; none of it has been written back before.
const HOLES: &str = "
import mmap, os, subprocess, sys
os.chdir(sys.argv[1])
PAGE = 4096
# Started before the file is open: a close of a copy of its descriptor would write the pages out.
shell = subprocess.Popen(['sh'], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

def run(command):
    shell.stdin.write(command + '; echo; echo end\\n')
    shell.stdin.flush()
    lines = []
    while (line := shell.stdout.readline()) != 'end\\n':
        lines.append(line.strip())
    return lines

def extents(path):
    fd = os.open(path, os.O_RDONLY)
    found, at, size = [], 0, os.fstat(fd).st_size
    while at < size:
        try:
            data = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:
            break
        at = os.lseek(fd, data, os.SEEK_HOLE)
        found.append((data, at))
    # A close writes nothing that others have stored: it is of another descriptor.
    return found

def case(name, size, data, stores, look):
    fd = os.open('sparse', os.O_CREAT | os.O_RDWR)
    os.ftruncate(fd, size)
    for at in data:
        os.pwrite(fd, b'D' * PAGE, at)
    os.fsync(fd)
    os.stat('sparse')
    view = mmap.mmap(fd, size)
    for at in stores:
        view[at:at + 5] = b'STORE'
    print(name, look())
    view.close(), os.close(fd), os.unlink('sparse')

MIB = 1 << 20
layouts = [('one', MIB, [], [500000]), ('first', MIB, [], [0]), ('last', MIB + 100, [], [MIB + 50]),
           ('between', MIB, [0, 80 * PAGE], [40 * PAGE, 200 * PAGE]), ('many', 4 * MIB, range(0, 4 * MIB, 2 * 16 * PAGE), range(16 * PAGE, 4 * MIB, 6 * 16 * PAGE))]
def copied(command):
    def look():
        run(command)
        return open('copy', 'rb').read() == open('sparse', 'rb').read(), open('copy', 'rb').read().count(b'STORE')
    return look
for layout in layouts:
    case(layout[0] + ' extents', *layout[1:], lambda: extents('sparse'))
    case(layout[0] + ' du', *layout[1:], lambda: run('du -k sparse'))
    case(layout[0] + ' stat', *layout[1:], lambda: os.stat('sparse').st_blocks)
    case(layout[0] + ' cp', *layout[1:], copied('cp sparse copy'))
    case(layout[0] + ' cp --sparse=always', *layout[1:], copied('cp --sparse=always sparse copy'))
    case(layout[0] + ' tar -S', *layout[1:], copied('tar -cSf archive sparse; mkdir -p out; tar -xSf archive -C out; mv out/sparse copy'))
    case(layout[0] + ' dd', *layout[1:], copied('dd if=sparse of=copy bs=64k conv=sparse 2>/dev/null; truncate -r sparse copy'))
";

#[test]
fn stores_into_holes_are_data_at_once() {
    for options in [
        &["--ram", "32M"][..],
        &["--ram", "32M", "--no-watch", "--threads", "1"],
    ] {
        let plain = TempDir::new("holes-plain");
        let mounted = Mounted::new("holes", options);
        let run = |folder: &std::path::Path| python(HOLES, &[folder.to_str().expect("a path")]);
        let (expected, found) = (run(plain.path()), run(&mounted.target()));
        assert!(
            expected == found,
            "{options:?}: the filesystem says\n{expected}\nand zcache mount\n{found}"
        );
        assert!(expected.contains("one cp (True, 1)"), "{expected}");
    }
}

/// What is set behind stores that have not been written back, and what is there when they have.
const SET_BEHIND: &str = "
import mmap, os, sys
os.chdir(sys.argv[1])
USER = 65534
CAPABILITY = bytes.fromhex('0100000200040000000000000000000000000000')
def shown(name):
    status = os.stat(name)
    when = status.st_mtime_ns if status.st_mtime_ns < 1 << 60 else 'now'
    print(name, oct(status.st_mode), when, os.listxattr(name), open(name, 'rb').read().count(b's'))

for name, change in (
    ('time', lambda fd: os.utime(fd, ns=(5, 5))),
    ('name time', lambda fd: os.utime('name time', ns=(5, 5))),
    ('set-id', lambda fd: os.fchmod(fd, 0o6755)),
    ('capability', lambda fd: os.setxattr(fd, 'security.capability', CAPABILITY)),
):
    os.close(os.open(name, os.O_CREAT, 0o666)), os.chmod(name, 0o666)
    os.setegid(USER), os.seteuid(USER)
    fd = os.open(name, os.O_RDWR)
    os.pwrite(fd, bytes(50000), 0)
    view = mmap.mmap(fd, 50000)
    view[100:40000] = b's' * 39900
    os.seteuid(0), os.setegid(0)
    change(fd)
    shown(name)
    view.flush()
    shown(name)
    view.close(), os.close(fd)
    shown(name)
";

#[test]
fn what_is_set_behind_stores_stays() {
    let plain = TempDir::new("behind-plain");
    let mounted = Mounted::new("behind", &["--ram", "32M", "-o", "suid"]);
    let run = |folder: &Path| {
        let mode = PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(folder, mode).expect("for all");
        python(SET_BEHIND, &[folder.to_str().expect("a path")])
    };
    let (expected, found) = (run(plain.path()), run(&mounted.target()));
    assert_eq!(found, expected, "the filesystem says the second");
    assert!(expected.contains("time 0o100666 5 [] 39900"), "{expected}");
}

/// Rights change while there may be stores into holes, for which every look has them written first.
const RIGHTS: &str = "
import mmap, os, sys
os.chdir(sys.argv[1])
USER = 65534
LIST = bytes.fromhex('02000000' '01000600ffffffff' '0200040001000000' '04000400ffffffff' '10000600ffffffff' '20000400ffffffff')
fd = os.open('f', os.O_RDWR | os.O_CREAT, 0o400)
os.ftruncate(fd, 1 << 20)
os.chown('f', USER, USER)
view = mmap.mmap(fd, 1 << 20)

def by_user():
    os.setegid(USER), os.seteuid(USER)
    try:
        os.close(os.open('f', os.O_RDWR))
        return 'opened'
    except OSError as error:
        return error.strerror
    finally:
        os.seteuid(0), os.setegid(0)

for turn in range(20):
    view[turn * 8192] = 1
    os.setxattr('f', 'system.posix_acl_access', LIST)
    print(by_user(), oct(os.stat('f').st_mode))
    os.chmod('f', 0o400)
    print(by_user(), oct(os.stat('f').st_mode))
";

#[test]
fn rights_count_at_once_also_where_stores_into_holes_are_written_first() {
    let plain = TempDir::new("rights-plain");
    let mounted = Mounted::new("rights-holes", &["--ram", "32M"]);
    let run = |folder: &Path| {
        let mode = PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(folder, mode).expect("for all");
        python(RIGHTS, &[folder.to_str().expect("a path")])
    };
    let (expected, found) = (run(plain.path()), run(&mounted.target()));
    assert_eq!(found, expected, "the filesystem says the second");
}
