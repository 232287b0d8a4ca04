//! Opens the unnamed file that holds blocks on disk, and says which
//! filesystems are RAM in disguise and how long a file may become.
//!
//! Stage on the data path: under the disk tier. The file never has a name that
//! outlives its opening, so it disappears with the last descriptor however the
//! process ends. One that ends between making the name and removing it leaves
//! an empty file behind, which the next one takes over.
//!
//! - Nobody but its owner can open the file, before it holds anything and after.
//! - A file that had a name is locked (flock(2)) by who opened it, so that two
//!   that are given one name never share one file.
//!
//! Does not read, write or size the file.

use std::ffi::CString;
use std::fs::{File, Metadata, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::fd::check;
use crate::process::effective_user;

/// The unit of direct I/O: offsets, lengths and addresses are multiples of it.
pub const SECTOR_SIZE: usize = 4096;

/// Only the owner reads or writes swapped memory.
const MODE: u32 = 0o600;

/// What others must not be able to do with a file that holds memory.
const MODE_OTHERS: u32 = 0o077;

/// Names that are tried for a file, where the filesystem has no unnamed files.
/// They are always the same, so that what ended processes leave behind is found
/// and used.
const NAMES: u32 = 16;

/// How often another process that just opens the same name is waited for.
const OPENING_TRIES: u32 = 50;

/// The pause between.
const OPENING_PAUSE: Duration = Duration::from_millis(2);

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
    /// The path is something that must not be overwritten, or that others can
    /// read.
    Refused(&'static str),
}

impl From<io::Error> for SwapFileError {
    fn from(error: io::Error) -> Self {
        SwapFileError::Io(error)
    }
}

/// Makes a swap file at `path`: in it when it is a directory, else as it. A
/// file that exists is taken over only when it is empty, ours and closed to
/// others, as one is that a killed process left. With `direct`, the page cache
/// is bypassed where the filesystem can.
///
/// # Errors
/// [`SwapFileError::Refused`] for any other file, a device, a pipe or a socket;
/// [`SwapFileError::Io`] for what the system says.
pub fn open(path: &Path, direct: bool) -> Result<SwapFile, SwapFileError> {
    if std::fs::metadata(path).is_ok_and(|metadata| metadata.is_dir()) {
        open_in(path, direct)
    } else {
        open_named(path, direct)
    }
}

fn open_in(directory: &Path, direct: bool) -> Result<SwapFile, SwapFileError> {
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
        result => Ok(result?),
    }
}

fn open_in_by_name(directory: &Path, direct: bool) -> Result<SwapFile, SwapFileError> {
    let user = effective_user();
    let usual = (0..NAMES).map(|number| format!(".zcache-swap-{user}-{number}"));
    // Others may have taken these in a directory that is everybody's.
    let random = || RandomState::new().hash_one(user);
    let unusual = std::iter::once_with(|| format!(".zcache-swap-{user}-{:x}", random()));
    let mut refused = SwapFileError::Io(io::ErrorKind::AlreadyExists.into());
    for name in usual.chain(unusual) {
        match try_named(&directory.join(name), direct) {
            Ok(Tried::Opened(swap)) => return Ok(swap),
            Ok(Tried::Busy) => {}
            Err(SwapFileError::Refused(what)) => refused = SwapFileError::Refused(what),
            Err(error) => return Err(error),
        }
    }
    Err(refused)
}

fn open_named(path: &Path, direct: bool) -> Result<SwapFile, SwapFileError> {
    for _ in 0..OPENING_TRIES {
        match try_named(path, direct)? {
            Tried::Opened(swap) => return Ok(swap),
            Tried::Busy => std::thread::sleep(OPENING_PAUSE),
        }
    }
    Err(SwapFileError::Refused(
        "other processes open it all the time; give each a path of its own",
    ))
}

/// What came of trying a name.
enum Tried {
    Opened(SwapFile),
    /// Another process is opening it at this moment.
    Busy,
}

