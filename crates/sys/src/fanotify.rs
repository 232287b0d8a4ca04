//! What changes in a filesystem, told by the kernel: whatever the path, and by
//! whom. See `fanotify(7)`.
//!
//! The kernel tells nothing of stores through shared mappings, of what it writes
//! itself (loop devices) and of what other machines do to a network filesystem.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use crate::fd::{adopt, check};
use crate::filehandle::FileHandle;

/// What a watch asks to be told.
const ASKED: u64 = libc::FAN_MODIFY
    | libc::FAN_ATTRIB
    | libc::FAN_CLOSE_WRITE
    | libc::FAN_CREATE
    | libc::FAN_DELETE
    | libc::FAN_MOVED_FROM
    | libc::FAN_MOVED_TO
    | libc::FAN_ONDIR;

/// Bytes of `struct fanotify_event_metadata` and of what precedes a handle's
/// bytes in an information record.
const METADATA_BYTES: usize = 24;
const RECORD_BYTES: usize = 20;

/// A watch on a whole filesystem.
#[derive(Debug)]
pub struct Watch(OwnedFd);

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Watch {
    /// Watches the filesystem of a folder (`O_PATH` suffices) from now on.
    ///
    /// # Errors
    /// EPERM without CAP_SYS_ADMIN; EINVAL before Linux 5.9; ENODEV, EXDEV or
    /// EOPNOTSUPP where the filesystem cannot be watched.
    pub fn of_filesystem(folder: BorrowedFd<'_>) -> io::Result<Watch> {
        let flags = libc::FAN_CLASS_NOTIF
            | libc::FAN_CLOEXEC
            | libc::FAN_NONBLOCK
            | libc::FAN_REPORT_FID
            | libc::FAN_REPORT_DFID_NAME;
        // SAFETY: takes two integers.
        let fd = check(unsafe { libc::fanotify_init(flags, 0) }.into())?;
        let watch = Watch(adopt(fd as i32));
        let mark = libc::FAN_MARK_ADD | libc::FAN_MARK_FILESYSTEM;
        // SAFETY: the path is a terminated constant; the rest are integers.
        let marked = unsafe {
            libc::fanotify_mark(
                watch.0.as_raw_fd(),
                mark,
                ASKED,
                folder.as_raw_fd(),
                c".".as_ptr(),
            )
        };
        check(marked.into())?;
        Ok(watch)
    }

    /// Takes what was told since; zero bytes when that is nothing.
    ///
    /// # Errors
    /// As read(2).
    pub fn take(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            // SAFETY: the buffer is ours, writable and as long as is said.
            let len =
                unsafe { libc::read(self.0.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
            match check(len as libc::c_long) {
                Ok(len) => return Ok(len as usize),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return Ok(0),
                    io::ErrorKind::Interrupted => {}
                    _ => return Err(error),
                },
            }
        }
    }
}

/// What happened to one inode or name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event<'a> {
    mask: u64,
    /// The process that did it; 0 for one that cannot be seen from here.
    pub pid: i32,
    /// The inode.
    pub file: Option<FileHandle>,
    /// The folder, and the name in it.
    pub name: Option<(FileHandle, &'a CStr)>,
}

impl Event<'_> {
    /// Some events could not be told.
    #[must_use]
    pub fn is_overflow(&self) -> bool {
        self.mask & libc::FAN_Q_OVERFLOW != 0
    }

    /// Bytes of the file may have changed: written, cut off, or a descriptor or
    /// mapping with which it could be written has gone.
    #[must_use]
    pub fn is_of_contents(&self) -> bool {
        self.mask & (libc::FAN_MODIFY | libc::FAN_CLOSE_WRITE) != 0
    }

    /// The name came to be, or stands for something else now or for nothing.
    #[must_use]
    pub fn is_of_names(&self) -> bool {
        let names = libc::FAN_CREATE | libc::FAN_DELETE | libc::FAN_MOVED_FROM | libc::FAN_MOVED_TO;
        self.mask & names != 0
    }
}

/// Reads the events that [`Watch::take`] gave, but not those of the process
/// `except`. What is not understood ends them.
pub fn events(bytes: &[u8], except: i32) -> impl Iterator<Item = Event<'_>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        loop {
            let event_bytes = number(rest, 0)? as usize;
            let event = rest.get(..event_bytes)?;
            if event_bytes < METADATA_BYTES {
                return None;
            }
            rest = &rest[event_bytes..];
            let pid = number(event, 20)?.cast_signed();
            if pid != except {
                return parse(event, pid);
            }
        }
    })
}

