//! Who writes a file, told by its leases. See `fcntl(2)`, F_SETLEASE.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::fd::check;

/// Whether any descriptor or mapping of this machine can write the file that
/// `file` stands for; `file` itself, if it can. For this a lease is taken and given
/// back at once: who opens the file for writing at this moment waits so long, or
/// gets EWOULDBLOCK with O_NONBLOCK.
///
/// SIGIO must be blocked or ignored: Linux sends it when the lease is in the way.
///
/// # Errors
/// EINVAL, ENOLCK or EOPNOTSUPP where the filesystem has no leases, EACCES for
/// other users' files without CAP_LEASE.
pub fn is_open_for_writing(file: BorrowedFd<'_>) -> io::Result<bool> {
    match lease(file, libc::F_RDLCK) {
        Ok(()) => {
            // One that is not there any more is none.
            let _ = lease(file, libc::F_UNLCK);
            Ok(false)
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(error) => Err(error),
    }
}

fn lease(file: BorrowedFd<'_>, kind: i32) -> io::Result<()> {
    // SAFETY: takes three integers.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, kind) };
    check(result.into()).map(drop)
}

#[cfg(test)]
mod tests {
    use std::fs::{File, OpenOptions};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_writer_is_noticed_while_it_is_there() {
        let path = format!("/var/tmp/zcache-lease-{}", std::process::id());
        std::fs::write(&path, "bytes").expect("written");
        let reader = File::open(&path).expect("open");
        assert!(!is_open_for_writing(reader.as_fd()).expect("leases"));
        let writer = OpenOptions::new().write(true).open(&path).expect("open");
        assert!(is_open_for_writing(reader.as_fd()).expect("leases"));
        assert!(is_open_for_writing(writer.as_fd()).expect("leases"));
        drop(writer);
        assert!(!is_open_for_writing(reader.as_fd()).expect("leases"));
        std::fs::remove_file(&path).expect("removed");
    }
}
