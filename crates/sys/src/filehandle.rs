//! File handles: names of inodes that outlive descriptors and are never given
//! to another inode. See `name_to_handle_at(2)`.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use crate::fd::{adopt, check};

/// The most bytes that a handle has (`MAX_HANDLE_SZ`).
const BYTES_MAX: usize = 128;

/// `struct file_handle` with room for the longest one.
#[repr(C)]
struct Raw {
    handle_bytes: u32,
    handle_type: i32,
    bytes: [u8; BYTES_MAX],
}

/// Handles of the usual filesystems have no more bytes and are kept in place.
const SHORT_BYTES: usize = 22;

/// The handle of an inode within its filesystem.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct FileHandle {
    kind: i32,
    bytes: Bytes,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Bytes {
    /// As many of them as the first says; the others are zero.
    Short(u8, [u8; SHORT_BYTES]),
    Long(Box<[u8]>),
}

impl Bytes {
    fn of(bytes: &[u8]) -> Bytes {
        let mut short = [0; SHORT_BYTES];
        match short.get_mut(..bytes.len()) {
            Some(room) => {
                room.copy_from_slice(bytes);
                Bytes::Short(bytes.len() as u8, short)
            }
            None => Bytes::Long(bytes.into()),
        }
    }

    fn as_slice(&self) -> &[u8] {
        match self {
            Bytes::Short(len, bytes) => &bytes[..usize::from(*len)],
            Bytes::Long(bytes) => bytes,
        }
    }
}

/// A mount of a filesystem, as long as it is there or something of it is open
/// (`mnt_id` of `statx(2)`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct MountId(pub u32);

impl FileHandle {
    /// The handle of what `fd` (`O_PATH` suffices) stands for.
    ///
    /// # Errors
    /// EOPNOTSUPP where the filesystem has none.
    pub fn of(fd: BorrowedFd<'_>) -> io::Result<FileHandle> {
        FileHandle::with_mount(fd).map(|(handle, _)| handle)
    }

    /// The same, and the mount that `fd` is of.
    ///
    /// # Errors
    /// As above.
    pub fn with_mount(fd: BorrowedFd<'_>) -> io::Result<(FileHandle, MountId)> {
        let mut raw = Raw {
            handle_bytes: BYTES_MAX as u32,
            handle_type: 0,
            bytes: [0; BYTES_MAX],
        };
        let mut mount_id: libc::c_int = 0;
        // SAFETY: the handle has the room that it announces, the path is empty
        // and terminated, and all live across the call.
        let result = unsafe {
            libc::syscall(
                libc::SYS_name_to_handle_at,
                fd.as_raw_fd(),
                c"".as_ptr(),
                &raw mut raw,
                &raw mut mount_id,
                libc::AT_EMPTY_PATH,
            )
        };
        check(result)?;
        let handle =
            FileHandle::from_parts(raw.handle_type, &raw.bytes[..raw.handle_bytes as usize]);
        Ok((handle, MountId(mount_id.cast_unsigned())))
    }

    /// A handle that the kernel has told elsewhere.
    pub(crate) fn from_parts(kind: i32, bytes: &[u8]) -> FileHandle {
        FileHandle {
            kind,
            bytes: Bytes::of(bytes),
        }
    }

    /// Opens the inode; `mount` is any descriptor of its filesystem that is not
    /// `O_PATH`.
    ///
    /// # Errors
    /// ESTALE when the inode is gone, EPERM without CAP_DAC_READ_SEARCH, and
    /// what open(2) says.
    pub fn open(&self, mount: BorrowedFd<'_>, flags: i32) -> io::Result<OwnedFd> {
        let mut raw = Raw {
            handle_bytes: self.bytes.as_slice().len() as u32,
            handle_type: self.kind,
            bytes: [0; BYTES_MAX],
        };
        let bytes = self.bytes.as_slice();
        raw.bytes[..bytes.len()].copy_from_slice(bytes);
        // SAFETY: the handle has as many bytes as it says and lives across the
        // call, which takes only integers beside it.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_open_by_handle_at,
                mount.as_raw_fd(),
                &raw mut raw,
                flags | libc::O_CLOEXEC,
            )
        };
        Ok(adopt(check(fd)? as RawFd))
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_handle_names_the_same_file_again() {
        let folder = std::env::temp_dir();
        let path = folder.join(format!("zcache-handle-{}", std::process::id()));
        std::fs::write(&path, b"here").expect("a file");
        let file = std::fs::File::open(&path).expect("open");
        let handle = match FileHandle::of(file.as_fd()) {
            Ok(handle) => handle,
            Err(error) => {
                // Not every filesystem has them, and then says so.
                assert_eq!(error.raw_os_error(), Some(libc::EOPNOTSUPP));
                return;
            }
        };
        assert_eq!(handle, FileHandle::of(file.as_fd()).expect("again"));
        let mount = std::fs::File::open(&folder).expect("the folder");
        match handle.open(mount.as_fd(), libc::O_RDONLY) {
            Ok(fd) => {
                let mut file = std::fs::File::from(fd);
                let mut text = String::new();
                std::io::Read::read_to_string(&mut file, &mut text).expect("read");
                assert_eq!(text, "here");
            }
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EPERM)),
        }
        std::fs::remove_file(&path).expect("remove");
    }
}