fn parse(event: &[u8], pid: i32) -> Option<Event<'_>> {
    let mask = u64::from(number(event, 8)?) | u64::from(number(event, 12)?) << 32;
    let metadata_bytes = usize::from(u16::from_ne_bytes([event[6], event[7]]));
    let mut parsed = Event {
        mask,
        pid,
        file: None,
        name: None,
    };
    let mut rest = event.get(metadata_bytes..)?;
    while rest.len() >= RECORD_BYTES {
        let record_bytes = usize::from(u16::from_ne_bytes([rest[2], rest[3]]));
        let record = rest.get(..record_bytes)?;
        let handle_bytes = number(record, 12)? as usize;
        let kind = number(record, 16)?.cast_signed();
        let handle = record.get(RECORD_BYTES..RECORD_BYTES + handle_bytes)?;
        let handle = FileHandle::from_parts(kind, handle);
        match rest[0] {
            libc::FAN_EVENT_INFO_TYPE_FID => parsed.file = Some(handle),
            libc::FAN_EVENT_INFO_TYPE_DFID_NAME => {
                let name = &record[RECORD_BYTES + handle_bytes..];
                parsed.name = CStr::from_bytes_until_nul(name)
                    .ok()
                    .map(|name| (handle, name));
            }
            _ => {}
        }
        rest = &rest[record_bytes..];
    }
    Some(parsed)
}

/// The 32-bit number at an offset.
fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;

    /// Everything told of a folder's files by this process, by name.
    fn told(watch: &Watch, folder: &FileHandle) -> Vec<(String, bool, bool)> {
        let mut buffer = vec![0; 1 << 16];
        let mut told = Vec::new();
        loop {
            let len = watch.take(&mut buffer).expect("read");
            if len == 0 {
                return told;
            }
            for event in events(&buffer[..len], 0) {
                assert!(!event.is_overflow(), "the machine is too busy for a test");
                if let Some((at, name)) = &event.name
                    && at == folder
                    && event.pid == std::process::id().cast_signed()
                {
                    let name = name.to_str().expect("a name").to_owned();
                    told.push((name, event.is_of_contents(), event.is_of_names()));
                }
            }
        }
    }

    #[test]
    fn changes_are_told_by_handle_and_name() {
        let path = format!("/var/tmp/zcache-fanotify-{}", std::process::id());
        fs::create_dir(&path).expect("a folder");
        let folder = File::open(&path).expect("open");
        let handle = FileHandle::of(folder.as_fd()).expect("a handle");
        let watch = match Watch::of_filesystem(folder.as_fd()) {
            Ok(watch) => watch,
            Err(error) => {
                // Watching takes root.
                assert_eq!(error.raw_os_error(), Some(libc::EPERM));
                fs::remove_dir(&path).expect("removed");
                return;
            }
        };
        fs::write(format!("{path}/a"), "bytes").expect("written");
        let found = told(&watch, &handle);
        assert!(
            found.contains(&("a".into(), false, true)) || found.contains(&("a".into(), true, true)),
            "{found:?}"
        );
        assert!(
            found
                .iter()
                .any(|(name, contents, _)| name == "a" && *contents),
            "{found:?}"
        );
        fs::rename(format!("{path}/a"), format!("{path}/b")).expect("renamed");
        let names = told(&watch, &handle);
        assert_eq!(
            names,
            [("a".into(), false, true), ("b".into(), false, true)]
        );
        fs::remove_dir_all(&path).expect("removed");
    }

    #[test]
    fn no_bytes_are_misread() {
        assert_eq!(events(&[], 0).count(), 0);
        // An event that says to be longer than what is there, and a record.
        let mut bytes = vec![0; 60];
        bytes[..4].copy_from_slice(&100u32.to_ne_bytes());
        assert_eq!(events(&bytes, -1).count(), 0);
        bytes[..4].copy_from_slice(&60u32.to_ne_bytes());
        bytes[6..8].copy_from_slice(&24u16.to_ne_bytes());
        bytes[26..28].copy_from_slice(&36u16.to_ne_bytes());
        bytes[36..40].copy_from_slice(&99u32.to_ne_bytes());
        assert_eq!(events(&bytes, -1).count(), 0);
        bytes[..4].copy_from_slice(&0u32.to_ne_bytes());
        assert_eq!(events(&bytes, -1).count(), 0, "no endless loop");
    }
}
