//! The guard of a mount: a process of its own that ends the connection to the
//! kernel when the process that serves it has died.
//!
//! Stage: beside everything. When a process dies, its descriptors are closed and
//! the kernel ends the connection. But a thread that tells the kernel what is
//! outdated waits there for requests that are being served, and cannot be killed
//! meanwhile: then nothing is closed, nobody serves, and whoever asked waits for
//! ever. The guard is told of the death all the same, and has the kernel abort the
//! connection, which ends all waiting.
//!
//! - It aborts the connection that it was started for and no other: the file by
//!   which it does so is open from the start.
//! - It holds no descriptor of the connection, which would keep it alive.
//!
//! Does not: anything as long as its parent lives.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};

use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use rustix::process::Signal;
use zcache_sys::fd::Epoll;
use zcache_sys::process::{Signals, block_signals};

/// Sent by the kernel when the thread that started the guard ends, even if others
/// of its process do not.
const PARENT_DIED: Signal = Signal::POWER;

/// What the guard waits for.
const SIGNAL: u64 = 0;
const INPUT: u64 = 1;

/// A guard that was started.
#[derive(Debug)]
pub(crate) struct Guard {
    /// Closed by the end of this process at the latest.
    alive: Option<ChildStdin>,
    child: Child,
}

impl Guard {
    /// Starts the guard of a connection: `command` leads to [`guard`]. To be called
    /// by the thread that lives as long as the process.
    pub(crate) fn start(command: &[OsString], connection: u32) -> io::Result<Guard> {
        let (program, arguments) = command.split_first().ok_or(io::ErrorKind::NotFound)?;
        let mut child = Command::new(program)
            .args(arguments)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(File::from(abort_file(connection)?))
            .stderr(Stdio::null())
            // What a terminal tells the process that serves is not for it.
            .process_group(0)
            .spawn()?;
        Ok(Guard {
            alive: child.stdin.take(),
            child,
        })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.alive.take());
        let _ = self.child.wait();
    }
}

/// The file that aborts a connection when it is written to.
fn abort_file(connection: u32) -> io::Result<OwnedFd> {
    let filesystem = rustix::mount::fsopen(c"fusectl", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_create(&filesystem)?;
    // Attached nowhere: it need not be mounted in this system.
    let mounted = rustix::mount::fsmount(
        &filesystem,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )?;
    let path = format!("{connection}/abort");
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(&mounted, path, flags, Mode::empty())?)
}

/// What the process that guards a mount does: it waits for the end of its parent,
/// which holds the other end of standard input, and writes to standard output,
/// which aborts the connection.
pub fn guard() {
    // It ends with its parent and not before.
    let _ = block_signals();
    let _ = rustix::process::set_parent_process_death_signal(Some(PARENT_DIED));
    wait_for_the_end();
    // One that has ended by itself is not aborted again.
    let _ = io::stdout().write_all(b"1\n");
    let _ = io::stdout().flush();
}

fn wait_for_the_end() {
    let parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
    let (Ok(signals), Ok(epoll)) = (Signals::new(), Epoll::new()) else {
        let _ = io::stdin().read(&mut [0]);
        return;
    };
    let input = io::stdin();
    let added = epoll
        .add(signals.as_fd(), SIGNAL)
        .and(epoll.add(input.as_fd(), INPUT));
    if added.is_err() {
        let _ = input.lock().read(&mut [0]);
        return;
    }
    loop {
        let mut ready = Vec::new();
        if epoll.wait(&mut ready, None).is_err() {
            return;
        }
        while let Some(arrived) = signals.next() {
            if arrived.signal == PARENT_DIED.as_raw() && Some(arrived.sender) == parent {
                return;
            }
        }
        // Nobody writes to it: it is readable when it has ended.
        if ready.contains(&INPUT) {
            return;
        }
    }
}
