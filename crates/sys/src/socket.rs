//! A descriptor sent to another process through a socket; a socket's timeouts.
//! Source: `unix(7)`, `cmsg(3)`, `recvmsg(2)`, `socket(7)`.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use crate::fd::check;

/// Bytes of a control message that carries one descriptor.
const CONTROL_BYTES: usize = 24;

/// `struct cmsghdr` with one descriptor behind it.
#[repr(C)]
struct Control {
    len: usize,
    level: i32,
    kind: i32,
    descriptor: i32,
    padding: i32,
}

const _: () = assert!(size_of::<Control>() == CONTROL_BYTES);
const _: () = assert!(size_of::<libc::msghdr>() == 56);

/// Sends a copy of `descriptor` through `socket`, with one byte.
///
/// # Errors
/// Whatever `sendmsg(2)` reports.
pub fn send_descriptor(socket: &OwnedFd, descriptor: impl AsFd) -> io::Result<()> {
    let mut byte = 0u8;
    let mut vector = libc::iovec {
        iov_base: (&raw mut byte).cast(),
        iov_len: 1,
    };
    let mut control = Control {
        len: 20,
        level: libc::SOL_SOCKET,
        kind: libc::SCM_RIGHTS,
        descriptor: descriptor.as_fd().as_raw_fd(),
        padding: 0,
    };
    // SAFETY: all-zero is a valid value of this plain structure.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut vector;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = CONTROL_BYTES;
    // SAFETY: everything that the message points to lives across the call.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
    check(sent as libc::c_long).map(drop)
}

/// What another process needs in memory to receive a descriptor.
#[derive(Clone, Debug)]
pub struct ReceivingMessage {
    /// To be written at the address that it was made for: a `struct msghdr` and
    /// what that points to.
    pub bytes: Vec<u8>,
    /// Where the descriptor's number is after `recvmsg(2)`.
    pub descriptor_at: u64,
}

/// Makes the message for a process that will have it at `address`.
#[must_use]
pub fn receiving_message(address: u64) -> ReceivingMessage {
    let header = size_of::<libc::msghdr>() as u64;
    let vector = address + header;
    let control = vector + 16;
    let byte = control + CONTROL_BYTES as u64;
    let mut bytes = Vec::new();
    // name, its length, the vector, how many, the control message, its length,
    // flags; then the vector and room for the rest.
    for word in [0, 0, vector, 1, control, CONTROL_BYTES as u64, 0, byte, 1] {
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    bytes.resize(bytes.len() + CONTROL_BYTES + 1, 0);
    ReceivingMessage {
        bytes,
        descriptor_at: control + 16,
    }
}

/// How long calls that receive, or that send, wait by this socket; `None` without a
/// bound, or if it is none. Source: `SO_RCVTIMEO` in `socket(7)`.
#[must_use]
pub fn timeout(socket: &OwnedFd, receives: bool) -> Option<Duration> {
    let option = match receives {
        true => libc::SO_RCVTIMEO,
        false => libc::SO_SNDTIMEO,
    };
    let [seconds, microseconds]: [i64; 2] = option_of(socket, option)?;
    let seconds = Duration::from_secs(u64::try_from(seconds).ok()?);
    let timeout = seconds + Duration::from_micros(u64::try_from(microseconds).ok()?);
    (!timeout.is_zero()).then_some(timeout)
}

/// Whether this is a socket without bounds between messages.
#[must_use]
pub fn is_stream(socket: &OwnedFd) -> bool {
    option_of(socket, libc::SO_TYPE) == Some([libc::SOCK_STREAM])
}

/// The words that an option consists of; `None` if this is no socket.
fn option_of<T: Default + Copy, const WORDS: usize>(
    socket: &OwnedFd,
    option: i32,
) -> Option<[T; WORDS]> {
    let mut words = [T::default(); WORDS];
    let mut length = size_of_val(&words) as libc::socklen_t;
    // SAFETY: the words and their length live across the call.
    let got = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            words.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    (got == 0).then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn a_descriptor_arrives_by_a_message_made_for_an_address() {
        let (ours, theirs) = UnixDatagram::pair().expect("a pair of sockets");
        let (reader, writer) = std::io::pipe().expect("a pipe");
        send_descriptor(&OwnedFd::from(ours), &writer).expect("it can be sent");
        drop(writer);
        let mut memory = vec![0u64; 32];
        let address = memory.as_mut_ptr() as u64;
        let message = receiving_message(address);
        for (word, bytes) in memory.iter_mut().zip(message.bytes.chunks(8)) {
            let mut whole = [0; 8];
            whole[..bytes.len()].copy_from_slice(bytes);
            *word = u64::from_ne_bytes(whole);
        }
        // SAFETY: the message lies at the address that it was made for.
        let got = unsafe { libc::recvmsg(theirs.as_raw_fd(), address as *mut libc::msghdr, 0) };
        assert_eq!(got, 1);
        // SAFETY: the kernel has written a descriptor there.
        let number = unsafe { (message.descriptor_at as *const i32).read() };
        use std::io::{Read, Write};
        let mut writer = std::fs::File::from(crate::fd::adopt(number));
        writer.write_all(b"x").expect("it is open for writing");
        drop(writer);
        let mut read = String::new();
        let mut reader = reader;
        reader.read_to_string(&mut read).expect("it ends");
        assert_eq!(read, "x");
    }

    #[test]
    fn a_sockets_timeout_is_told() {
        let (ours, theirs) = UnixDatagram::pair().expect("a pair of sockets");
        let time = Duration::from_millis(1500);
        ours.set_read_timeout(Some(time)).expect("it can be set");
        let ours = OwnedFd::from(ours);
        assert_eq!(timeout(&ours, true), Some(time));
        assert!(!is_stream(&ours));
        assert_eq!(timeout(&ours, false), None);
        assert_eq!(timeout(&OwnedFd::from(theirs), true), None);
        let (reader, _writer) = std::io::pipe().expect("a pipe");
        assert_eq!(timeout(&OwnedFd::from(reader), true), None);
    }
}
