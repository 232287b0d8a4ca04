//! Sources of which a file's handle stands for its path, or for what is in RAM just now: FUSE filesystems. What is replaced there is seen,
//! and what is in use stays in use.

use super::support::{Mounted, python};
use crate::support::{TempDir, tool};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

/// A directory at `source` by a FUSE filesystem.
struct Shown(PathBuf);

impl Drop for Shown {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).output();
    }
}

/// By sshfs, which talks to a server of its own without a network.
fn by_sshfs(files: &TempDir) -> Shown {
    let (real, source) = directories(files);
    let login = files.file("login");
    std::fs::write(&login, "#!/bin/sh\nexec /usr/lib/openssh/sftp-server\n").expect("a script");
    std::fs::set_permissions(&login, PermissionsExt::from_mode(0o755)).expect("executable");
    let options = format!(
        "ssh_command={},allow_other,dir_cache=no,entry_timeout=0,attr_timeout=0,negative_timeout=0",
        login.display()
    );
    let mut command = Command::new("sshfs");
    command
        .args(["-o", &options])
        .arg(format!("x:{}", real.display()));
    tool("sshfs", command.arg(&source));
    Shown(source)
}

fn by_bindfs(files: &TempDir) -> Shown {
    let (real, source) = directories(files);
    tool("bindfs", Command::new("bindfs").arg(&real).arg(&source));
    Shown(source)
}

fn directories(files: &TempDir) -> (PathBuf, PathBuf) {
    let paths = [files.file("real"), files.file("source")];
    for path in &paths {
        std::fs::create_dir(path).expect("a directory");
    }
    let [real, source] = paths;
    (real, source)
}

/// What is replaced on the server: links by links, files by folders, folders by files, files by files, the latter while they are opened.
const REPLACED: &str = "
import os, shutil, sys, threading, time
real, outer, beside = sys.argv[1:]
os.chdir(real)
os.symlink('first', 'link'), os.mkdir('folder')
for name in ('thing', 'file'):
    with open(name, 'w') as f:
        f.write('old ' + name)
os.chdir(outer)
def seen():
    return os.readlink('link'), os.path.isdir('thing'), os.path.isdir('folder')
assert seen() == ('first', False, True), seen()
with open('thing') as f:
    assert f.read() == 'old thing'
def put(name, text, where=real):
    # Under a name of its own first, so that the name is never absent.
    with open(f'{where}/.new', 'w') as f:
        f.write(text)
    os.rename(f'{where}/.new', f'{where}/{name}')
# The same length: neither size nor type tells.
os.symlink('other', f'{real}/.link'), os.rename(f'{real}/.link', f'{real}/link')
os.unlink(f'{real}/thing'), os.mkdir(f'{real}/thing'), os.rmdir(f'{real}/folder')
put('folder', 'a file now')
put('thing/inside', 'inside')
end = time.monotonic() + 15
while seen() != ('other', True, False) and time.monotonic() < end:
    time.sleep(0.05)
assert seen() == ('other', True, False), seen()
assert os.listdir('thing') == ['inside']
with open('folder') as f:
    assert f.read() == 'a file now'
stop = time.monotonic() + 4
def replace():
    number = 0
    while time.monotonic() < stop:
        number += 1
        # On the server, and beside the mount on the source.
        put('file', f'new {number}', (real, beside)[number % 2])
        time.sleep(0.02)
replacing = threading.Thread(target=replace)
replacing.start()
opened = 0
while time.monotonic() < stop:
    with open('file') as f:
        assert f.read().split()[0] in ('old', 'new')
    assert os.stat('file').st_size
    opened += 1
replacing.join()
assert opened > 20, opened
";

#[test]
fn what_is_replaced_on_the_server_is_seen() {
    let files = TempDir::new("replaced");
    let _shown = by_sshfs(&files);
    let real = files.file("real");
    let mounted = Mounted::over(files, &["--ram", "32M"]);
    let paths = [real, mounted.target(), mounted.source()];
    let paths = paths.each_ref().map(|path| path.to_str().expect("a path"));
    python(REPLACED, &paths);
}

/// Somebody works in a folder while others look at many files and the kernel forgets what nobody uses.
const WORKING: &str = "
import os, sys, time
outer = sys.argv[1]
os.mkdir(outer + '/stay'), os.mkdir(outer + '/many')
with open(outer + '/stay/file', 'w') as f:
    f.write('hello')
for number in range(6000):
    os.mknod(f'{outer}/many/{number}')
os.chdir(outer + '/stay')
folder = os.open('.', os.O_PATH)
for number in range(6000):
    os.stat(f'{outer}/many/{number}')
for _ in range(3):
    with open('/proc/sys/vm/drop_caches', 'w') as f:
        f.write('2')
    time.sleep(0.4)
with open('file') as f:
    assert f.read() == 'hello'
assert os.listdir('.') == ['file'] and os.stat(outer + '/stay/file').st_size == 5
os.close(os.open('file', os.O_RDONLY, dir_fd=folder))
os.chdir('/')
";

#[test]
fn a_folder_that_somebody_works_in_is_found_again() {
    let files = TempDir::new("working");
    let _shown = by_bindfs(&files);
    let mounted = Mounted::over(files, &["--ram", "32M"]);
    python(WORKING, &[mounted.target().to_str().expect("a path")]);
}
