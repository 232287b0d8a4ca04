//! Sockets of this machine.
//!
//! Not on the data path. Sources: `unix(7)`, `socket(7)`, `connect(2)`.

use std::io;
use std::mem::offset_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::fd::check;

/// Connects to a socket of this machine, within a time: where the one who listens accepts
/// nobody, `connect` would wait without end.
///
/// # Errors
/// What the system says; `EAGAIN` after the time; `ENAMETOOLONG` of a path that is longer
/// than sockets have.
pub fn connect(path: &Path, within: Duration) -> io::Result<UnixStream> {
    // SAFETY: takes three integers.
    let fd = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    let fd = check(fd.into())?;
    // SAFETY: it was just made, and is nobody else's.
    let socket = UnixStream::from(unsafe { OwnedFd::from_raw_fd(fd as i32) });
    socket.set_write_timeout(Some(within.max(Duration::from_millis(1))))?;
    // SAFETY: all zeros are an address.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    let name = path.as_os_str().as_bytes();
    if name.len() >= address.sun_path.len() {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    for (to, byte) in address.sun_path.iter_mut().zip(name) {
        *to = *byte as libc::c_char;
    }
    let len = offset_of!(libc::sockaddr_un, sun_path) + name.len() + 1;
    // SAFETY: the address is as long as it is said to be.
    let result = unsafe {
        libc::connect(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            len as libc::socklen_t,
        )
    };
    check(result.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;
    use std::time::Instant;

    #[test]
    fn who_accepts_nobody_is_not_waited_for() {
        let path = std::env::temp_dir().join(format!("zcache-socket-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let mut first = connect(&path, Duration::from_secs(1)).unwrap();
        first.write_all(b"here").unwrap();
        let mut read = [0; 4];
        listener.accept().unwrap().0.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"here");
        let start = Instant::now();
        let mut waiting = Vec::new();
        let error = loop {
            match connect(&path, Duration::from_millis(50)) {
                Ok(socket) => waiting.push(socket),
                Err(error) => break error,
            }
        };
        assert_eq!(error.raw_os_error(), Some(libc::EAGAIN));
        assert!(start.elapsed() < Duration::from_secs(20));
        std::fs::remove_file(&path).unwrap();
        assert!(connect(&path, Duration::from_secs(1)).is_err());
        let long = Path::new("/").join("a".repeat(200));
        let error = connect(&long, Duration::from_secs(1)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENAMETOOLONG));
    }
}
