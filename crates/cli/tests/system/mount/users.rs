//! Ordinary users: on sources that have no access lists, that squash root, or that judge by who opened a file, and where a file is
//! made while another is made in its place. What the source says to them is what the mount says.

use super::support::{ATTEMPT, Mounted, python};
use crate::support::{TempDir, eventually, tests_file, tool};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

/// Takes a source's own mount away behind the mount that shows it.
struct Behind<'a>(&'a Path);

impl Drop for Behind<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0).output();
    }
}

/// What some users come by in a folder, one line each.
const VISITS: &str = "
import os, sys
os.chdir(sys.argv[1])
def listed(folder):
    # A file that was unlinked while it was open may still be there under such a name.
    return sorted(name for name in os.listdir(folder) if not name.startswith('.fuse_hidden'))
def made(path):
    with open(path, 'w') as f:
        f.write('new')
    found = os.stat(path)
    return found.st_uid, found.st_gid, oct(found.st_mode)
def read(path):
    with open(path) as f:
        return f.read()
for uid, groups in ((0, []), (1000, []), (1000, [2000]), (1002, [])):
    child = os.fork()
    if child == 0:
        os.setgroups(groups), os.setresgid(uid, uid, uid), os.setresuid(uid, uid, uid)
        print('user', uid, groups)
        for folder, name in (('home', 'mail'), ('team', 'plan'), ('open', 'news')):
            path = folder + '/' + name
            attempt('list ' + folder, lambda: listed(folder))
            attempt('read ' + path, lambda: read(path))
            attempt('write ' + path, lambda: os.pwrite(os.open(path, os.O_RDWR), b'd', 0))
            attempt('cut ' + path, lambda: os.truncate(path, 8))
            if attempt('make', lambda: made(folder + '/new')):
                attempt('rename', lambda: os.rename(folder + '/new', folder + '/other'))
                attempt('chmod', lambda: os.chmod(folder + '/other', 0o640))
                attempt('utime', lambda: os.utime(folder + '/other'))
                attempt('unlink', lambda: os.unlink(folder + '/other'))
                attempt('symlink', lambda: os.symlink('there', folder + '/link'))
                attempt('readlink', lambda: os.readlink(folder + '/link'))
                attempt('unlink', lambda: os.unlink(folder + '/link'))
            if attempt('mkdir', lambda: os.mkdir(folder + '/sub')):
                attempt('rmdir', lambda: os.rmdir(folder + '/sub'))
        sys.stdout.flush()
        os._exit(0)
    os.waitpid(child, 0)
";

/// Folders for one user, for a group, and for all.
fn furnish(root: &Path) {
    let places = [
        ("home", "mail", 1000, 1000, 0o700, 0o600),
        ("team", "plan", 1001, 2000, 0o770, 0o660),
        ("open", "news", 1001, 1001, 0o755, 0o644),
    ];
    for (folder, name, uid, gid, folder_mode, mode) in places {
        let folder = root.join(folder);
        let file = folder.join(name);
        std::fs::create_dir(&folder).expect("a folder");
        std::fs::write(&file, "dear user").expect("a file");
        for (path, mode) in [(&folder, folder_mode), (&file, mode)] {
            std::os::unix::fs::chown(path, Some(uid), Some(gid)).expect("an owner");
            std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("rights");
        }
    }
}

fn visit(root: &Path) -> String {
    python(
        &[ATTEMPT, VISITS].concat(),
        &[root.to_str().expect("a path of the tests")],
    )
}

fn all_may_come_by(path: &Path) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).expect("rights");
}

#[test]
fn a_source_without_access_lists_serves_everybody() {
    let files = TempDir::new("no-lists");
    let (source, plain) = (files.file("source"), files.file("plain"));
    let _behind = [&source, &plain].map(|at| {
        std::fs::create_dir(at).expect("a directory");
        let mut command = Command::new("mount");
        tool("mount", command.args(["-t", "ramfs", "none"]).arg(at));
        all_may_come_by(at);
        furnish(at);
        Behind(at)
    });
    all_may_come_by(files.path());
    let expected = visit(&plain);
    let mounted = Mounted::over(files, &["--ram", "32M"]);
    assert_eq!(visit(&mounted.target()), expected);
    assert!(expected.contains("read open/news dear user"), "{expected}");
}

