//! What `/proc/PID/stat` and `/proc/PID/status` say of a task. Source:
//! `proc_pid_stat(5)`, `proc_pid_status(5)`, `proc_pid_fd(5)`.
//!
//! Not on the data path: each look opens a file.

use std::ffi::CString;
use std::fs;

/// Some fields of `/proc/PID/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// R, S, D, T, t, Z, …
    pub state: u8,
    /// The processor on which it runs or ran last.
    pub processor: usize,
    /// Where its arguments begin; 0 if that may not be known.
    pub arguments_start: u64,
    /// Where its environment ends, which lies behind them; 0 as above.
    pub environment_end: u64,
}

/// Looks at a task; `None` when it has ended.
#[must_use]
pub fn stat(task: i32) -> Option<Stat> {
    let stat = fs::read(format!("/proc/{task}/stat")).ok()?;
    // The name may hold anything, but the last parenthesis ends it.
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let after = std::str::from_utf8(&stat[end + 1..]).ok()?;
    // Fields are numbered from 1 in the manual, and the third comes first here.
    let fields: Vec<&str> = after.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).copied();
    let number = |at: usize| field(at)?.parse::<u64>().ok();
    Some(Stat {
        state: *field(3)?.as_bytes().first()?,
        processor: number(39)? as usize,
        arguments_start: number(48)?,
        environment_end: number(51)?,
    })
}

/// The value of a field of `/proc/PID/status`; `None` when the task has ended.
#[must_use]
pub fn status_field(task: i32, name: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{task}/status")).ok()?;
    let mut lines = status.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(value.trim().to_owned())
}

/// What a task has open under a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFile {
    /// `S_IFREG`, `S_IFCHR`, …: `inode(7)`.
    pub kind: u32,
    /// Major and minor number, if it is a device.
    pub device: (u32, u32),
}

/// What a task has open under this descriptor. What the kernel knows already is read:
/// the filesystem is not asked, which may be the task's own and wait for it.
#[must_use]
pub fn open_file(task: i32, descriptor: i32) -> Option<OpenFile> {
    let path = CString::new(format!("/proc/{task}/fd/{descriptor}")).ok()?;
    // SAFETY: all-zero is a valid value of this plain structure.
    let mut known: libc::statx = unsafe { std::mem::zeroed() };
    let (flags, wanted) = (libc::AT_STATX_DONT_SYNC, libc::STATX_TYPE);
    // SAFETY: the path is a C string and the structure lives across the call.
    let got = unsafe { libc::statx(libc::AT_FDCWD, path.as_ptr(), flags, wanted, &raw mut known) };
    (got == 0).then_some(OpenFile {
        kind: u32::from(known.stx_mode) & libc::S_IFMT,
        device: (known.stx_rdev_major, known.stx_rdev_minor),
    })
}

/// Whether calls by this descriptor wait (it has not `O_NONBLOCK`). Source:
/// `proc_pid_fdinfo(5)`.
#[must_use]
pub fn is_blocking(task: i32, descriptor: i32) -> bool {
    let text = fs::read_to_string(format!("/proc/{task}/fdinfo/{descriptor}"));
    let text = text.unwrap_or_default();
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
    flags.is_some_and(|flags| flags & libc::O_NONBLOCK.cast_unsigned() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_run_and_know_our_own_place() {
        let own = std::process::id().cast_signed();
        let stat = stat(own).expect("this process lives");
        assert!(b"RS".contains(&stat.state));
        assert!(stat.arguments_start < stat.environment_end);
        assert_eq!(status_field(own, "Tgid"), Some(own.to_string()));
        assert_eq!(status_field(own, "Tg"), None);
        assert_eq!(super::stat(i32::MAX), None);
    }

    #[test]
    fn a_thread_is_found_where_it_is_pinned() {
        let cpu = *crate::process::cpus().last().expect("there is a processor");
        let found = std::thread::spawn(move || {
            crate::process::run_on(&[cpu]).expect("it may run there");
            let own = fs::read_link("/proc/thread-self").expect("it is somebody");
            let number = own.file_name().and_then(|name| name.to_str()?.parse().ok());
            stat(number.expect("it has a number"))
        });
        let stat = found.join().expect("it ends well").expect("it lived");
        assert_eq!(stat.processor, cpu);
    }

    #[test]
    fn what_is_open_is_told() {
        use std::os::fd::AsRawFd;
        use std::os::unix::fs::OpenOptionsExt;
        let own = std::process::id().cast_signed();
        let zero = fs::File::open("/dev/zero").expect("it is there");
        let told = open_file(own, zero.as_raw_fd()).expect("it is open");
        assert_eq!((told.kind, told.device), (libc::S_IFCHR, (1, 5)));
        assert!(is_blocking(own, zero.as_raw_fd()));
        let mut how = fs::OpenOptions::new();
        let how = how.read(true).custom_flags(libc::O_NONBLOCK);
        let other = how.open("/proc/self/stat").expect("it is there");
        let told = open_file(own, other.as_raw_fd()).expect("it is open");
        assert_eq!(told.kind, libc::S_IFREG);
        assert!(!is_blocking(own, other.as_raw_fd()));
        assert!(open_file(own, 1 << 20).is_none() && !is_blocking(own, 1 << 20));
    }
}
