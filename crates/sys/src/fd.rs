//! Descriptors: adoption of raw numbers, pidfds, epoll, eventfd-like pipes.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// Takes ownership of a descriptor number that the kernel has just handed out.
pub(crate) fn adopt(number: RawFd) -> OwnedFd {
    // SAFETY: callers pass a number that a system call returned as new to this
    // process, so nobody else owns it.
    unsafe { OwnedFd::from_raw_fd(number) }
}

pub(crate) fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

/// Closes a descriptor and says what the filesystem thinks of it: some report
/// only here that something written before is lost. See `close(2)`.
///
/// # Errors
/// EIO, ENOSPC, EDQUOT.
pub fn close(fd: OwnedFd) -> io::Result<()> {
    // SAFETY: the number is ours, and into_raw_fd keeps it from being closed twice.
    check(unsafe { libc::close(fd.into_raw_fd()) }.into()).map(drop)
}

/// A pidfd: names a process beyond reuse of its number. See `pidfd_open(2)`.
#[derive(Debug)]
pub struct PidFd {
    fd: OwnedFd,
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl PidFd {
    /// Opens a pidfd for the process `pid`.
    ///
    /// # Errors
    /// ESRCH when there is none.
    pub fn open(pid: i32) -> io::Result<PidFd> {
        // SAFETY: takes two integers and touches no memory of ours.
        let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
        Ok(PidFd {
            fd: adopt(fd as RawFd),
        })
    }

    /// Duplicates descriptor `number` of that process into ours.
    ///
    /// # Errors
    /// EPERM without ptrace permission, EBADF for a closed number.
    pub fn take_fd(&self, number: RawFd) -> io::Result<OwnedFd> {
        // SAFETY: takes three integers and touches no memory of ours.
        let fd =
            check(unsafe { libc::syscall(libc::SYS_pidfd_getfd, self.fd.as_raw_fd(), number, 0) })?;
        Ok(adopt(fd as RawFd))
    }

    /// Sends a signal to that process.
    ///
    /// # Errors
    /// ESRCH when it has ended.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        // SAFETY: a null siginfo is allowed and means "as kill(2)".
        check(unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.fd.as_raw_fd(),
                signal,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        })?;
        Ok(())
    }
}

/// Waits until `fd` is readable (for a pidfd: until the process has ended).
/// Returns false when `timeout` passed first.
///
/// # Errors
/// Whatever `poll(2)` reports but EINTR, which counts as a timeout.
pub fn wait_readable(fd: BorrowedFd<'_>, timeout: Duration) -> io::Result<bool> {
    let mut poll = libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    let millis = timeout.as_millis().min(i32::MAX as u128) as i32;
    // SAFETY: one pollfd that lives across the call.
    let result = unsafe { libc::poll(&raw mut poll, 1, millis) };
    if result < 0 {
        let error = io::Error::last_os_error();
        return if error.raw_os_error() == Some(libc::EINTR) {
            Ok(false)
        } else {
            Err(error)
        };
    }
    Ok(result > 0)
}

/// Empties an eventfd, which must be readable or not block; returns its count. See
/// `eventfd(2)`.
#[must_use]
pub fn read_counter(fd: &OwnedFd) -> u64 {
    let mut count = 0u64;
    // SAFETY: reads eight bytes into a live integer.
    let _ = unsafe { libc::read(fd.as_raw_fd(), (&raw mut count).cast(), 8) };
    count
}

/// An epoll instance whose events carry a caller's number.
#[derive(Debug)]
pub struct Epoll {
    fd: OwnedFd,
}

impl Epoll {
    /// Makes an empty set.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM.
    pub fn new() -> io::Result<Epoll> {
        // SAFETY: takes one integer.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) }.into())?;
        Ok(Epoll {
            fd: adopt(fd as RawFd),
        })
    }

    /// Adds `fd` for reading under `token`.
    ///
    /// # Errors
    /// EEXIST when it is there, ENOMEM, ENOSPC.
    pub fn add(&self, fd: BorrowedFd<'_>, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, libc::EPOLLIN as u32, token)
    }

    /// Listens to `fd`, which is in the set, or stops listening to it. What is
    /// ready when listening begins is reported.
    ///
    /// # Errors
    /// ENOENT when it is not there.
    pub fn modify(&self, fd: BorrowedFd<'_>, token: u64, listens: bool) -> io::Result<()> {
        let events = if listens { libc::EPOLLIN as u32 } else { 0 };
        self.control(libc::EPOLL_CTL_MOD, fd, events, token)
    }

    fn control(
        &self,
        operation: libc::c_int,
        fd: BorrowedFd<'_>,
        events: u32,
        token: u64,
    ) -> io::Result<()> {
        let mut event = libc::epoll_event { events, u64: token };
        // SAFETY: the event lives across the call.
        let result = unsafe {
            libc::epoll_ctl(
                self.fd.as_raw_fd(),
                operation,
                fd.as_raw_fd(),
                &raw mut event,
            )
        };
        check(result.into())?;
        Ok(())
    }

    /// Removes `fd`.
    ///
    /// # Errors
    /// ENOENT when it was not there.
    pub fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        // SAFETY: a null event is allowed for removal.
        let result = unsafe {
            libc::epoll_ctl(
                self.fd.as_raw_fd(),
                libc::EPOLL_CTL_DEL,
                fd.as_raw_fd(),
                std::ptr::null_mut(),
            )
        };
        check(result.into())?;
        Ok(())
    }

    /// Waits for events and appends their tokens to `tokens`; a signal counts
    /// as nothing ready.
    ///
    /// # Errors
    /// Whatever `epoll_wait(2)` reports but EINTR.
    pub fn wait(&self, tokens: &mut Vec<u64>, timeout: Option<Duration>) -> io::Result<()> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 32];
        let millis = timeout.map_or(-1, |t| t.as_millis().min(i32::MAX as u128) as i32);
        // SAFETY: the array has as many events as the call is told.
        let got = unsafe { libc::epoll_wait(self.fd.as_raw_fd(), events.as_mut_ptr(), 32, millis) };
        if got < 0 {
            let error = io::Error::last_os_error();
            return if error.raw_os_error() == Some(libc::EINTR) {
                Ok(())
            } else {
                Err(error)
            };
        }
        tokens.extend(events[..got as usize].iter().map(|event| event.u64));
        Ok(())
    }
}