/// A directory of this machine as a server shows it that squashes root.
struct SquashedRoot {
    server: Child,
}

impl SquashedRoot {
    fn new(directory: &Path, at: &Path) -> SquashedRoot {
        std::fs::create_dir(at).expect("a directory");
        // The module is the system's Python's.
        let mut command = Command::new("/usr/bin/python3");
        command.arg(tests_file("mount/squashed_root.py"));
        let server = command.arg(directory).arg(at).spawn();
        let server = server.expect("python3 runs (python3-fusepy)");
        let there = || {
            let mounts = std::fs::read_to_string("/proc/self/mounts").expect("the list");
            mounts.contains(at.to_str().expect("a path of the tests"))
        };
        assert!(eventually(Duration::from_secs(20), there), "python3-fusepy");
        SquashedRoot { server }
    }
}

impl Drop for SquashedRoot {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

#[test]
fn what_root_is_refused_is_open_to_the_user_who_may() {
    let files = TempDir::new("squashed");
    let (real, plain) = (files.file("real"), files.file("plain"));
    for directory in [&real, &plain] {
        std::fs::create_dir(directory).expect("a directory");
        all_may_come_by(directory);
        furnish(directory);
    }
    all_may_come_by(files.path());
    let near = files.file("near");
    let expected = {
        let _server = SquashedRoot::new(&plain, &near);
        let _behind = Behind(&near);
        visit(&near)
    };
    assert!(expected.contains("list team ['plan']"), "{expected}");
    let source = files.file("source");
    let _server = SquashedRoot::new(&real, &source);
    let _behind = Behind(&source);
    let mounted = Mounted::over(files, &["--ram", "32M"]);
    assert_eq!(visit(&mounted.target()), expected);
}

/// A user makes a file where root makes and removes a private one beside the mount all the time. Says what he came by.
const MEANWHILE: &str = "
import collections, errno, os, random, sys, time
outer, inner = sys.argv[1] + '/shared/x', sys.argv[2] + '/shared/x'
os.mkdir(os.path.dirname(inner))
os.chmod(os.path.dirname(inner), 0o777)
end = time.monotonic() + 6
child = os.fork()
while child == 0 and time.monotonic() < end:
    try:
        f = os.open(inner, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(f, b'of root'), os.close(f)
        time.sleep(0.0003)
    except FileExistsError:
        pass
    try:
        os.unlink(inner)
        # Both must find the name free now and then, however the two are scheduled.
        time.sleep(random.choice([0, 0.0001, 0.001]))
    except FileNotFoundError:
        pass
if child == 0:
    os._exit(0)
os.setgroups([]), os.setresgid(1000, 1000, 1000), os.setresuid(1000, 1000, 1000)
seen = collections.Counter()
while time.monotonic() < end:
    try:
        f = os.open(outer, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        seen[errno.errorcode[error.errno]] += 1
        continue
    seen['the file of root' if os.fstat(f).st_uid == 0 else 'a file of his own'] += 1
    os.close(f)
    try:
        os.unlink(outer)
    except OSError:
        pass
os.waitpid(child, 0)
assert seen['a file of his own'] and seen['EACCES'], seen
# Where the name changes twice within one call, Linux gives up.
assert seen['ESTALE'] <= seen['EACCES'] / 1000, seen
assert not set(seen) - {'a file of his own', 'EACCES', 'ESTALE'}, seen
";

#[test]
fn a_private_file_that_is_made_meanwhile_is_not_opened() {
    let mounted = Mounted::new("meanwhile", &["--ram", "32M"]);
    let paths = [mounted.target(), mounted.source()];
    let paths = paths.each_ref().map(|path| path.to_str().expect("a path"));
    python(MEANWHILE, &paths);
}
