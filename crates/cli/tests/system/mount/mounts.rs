//! Filesystems, subvolumes and folders that are mounted within the source: programs that tell files by device and number, that
//! ask where they are, or that may write on one path and not on another, see on the target what they see on the source.

use super::disk::SmallDisk;
use super::support::{ATTEMPT, Mounted, python};
use crate::support::{TempDir, tool};
use std::path::Path;
use std::process::Command;

/// What is mounted within the source, taken away behind the mount that shows it.
struct Within(Vec<std::path::PathBuf>);

impl Within {
    fn bind(&mut self, what: &Path, at: &Path, read_only: bool) {
        let mut command = Command::new("mount");
        tool("mount", command.arg("--bind").arg(what).arg(at));
        self.0.push(at.to_owned());
        if read_only {
            let mut command = Command::new("mount");
            tool("mount", command.args(["-o", "remount,bind,ro"]).arg(at));
        }
    }
}

impl Drop for Within {
    fn drop(&mut self) {
        for at in self.0.iter().rev() {
            let _ = Command::new("umount").arg("--lazy").arg(at).output();
        }
    }
}

/// The same lines from a script on the source and then on the target; the script gets the folder and an empty one beside it.
fn same_by_both(script: &str, mounted: &Mounted) {
    let run = |folder: &Path, side: &str| {
        let beside = mounted.directory().join(side);
        std::fs::create_dir(&beside).expect("a directory");
        let paths = [folder, &beside].map(|path| path.to_str().expect("a path of the tests"));
        python(&[ATTEMPT, script].concat(), &paths)
    };
    let expected = run(&mounted.source(), "beside-source");
    let found = run(&mounted.target(), "beside-target");
    assert!(
        expected == found,
        "the source says\n{expected}\nand the mount\n{found}"
    );
}

/// Archives, copies and lists by programs that tell files by device and number. `a` and `b` have the same numbers, and two names
/// for each file.
const TOOLS: &str = "
import os, subprocess, sys
folder, beside = sys.argv[1:]
for name in 'ab':
    os.makedirs(f'{folder}/{name}/inner', exist_ok=True)
    for file in ('f', 'inner/h'):
        if not os.path.exists(f'{folder}/{name}/{file}'):
            with open(f'{folder}/{name}/{file}', 'w') as f:
                f.write(f'{file} of {name}')
            os.link(f'{folder}/{name}/{file}', f'{folder}/{name}/{file}-too')
same = [os.stat(f'{folder}/a/{file}').st_ino == os.stat(f'{folder}/b/{file}').st_ino for file in ('f', 'inner')]
def run(command):
    done = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=beside, env={**os.environ, 'FOLDER': folder})
    print(command, done.returncode, (done.stdout + done.stderr).replace(folder, 'FOLDER'))
def contents(copy):
    for top, folders, files in sorted(os.walk(f'{beside}/{copy}')):
        folders.sort()
        for name in sorted(files):
            path = f'{top}/{name}'
            with open(path) as f:
                print(path[len(beside):], f.read(), os.stat(path).st_nlink)
run('mkdir packed && tar -C $FOLDER -cf - a b | tar -C packed -xf -')
contents('packed')
run('rsync -aHAX --exclude lost+found $FOLDER/ synced/')
contents('synced')
run('cp -a $FOLDER/a $FOLDER/b .')
contents('a'), contents('b')
run('cp $FOLDER/a/f $FOLDER/b/copied && cat $FOLDER/b/copied && rm $FOLDER/b/copied')
run('cmp $FOLDER/a/f $FOLDER/b/f')
run('diff -r $FOLDER/a/inner $FOLDER/b/inner')
run('find $FOLDER/a $FOLDER/b -name lost+found -prune -o -printf \"%P %y %n\\n\" | sort')
run('find $FOLDER/a -samefile $FOLDER/a/f | sort')
run('du -a --apparent-size $FOLDER/a $FOLDER/b --exclude lost+found | wc -l')
listed = {entry.name: entry.inode() for entry in os.scandir(f'{folder}/b')}
print([name for name, number in listed.items() if number != os.lstat(f'{folder}/b/{name}').st_ino])
";

#[test]
fn files_of_filesystems_within_the_source_are_told_apart() {
    let files = TempDir::new("within");
    let source = files.file("source");
    std::fs::create_dir(&source).expect("a source");
    let disk = |name: &str| {
        SmallDisk::ext4_at(
            &files,
            &format!("image-{name}"),
            source.join(name),
            16 << 20,
        )
    };
    let _disks = [disk("a"), disk("b")];
    let mounted = Mounted::over(files, &["--ram", "32M"]);
    same_by_both(TOOLS, &mounted);
    let number = |name: &str| {
        let path = mounted.target().join(name).join("f");
        std::os::unix::fs::MetadataExt::ino(&path.metadata().expect("a look"))
    };
    assert_ne!(number("a"), number("b"));
}

#[test]
fn files_of_subvolumes_are_told_apart() {
    let files = TempDir::new("subvolumes");
    let _disk = SmallDisk::btrfs_with_subvolumes(&files, 256 << 20);
    let mounted = Mounted::over(files, &["--ram", "32M"]);
    same_by_both(TOOLS, &mounted);
}

/// A folder by three paths, two of them bind mounts, one of these read-only; a file by a read-only path; and a folder within itself.
const PATHS: &str = "
import mmap, os, subprocess, sys, time
folder, beside = sys.argv[1:]
os.chdir(folder)
with open('a/f', 'w') as f:
    f.write('hello')