fn try_named(path: &Path, direct: bool) -> Result<Tried, SwapFileError> {
    let open = |create_new| {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(create_new)
            .mode(MODE)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path)
    };
    let file = match std::fs::symlink_metadata(path) {
        Ok(metadata) => {
            // A device or a pipe is not even opened.
            may_take(&metadata).map_err(SwapFileError::Refused)?;
            open(false)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => open(true),
        Err(error) => Err(error),
    };
    let file = match file {
        Err(error) if came_or_went(&error) && path.parent().is_some_and(is_there) => {
            return Ok(Tried::Busy);
        }
        file => file?,
    };
    if is_locked_by_another(&file) {
        return Ok(Tried::Busy);
    }
    // Whoever held the lock before may have removed the name of this file, and
    // somebody else may have given it to another.
    let metadata = file.metadata()?;
    if metadata.nlink() == 0 || !names(path, &metadata) {
        return Ok(Tried::Busy);
    }
    may_take(&metadata).map_err(SwapFileError::Refused)?;
    // Whether direct I/O works is asked on the open file, because a failed open
    // may already have made the name.
    let direct = direct && set_direct(&file).is_ok();
    std::fs::remove_file(path)?;
    Ok(Tried::Opened(SwapFile { file, direct }))
}

/// Whether memory may be kept in this file, by all that the system knows of it.
fn may_take(metadata: &Metadata) -> Result<(), &'static str> {
    if metadata.file_type().is_block_device() {
        return Err("it is a block device");
    }
    if metadata.is_symlink() {
        return Err("it is a symbolic link; name the file that it leads to");
    }
    if !metadata.is_file() {
        return Err("it is neither a file nor a directory");
    }
    if metadata.len() > 0 {
        return Err("the file exists and is not empty; remove it, or name another path");
    }
    if metadata.uid() != effective_user() {
        return Err("the file belongs to another user, who could read memory in it");
    }
    if metadata.nlink() > 1 {
        return Err("the file has other names, by which memory in it could be read");
    }
    if metadata.mode() & MODE_OTHERS != 0 {
        return Err("the file is open to other users, who could read memory in it; remove it");
    }
    Ok(())
}

/// Locks a file for as long as it is open, unless another process did. On a
/// filesystem without locks nobody does.
fn is_locked_by_another(file: &File) -> bool {
    // SAFETY: a call on a descriptor that `file` keeps open, with an integer.
    let locked = unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
    check(locked.into()).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

/// Whether a file was made or removed between two looks.
fn came_or_went(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound
    )
}

fn is_there(directory: &Path) -> bool {
    let here = PathBuf::from(".");
    let directory = match directory.as_os_str().is_empty() {
        true => &here,
        false => directory,
    };
    directory.is_dir()
}

/// Whether this path leads to that file.
fn names(path: &Path, file: &Metadata) -> bool {
    let named = std::fs::symlink_metadata(path);
    named.is_ok_and(|named| (named.dev(), named.ino()) == (file.dev(), file.ino()))
}

/// How long a file of this process may become at this moment, in bytes
/// (`RLIMIT_FSIZE`). A write beyond it ends the process by a signal, unless it
/// ignores that.
#[must_use]
pub fn length_limit() -> u64 {
    let mut limit = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: the limit is written to a structure of ours. Failure leaves it as
    // it is, which is no limit.
    unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &raw mut limit) };
    limit.rlim_cur
}

