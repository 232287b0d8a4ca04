//! What a change takes from a file: set-user-id, set-group-id and capabilities, by every call that changes contents or owner, for every
//! kind of user; and what others list and open. The source's own filesystem says what is right.

use super::support::{Mounted, python};
use crate::support::TempDir;
use std::path::Path;

/// Each call by each user on a file of each mode: the errno, or what is left of the file's mode and capabilities.
const MATRIX: &str = "
import ctypes, errno, mmap, os, sys, time
os.chdir(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
long = ctypes.c_long
CAPABILITY = bytes.fromhex('0100000202000000000000000000000000000000')

def allocate(mode):
    def change(name):
        f = os.open(name, os.O_RDWR)
        if libc.fallocate(f, mode, long(0), long(4096)) != 0:
            raise OSError(ctypes.get_errno(), 'fallocate')
    return change

def store(name):
    f = os.open(name, os.O_RDWR)
    view = mmap.mmap(f, 8192)
    view[0] = 7
    view.flush()

def copy(name):
    f = os.open(name, os.O_RDWR)
    os.copy_file_range(os.open(name, os.O_RDONLY), f, 4096, 0, 8192)

CALLS = {
    'write': lambda name: os.pwrite(os.open(name, os.O_RDWR), b'x', 0),
    'append': lambda name: os.write(os.open(name, os.O_WRONLY | os.O_APPEND), b'x'),
    'direct': lambda name: os.pwrite(os.open(name, os.O_WRONLY | os.O_DIRECT), mmap.mmap(-1, 4096), 0),
    'write nothing': lambda name: os.pwrite(os.open(name, os.O_RDWR), b'', 0),
    'store': store,
    'truncate': lambda name: os.truncate(name, 100),
    'lengthen': lambda name: os.truncate(name, 10000),
    'ftruncate': lambda name: os.ftruncate(os.open(name, os.O_RDWR), 100),
    'open and truncate': lambda name: os.open(name, os.O_WRONLY | os.O_TRUNC),
    'create over it': lambda name: os.open(name, os.O_WRONLY | os.O_TRUNC | os.O_CREAT, 0o600),
    'copy': copy,
    'allocate': allocate(0), 'keep size': allocate(1), 'punch': allocate(3), 'zero': allocate(0x10),
    'chown to nobody': lambda name: os.chown(name, -1, -1),
    'chown to own group': lambda name: os.chown(name, -1, os.getegid()),
    'chown': lambda name: os.chown(name, 5, 6),
    'chmod': lambda name: os.chmod(name, 0o6755),
    'touch': lambda name: os.utime(name),
}
# User, group, other groups.
USERS = {'root': (0, 0, []), 'owner': (1000, 1000, [2000]), 'owner outside the group': (1000, 1000, []),
         'member': (1001, 2000, []), 'other member': (1001, 1001, [5, 2000]), 'stranger': (1002, 1002, [])}

def outcome(call, user, mode, capable):
    name = 'file'
    with open(name, 'wb') as f:
        f.write(b'a' * 8192)
    os.chown(name, 1000, 2000)
    os.chmod(name, mode)
    if capable:
        os.setxattr(name, 'security.capability', CAPABILITY)
    if call == 'chown to nobody':
        # A file that is open for writing keeps the bits from root's: the close is told late.
        time.sleep(0.02)
    child = os.fork()
    if child == 0:
        uid, gid, groups = USERS[user]
        code = 0
        try:
            os.setgroups(groups), os.setresgid(gid, gid, gid), os.setresuid(uid, uid, uid)
            CALLS[call](name)
        except OSError as error:
            code = error.errno
        os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    left = f'{os.stat(name).st_mode & 0o7777:o} {len(os.listxattr(name))} {os.stat(name).st_uid} {os.stat(name).st_gid}'
    os.unlink(name)
    return f'{errno.errorcode.get(code, code)} {left}'

for mode in (0o6777, 0o6757, 0o4755, 0o2666, 0o2644, 0o2664, 0o666):
    for user in USERS:
        for call in CALLS:
            for capable in (False, True):
                if call == 'store' and capable:
                    # Taken by the mount, kept by the source: docs/mount.md.
                    continue
                print(f'{mode:o} {user}, {call}{\" (capable)\" if capable else \"\"}:', outcome(call, user, mode, capable))
";

/// The same lines from a script on the source's filesystem and through the mount.
fn same_by_both(script: &str, mounted: &Mounted, plain: &Path) {
    let run = |folder: &Path| python(script, &[folder.to_str().expect("a path of the tests")]);
    let (expected, found) = (run(plain), run(&mounted.target()));
    let differing: Vec<_> = expected
        .lines()
        .zip(found.lines())
        .filter(|(one, other)| one != other)
        .collect();
    assert!(
        expected == found,
        "{} of {} lines differ: {differing:#?}",
        differing.len(),
        expected.lines().count()
    );
}

#[test]
fn what_a_change_takes_from_a_file_is_the_source_s_to_decide() {
    let plain = TempDir::new("set-ids-plain");
    let mounted = Mounted::new("set-ids", &["--ram", "32M", "-o", "suid"]);
    same_by_both(MATRIX, &mounted, plain.path());
}

/// Names of attributes that are not for everybody.
const LISTS: &str = "
import os, sys
os.chdir(sys.argv[1])
with open('file', 'w') as f:
    f.write('x')
for name in ('user.one', 'trusted.two', 'security.three'):
    os.setxattr('file', name, b'1')
for uid in (0, 1000):
    child = os.fork()
    if child == 0:
        os.setgroups([]), os.setresgid(uid, uid, uid), os.setresuid(uid, uid, uid)
        print(uid, sorted(os.listxattr('file')), flush=True)
        for name in ('user.one', 'trusted.two', 'security.three', 'user.none'):
            try:
                print(name, os.getxattr('file', name), flush=True)
            except OSError as error:
                print(name, error.errno, flush=True)
        os._exit(0)
    os.waitpid(child, 0)
";

#[test]
fn trusted_attributes_are_not_listed_for_everybody() {
    let plain = TempDir::new("lists-plain");
    let mounted = Mounted::new("lists", &["--ram", "32M"]);
    same_by_both(LISTS, &mounted, plain.path());
}