def where(path):
    at = os.open('.', os.O_RDONLY)
    os.chdir(path)
    found = os.getcwd()
    os.fchdir(at)
    return found[len(folder):]
def write(path, text):
    with open(path, 'w') as f:
        f.write(text)
def read(path):
    with open(path) as f:
        return f.read()
for _ in range(3):
    for path in ('a', 'ro', 'rw', 'a/deep', 'ro/deep', 'rw/deep', 'sub', 'sub/loop', 'sub/loop/loop'):
        attempt('where ' + path, lambda: where(path))
for order in (('a', 'ro', 'rw'), ('ro', 'rw', 'a'), ('rw', 'a', 'ro')):
    for path in order:
        attempt('write ' + path, lambda: write(path + '/f', path))
        print([read(other + '/f') for other in ('a', 'ro', 'rw')])
        if attempt('make ' + path, lambda: write(path + '/new', '')):
            attempt('remove ' + path, lambda: os.unlink(path + '/new'))
        attempt('chmod ' + path, lambda: os.chmod(path + '/f', 0o640))
attempt('write a file by a read-only path', lambda: write('rofile', 'no'))
attempt('and by its own', lambda: write('file', 'yes'))
print(read('rofile'))
attempt('rename across', lambda: os.rename('a/f', 'rw/other'))
attempt('link across', lambda: os.link('a/f', 'rw/other'))
attempt('rename to itself', lambda: os.rename('a/f', 'a/f'))
print(os.path.samefile('a/f', 'rw/f'), os.stat('a/f').st_nlink)
print(subprocess.run('find . -name lost+found -prune -o -print | sort', shell=True, capture_output=True, text=True).stdout)
one, other = os.open('a/f', os.O_RDWR), os.open('rw/f', os.O_RDWR)
os.ftruncate(one, 8192)
print(os.fstat(other).st_size)
view = mmap.mmap(other, 8192)
for byte in (b'A', b'B', b'C'):
    writer, reader = (one, other) if byte != b'B' else (other, one)
    os.pwrite(writer, byte * 8192, 0)
    end = time.monotonic() + 10
    while os.pread(reader, 8192, 0) != byte * 8192 or view[:] != byte * 8192:
        assert time.monotonic() < end, 'what was written on one path is not read on the other'
    print(read('ro/f') == byte.decode() * 8192)
os.unlink('rw/f')
attempt('unlinked on one path', lambda: read('a/f'))
";

#[test]
fn each_path_of_a_bind_mount_is_its_own() {
    let files = TempDir::new("binds");
    let source = files.file("source");
    for folder in ["a/deep", "ro", "rw", "sub/loop"] {
        std::fs::create_dir_all(source.join(folder)).expect("a folder");
    }
    for file in ["file", "rofile", "a/f"] {
        std::fs::write(source.join(file), "").expect("a file");
    }
    let mut within = Within(Vec::new());
    within.bind(&source.join("a"), &source.join("rw"), false);
    within.bind(&source.join("a"), &source.join("ro"), true);
    within.bind(&source.join("sub"), &source.join("sub/loop"), false);
    within.bind(&source.join("file"), &source.join("rofile"), true);
    let mounted = Mounted::over(files, &["--ram", "32M"]);
    same_by_both(PATHS, &mounted);
}

/// Files that are made as they are read: what their size says is not how much there is.
const LIVE: &str = "
import os, sys
os.chdir(sys.argv[1])
def attempt(what, call):
    try:
        print(what, call())
    except OSError as error:
        print(what, error.strerror)
def read(path):
    with open(path) as f:
        return f.read()
def count(path):
    old = read(path)
    with open(path, 'w') as f:
        f.write(str(int(old) + 1))
    new = read(path)
    with open(path, 'w') as f:
        f.write(old)
    return int(new) - int(old), int(read(path)) - int(old)
for path in ('proc/version', 'proc/cpuinfo', 'proc/filesystems', 'proc/sys/kernel/ostype', 'sys/kernel/mm/transparent_hugepage/enabled',
             'proc/sys/kernel/none'):
    attempt(path, lambda: read(path))
attempt('changed', lambda: count('proc/sys/vm/stat_interval'))
held = os.open('proc/uptime', os.O_RDONLY)
before = os.pread(held, 100, 0)
import time
time.sleep(0.05)
print(os.pread(held, 100, 0) != before, os.pread(held, 100, 1 << 20))
for uid in (0, 1000):
    child = os.fork()
    if child == 0:
        os.setgroups([]), os.setresgid(uid, uid, uid), os.setresuid(uid, uid, uid)
        attempt('maps of another', lambda: len(read('proc/1/maps')) > 0)
        attempt('io of another', lambda: len(read('proc/1/io')) > 0)
        attempt('addresses', lambda: read('proc/kallsyms')[:10])
        sys.stdout.flush()
        os._exit(0)
    os.waitpid(child, 0)
";

#[test]
fn files_that_are_made_as_they_are_read_are_read_whole() {
    let files = TempDir::new("live");
    let mut within = Within(Vec::new());
    for (kind, name) in [("proc", "proc"), ("sysfs", "sys")] {
        let at = files.file("source").join(name);
        std::fs::create_dir_all(&at).expect("a folder");
        let mut command = Command::new("mount");
        tool("mount", command.args(["-t", kind, kind]).arg(&at));
        within.0.push(at);
    }
    let mounted = Mounted::over(files, &["--ram", "32M"]);
    same_by_both(LIVE, &mounted);
}
