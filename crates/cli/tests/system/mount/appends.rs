//! What is appended through the mount comes behind all that was appended beside it, and a file that can only be appended to can be
//! appended to.

use super::support::{Mounted, python};
use crate::support::tool;
use std::io::Write;
use std::process::Command;

const WAYS: [&[&str]; 2] = [&["--ram", "32M"], &["--ram", "32M", "--no-watch"]];

/// Appends by turns on both sides with one descriptor each, and reads what there is by several.
const TURNS: &str = "
import os, random, sys, time
outer, inner = sys.argv[1:]
rng = random.Random(7)
for flags in (os.O_WRONLY, os.O_RDWR):
    through = os.open(outer, flags | os.O_APPEND | os.O_CREAT | os.O_TRUNC)
    beside = os.open(inner, os.O_WRONLY | os.O_APPEND)
    reader = os.open(outer, os.O_RDONLY)
    model = b''
    for turn in range(60):
        fd = rng.choice([through, through, beside])
        data = bytes([turn + 1]) * rng.choice([1, 100, 4096, 5000, 300000])
        assert os.write(fd, data) == len(data)
        model += data
        if rng.random() < 0.3:
            os.pread(reader, 10000, max(0, len(model) - 9000))
        source = open(inner, 'rb').read()
        assert source == model, f'turn {turn}: the source has {len(source)} of {len(model)} bytes'
        end, found = time.monotonic() + 5, None
        while found != model and time.monotonic() < end:
            found = os.pread(reader, len(model) + 1, 0)
        assert found == model, f'turn {turn}: {len(found)} of {len(model)} bytes read through the mount'
    os.close(through), os.close(beside), os.close(reader)
    assert open(outer, 'rb').read() == model
";

#[test]
fn what_is_appended_on_both_sides_is_all_there() {
    for options in WAYS {
        let mounted = Mounted::new("appends", options);
        let paths = ["target", "source"].map(|side| mounted.directory().join(side).join("log"));
        let [outer, inner] = paths.map(|path| path.to_str().expect("a path").to_owned());
        python(TURNS, &[&outer, &inner]);
    }
}

#[test]
fn a_log_does_not_overwrite_what_came_beside_it_long_before() {
    for options in WAYS {
        let mounted = Mounted::new("appends-late", options);
        let append = |side: &str| {
            let mut options = std::fs::OpenOptions::new();
            options.append(true).create(true);
            options.open(mounted.directory().join(side).join("log"))
        };
        let mut through = append("target").expect("open");
        through.write_all(b"one\n").expect("appended");
        let mut beside = append("source").expect("open");
        beside.write_all(b"two\n").expect("appended beside");
        std::thread::sleep(std::time::Duration::from_millis(1500));
        through.write_all(b"three\n").expect("appended");
        let log = std::fs::read(mounted.source().join("log")).expect("read");
        assert_eq!(String::from_utf8_lossy(&log), "one\ntwo\nthree\n");
    }
}

/// What can be done to a file with the attribute, and with a descriptor from before it.
const APPEND_ONLY: &str = "
import errno, os, subprocess, sys
os.chdir(sys.argv[1])

def try_(name, work):
    try:
        print(name, work())
    except OSError as error:
        print(name, errno.errorcode[error.errno])

open('log', 'w').write('first')
before = os.open('log', os.O_RDWR)
subprocess.run(['chattr', '+a', sys.argv[2]], check=True)
try:
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND, os.O_RDWR | os.O_APPEND, os.O_WRONLY | os.O_APPEND | os.O_CREAT,
                  os.O_WRONLY | os.O_APPEND | os.O_TRUNC):
        try_(f'open {flags:o}', lambda: os.close(os.open('log', flags)))
    fd = os.open('log', os.O_RDWR | os.O_APPEND)
    try_('append', lambda: os.write(fd, b'more'))
    try_('cut off', lambda: os.ftruncate(fd, 1))
    try_('in the midst', lambda: os.pwrite(before, b'F', 0))
    try_('read', lambda: os.pread(fd, 100, 0))
    try_('rename', lambda: os.rename('log', 'other'))
    try_('unlink', lambda: os.unlink('log'))
finally:
    subprocess.run(['chattr', '-a', sys.argv[2]], check=True)
print(open('log').read())
";

#[test]
fn a_file_that_can_only_be_appended_to_is_the_same_on_both_sides() {
    let mounted = Mounted::new("append-only", &["--ram", "32M"]);
    let probe = mounted.source().join("probe");
    std::fs::write(&probe, "").expect("written");
    // The attributes are set where the files are: ioctls do not come through.
    for sign in ["+a", "-a"] {
        tool("e2fsprogs", Command::new("chattr").arg(sign).arg(&probe));
    }
    let run = |side: &str, real: &str| {
        let folder = mounted.directory().join(side);
        std::fs::create_dir_all(&folder).expect("a folder");
        let real = mounted.directory().join(real);
        let paths = [folder, real].map(|path| path.to_str().expect("a path").to_owned());
        python(APPEND_ONLY, &[&paths[0], &paths[1]])
    };
    let expected = run("source/plain", "source/plain/log");
    let found = run("target/through", "source/through/log");
    assert_eq!(expected, found);
    assert!(expected.contains("append 4"), "{expected}");
}