/// Sets that limit, up to what this process is allowed at most, as its parent
/// could have done. For tests: the limit is that of the whole process.
///
/// # Errors
/// What `setrlimit` says.
pub fn set_length_limit(bytes: u64) -> io::Result<()> {
    let mut limit = libc::rlimit {
        rlim_cur: bytes,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: the limit is written to a structure of ours.
    let got = unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &raw mut limit) };
    check(got.into())?;
    limit.rlim_cur = bytes;
    // SAFETY: the limit is read from a structure of ours.
    let set = unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) };
    check(set.into()).map(|_| ())
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

    fn refusal(path: &Path) -> &'static str {
        match open(path, true) {
            Err(SwapFileError::Refused(what)) => what,
            other => panic!("{}: {other:?}", path.display()),
        }
    }

    fn leave(path: &Path, mode: u32) {
        let left = OpenOptions::new().write(true).create_new(true).open(path);
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
        left.unwrap().set_permissions(permissions).unwrap();
    }

    #[test]
    fn a_new_file_or_one_that_a_killed_process_left_is_taken_and_unlinked() {
        let directory = scratch("files");
        let path = directory.join("swap");
        open(&path, true).unwrap();
        assert!(!path.exists());
        leave(&path, 0o600);
        open(&path, true).unwrap();
        assert!(!path.exists());
        assert!(matches!(
            open(&directory.join("missing/swap"), true),
            Err(SwapFileError::Io(_))
        ));
        std::fs::remove_dir(&directory).unwrap();
    }

    #[test]
    fn names_that_killed_processes_left_in_a_directory_are_used_up() {
        let directory = scratch("left");
        let user = effective_user();
        for number in 0..NAMES {
            leave(
                &directory.join(format!(".zcache-swap-{user}-{number}")),
                0o600,
            );
        }
        let open_files: Vec<SwapFile> = (0..NAMES + 2)
            .map(|_| open_in_by_name(&directory, true).unwrap())
            .collect();
        let inodes = open_files
            .iter()
            .map(|swap| swap.file.metadata().unwrap().ino());
        let inodes: std::collections::BTreeSet<u64> = inodes.collect();
        assert_eq!(inodes.len(), open_files.len(), "no two share a file");
        let left = std::fs::read_dir(&directory).unwrap().count();
        assert!(left < NAMES as usize, "{left} names stay");
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn names_that_others_took_in_a_directory_do_not_stop_us() {
        let directory = scratch("taken");
        let user = effective_user();
        for number in 0..NAMES {
            let path = directory.join(format!(".zcache-swap-{user}-{number}"));
            std::fs::write(path, b"precious").unwrap();
        }
        open_in_by_name(&directory, true).unwrap();
        let left = std::fs::read_dir(&directory).unwrap().count();
        assert_eq!(left, NAMES as usize);
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn files_that_others_own_name_or_may_open_are_refused_and_stay() {
        let directory = scratch("others");
        let path = directory.join("swap");
        leave(&path, 0o644);
        assert!(refusal(&path).contains("open to other users"));
        std::fs::remove_file(&path).unwrap();
        leave(&path, 0o600);
        std::fs::hard_link(&path, directory.join("second")).unwrap();
        assert!(refusal(&path).contains("other names"));
        std::fs::remove_file(directory.join("second")).unwrap();
        if effective_user() == 0 {
            std::os::unix::fs::chown(&path, Some(1), None).unwrap();
            assert!(refusal(&path).contains("another user"));
        }
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, b"precious").unwrap();
        assert!(refusal(&path).contains("not empty"));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        std::os::unix::fs::symlink(&path, directory.join("link")).unwrap();
        assert!(refusal(&directory.join("link")).contains("symbolic link"));
        assert!(refusal(Path::new("/dev/null")).contains("neither"));
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn who_opens_one_path_at_once_never_shares_a_file() {
        let directory = scratch("at-once");
        let path = directory.join("swap");
        let opened: Vec<SwapFile> = std::thread::scope(|scope| {
            let open = || {
                (0..20)
                    .map(|_| open(&path, false).unwrap())
                    .collect::<Vec<_>>()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
            threads
                .into_iter()
                .flat_map(|thread| thread.join().unwrap())
                .collect()
        });
        let inodes = opened
            .iter()
            .map(|swap| swap.file.metadata().unwrap().ino());
        assert_eq!(inodes.collect::<std::collections::BTreeSet<_>>().len(), 80);
        std::fs::remove_dir(&directory).unwrap();
    }

    #[test]
    fn tmpfs_is_told_from_disk() {
        assert!(is_in_ram(Path::new("/dev/shm")).unwrap());
        assert!(!is_in_ram(Path::new("/proc")).unwrap());
    }
}
