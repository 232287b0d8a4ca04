//! A socket on which everything has an end: each reply and each request by a time,
//! and a reply in bytes.
//!
//! - However a server trickles, a call returns at its time.
//! - Bytes beyond what any reply has are not read.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

/// The system takes a timeout of zero for none.
const WAIT_MIN: Duration = Duration::from_micros(100);

/// A connected socket.
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    /// Connects to a socket of this machine: where the one who listens accepts nobody,
    /// connect(2) would wait without end.
    pub(super) fn connect_unix(path: &Path, within: Duration) -> io::Result<Socket> {
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        let wait = Some(within.max(WAIT_MIN));
        set_socket_timeout(&socket, Timeout::Send, wait)?;
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(Socket::Unix(UnixStream::from(socket)))
    }

    fn set_read_timeout(&self, wait: Duration) -> io::Result<()> {
        match self {
            Socket::Tcp(socket) => socket.set_read_timeout(Some(wait)),
            Socket::Unix(socket) => socket.set_read_timeout(Some(wait)),
        }
    }

    fn set_write_timeout(&self, wait: Duration) -> io::Result<()> {
        match self {
            Socket::Tcp(socket) => socket.set_write_timeout(Some(wait)),
            Socket::Unix(socket) => socket.set_write_timeout(Some(wait)),
        }
    }
}

/// See the module's description.
pub(super) struct Bounded {
    socket: Socket,
    until: Instant,
    /// What the current wait is, for reads and writes.
    read_wait: Duration,
    write_wait: Duration,
    /// Bytes that the reply may still have.
    left: usize,
}

impl Bounded {
    pub(super) fn new(socket: Socket) -> Bounded {
        Bounded {
            socket,
            until: Instant::now(),
            read_wait: Duration::ZERO,
            write_wait: Duration::ZERO,
            left: 0,
        }
    }

    /// What is read and written from now on ends within this time, and is no more than
    /// so many bytes.
    pub(super) fn allow(&mut self, within: Duration, bytes: usize) {
        self.until = Instant::now() + within;
        self.left = bytes;
    }

    fn wait(&self) -> io::Result<Duration> {
        let wait = self.until.saturating_duration_since(Instant::now());
        match wait.is_zero() {
            true => Err(io::ErrorKind::TimedOut.into()),
            false => Ok(wait.max(WAIT_MIN)),
        }
    }
}

/// Whether a wait that is set may stand for another: a little more is no harm, and
/// each change is a system call.
fn suffices(set: Duration, wanted: Duration) -> bool {
    set >= wanted && set <= wanted + wanted / 8
}

impl Read for Bounded {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::Error::other("the reply is longer than any should be"));
        }
        let wait = self.wait()?;
        if !suffices(self.read_wait, wait) {
            self.socket.set_read_timeout(wait)?;
            self.read_wait = wait;
        }
        let most = bytes.len().min(self.left);
        let read = match &mut self.socket {
            Socket::Tcp(socket) => socket.read(&mut bytes[..most]),
            Socket::Unix(socket) => socket.read(&mut bytes[..most]),
        };
        let len = read.map_err(timed_out)?;
        self.left -= len;
        Ok(len)
    }
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let wait = self.wait()?;
        if !suffices(self.write_wait, wait) {
            self.socket.set_write_timeout(wait)?;
            self.write_wait = wait;
        }
        let written = match &mut self.socket {
            Socket::Tcp(socket) => socket.write(bytes),
            Socket::Unix(socket) => socket.write(bytes),
        };
        written.map_err(timed_out)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The system says of a timeout that the call would block.
fn timed_out(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_trickles_does_not_hold_up() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        std::thread::spawn(move || {
            while theirs.write_all(b"a").is_ok() {
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let mut bounded = Bounded::new(Socket::Unix(ours));
        let start = Instant::now();
        bounded.allow(Duration::from_millis(100), 1 << 20);
        let error = bounded.read_exact(&mut [0; 4096]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(start.elapsed() < Duration::from_secs(2));
    }

    #[test]
    fn who_accepts_nobody_is_not_waited_for() {
        let path = std::env::temp_dir().join(format!("zcache-socket-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let start = Instant::now();
        let mut waiting = Vec::new();
        let error = loop {
            match Socket::connect_unix(&path, Duration::from_millis(50)) {
                Ok(socket) => waiting.push(socket),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert!(start.elapsed() < Duration::from_secs(20));
        drop(listener);
        std::fs::remove_file(&path).unwrap();
        assert!(Socket::connect_unix(&path, Duration::from_secs(1)).is_err());
    }

    #[test]
    fn a_reply_without_an_end_is_not_read_on() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        std::thread::spawn(move || while theirs.write_all(&[b'a'; 4096]).is_ok() {});
        let mut bounded = Bounded::new(Socket::Unix(ours));
        bounded.allow(Duration::from_secs(10), 100_000);
        let mut read = Vec::new();
        assert!(bounded.read_to_end(&mut read).is_err());
        assert!(read.len() <= 100_000);
    }

    #[test]
    fn a_peer_that_reads_nothing_does_not_hold_up() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut bounded = Bounded::new(Socket::Unix(ours));
        bounded.allow(Duration::from_millis(100), 0);
        let error = bounded.write_all(&vec![0; 16 << 20]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
