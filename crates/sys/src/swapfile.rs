//! Opens the unnamed file that holds blocks on disk, and says which
//! filesystems are RAM in disguise.
//!
//! Stage on the data path: under the disk tier. The file never has a name that
//! outlives its opening, so it disappears with the last descriptor however the
//! process ends.
//!
//! Does not read, write or size the file.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// The unit of direct I/O: offsets, lengths and addresses are multiples of it.
pub const SECTOR_SIZE: usize = 4096;

/// Only the owner reads or writes swapped memory.
const MODE: u32 = 0o600;

/// How often a name for a file is made up before giving up, where the
/// filesystem has no unnamed files.
const NAME_TRIES: u32 = 16;

/// A swap file and how it was opened.
#[derive(Debug)]
pub struct SwapFile {
    /// The file, empty, mode 0600, without a name.
    pub file: File,
    /// Whether the page cache is bypassed, so that swapped pages do not take
    /// RAM a second time and transfers must be aligned to [`SECTOR_SIZE`].
    pub direct: bool,
}

/// Why a swap file was not made.
#[derive(Debug)]
pub enum SwapFileError {
    /// The system refused.
    Io(io::Error),
    /// The path is something that must not be overwritten.
    Refused(&'static str),
}

impl From<io::Error> for SwapFileError {
    fn from(error: io::Error) -> Self {
        SwapFileError::Io(error)
    }
}

/// Makes a swap file at `path`: in it when it is a directory, else as it. A
/// file that exists is taken over only when it is empty. With `direct`, the
/// page cache is bypassed where the filesystem can.
///
/// # Errors
/// [`SwapFileError::Refused`] for a file with contents, a device, a pipe or a
/// socket; [`SwapFileError::Io`] for what the system says.
pub fn open(path: &Path, direct: bool) -> Result<SwapFile, SwapFileError> {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Ok(open_in(path, direct)?),
        Ok(metadata) if metadata.file_type().is_block_device() => {
            Err(SwapFileError::Refused("it is a block device"))
        }
        Ok(metadata) if !metadata.is_file() => Err(SwapFileError::Refused(
            "it is neither a file nor a directory",
        )),
        Ok(metadata) if metadata.len() > 0 => {
            Err(SwapFileError::Refused("the file exists and is not empty"))
        }
        Ok(_) => Ok(open_named(path, false, direct)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Ok(open_named(path, true, direct)?)
        }
        Err(error) => Err(error.into()),
    }
}

fn open_in(directory: &Path, direct: bool) -> io::Result<SwapFile> {
    let unnamed = with_direct(direct, |flags| {
        OpenOptions::new()
            .read(true)
            .write(true)
            .mode(MODE)
            .custom_flags(libc::O_TMPFILE | flags)
            .open(directory)
    });
    match unnamed {
        // EISDIR is what kernels and filesystems without O_TMPFILE make of it.
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::EOPNOTSUPP | libc::EISDIR | libc::EINVAL)
            ) =>
        {
            open_in_by_name(directory, direct)
        }
        result => result,
    }
}

fn open_in_by_name(directory: &Path, direct: bool) -> io::Result<SwapFile> {
    let process = std::process::id();
    for number in 0..NAME_TRIES {
        let path = directory.join(format!(".zcache-swap-{process}-{number}"));
        match open_named(&path, true, direct) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => return result,
        }
    }
    Err(io::Error::from(io::ErrorKind::AlreadyExists))
}

fn open_named(path: &Path, create_new: bool, direct: bool) -> io::Result<SwapFile> {
    // Whether direct I/O works is asked on the open file, because a failed open
    // may already have made the name, which create_new would then refuse.
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(create_new)
        .mode(MODE)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)?;
    let direct = direct && set_direct(&file).is_ok();
    std::fs::remove_file(path)?;
    Ok(SwapFile { file, direct })
}

/// Opens with `O_DIRECT` and, where that is refused, without.
fn with_direct(
    direct: bool,
    open: impl Fn(libc::c_int) -> io::Result<File>,
) -> io::Result<SwapFile> {
    if direct {
        match open(libc::O_DIRECT) {
            Ok(file) => return Ok(SwapFile { file, direct: true }),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            Err(error) => return Err(error),
        }
    }
    let file = open(0)?;
    Ok(SwapFile {
        file,
        direct: false,
    })
}

fn set_direct(file: &File) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    // SAFETY: F_GETFL on a descriptor that `file` keeps open takes no pointer.
    let flags = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) };
    if flags < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: F_SETFL on the same descriptor takes an integer and no pointer.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags | libc::O_DIRECT) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Whether files at this path live in RAM (tmpfs, ramfs, hugetlbfs), where
/// swapping to them would free nothing.
///
/// # Errors
/// What `statfs` says.
pub fn is_in_ram(path: &Path) -> io::Result<bool> {
    /// Filesystem numbers from statfs(2): tmpfs, ramfs, hugetlbfs.
    const IN_RAM: [u32; 3] = [0x0102_1994, 0x8584_58f6, 0x9584_58f6];

    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut info = std::mem::MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: the path ends in a zero byte and `info` has room for the result.
    let result = unsafe { libc::statfs(path.as_ptr(), info.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: statfs succeeded and so filled the structure.
    let info = unsafe { info.assume_init() };
    // The width and sign of the number differ between architectures; the low
    // 32 bits are the filesystem's.
    let magic = info.f_type as u32;
    Ok(IN_RAM.contains(&magic))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn scratch(name: &str) -> std::path::PathBuf {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
        let path = path.join(format!("swapfile-test-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn a_directory_gets_a_private_file_without_a_name() {
        let directory = scratch("directory");
        for direct in [false, true] {
            let swap = open(&directory, direct).unwrap();
            let metadata = swap.file.metadata().unwrap();
            assert_eq!((metadata.nlink(), metadata.mode() & 0o777), (0, 0o600));
            let swap = open_in_by_name(&directory, direct).unwrap();
            let metadata = swap.file.metadata().unwrap();
            assert_eq!((metadata.nlink(), metadata.mode() & 0o777), (0, 0o600));
        }
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
        std::fs::remove_dir(&directory).unwrap();
    }

    #[test]
    fn a_new_or_empty_file_is_taken_and_unlinked_and_others_are_refused() {
        let directory = scratch("files");
        let path = directory.join("swap");
        open(&path, true).unwrap();
        assert!(!path.exists());
        std::fs::write(&path, b"").unwrap();
        open(&path, true).unwrap();
        assert!(!path.exists());
        std::fs::write(&path, b"precious").unwrap();
        assert!(matches!(open(&path, true), Err(SwapFileError::Refused(_))));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(
            open(Path::new("/dev/null"), true),
            Err(SwapFileError::Refused(_))
        ));
        assert!(matches!(
            open(&directory.join("missing/swap"), true),
            Err(SwapFileError::Io(_))
        ));
        std::fs::remove_dir(&directory).unwrap();
    }

    #[test]
    fn tmpfs_is_told_from_disk() {
        assert!(is_in_ram(Path::new("/dev/shm")).unwrap());
        assert!(!is_in_ram(Path::new("/proc")).unwrap());
    }
}
