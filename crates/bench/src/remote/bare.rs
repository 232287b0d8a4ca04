//! The least that a page from a server can take: one GETRANGE on a plain socket, nothing checked, nothing kept.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::host::HostError;

/// A value as long as a segment, whose parts are asked for.
const VALUE_BYTES: usize = 65_000;

/// Longer than any reply without its bytes.
const HEAD_BYTES: usize = 32;

/// A connection with a value behind it.
pub(super) struct Bare {
    stream: TcpStream,
    request: Vec<u8>,
    reply: Vec<u8>,
}

impl Bare {
    pub(super) fn connect(address: &(String, u16)) -> Result<Bare, HostError> {
        let failed = |error: std::io::Error| HostError::Command {
            line: format!("a connection to {}:{}", address.0, address.1),
            detail: error.to_string(),
        };
        let connect = || -> std::io::Result<Bare> {
            let stream = TcpStream::connect((address.0.as_str(), address.1))?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            let mut bare = Bare {
                stream,
                request: Vec::new(),
                reply: vec![0; VALUE_BYTES + HEAD_BYTES],
            };
            bare.request =
                format!("*3\r\n$3\r\nSET\r\n$4\r\nbare\r\n${VALUE_BYTES}\r\n").into_bytes();
            bare.request.extend(std::iter::repeat_n(b'x', VALUE_BYTES));
            bare.request.extend(b"\r\n");
            bare.stream.write_all(&bare.request)?;
            bare.stream.read_exact(&mut bare.reply[.."+OK\r\n".len()])?;
            Ok(bare)
        };
        connect().map_err(failed)
    }

    /// One round trip for so many bytes from there.
    pub(super) fn get_range(&mut self, from: usize, bytes: usize) -> std::io::Result<()> {
        let (first, last) = (from.to_string(), (from + bytes - 1).to_string());
        self.request.clear();
        write!(
            self.request,
            "*4\r\n$8\r\nGETRANGE\r\n$4\r\nbare\r\n${}\r\n{first}\r\n${}\r\n{last}\r\n",
            first.len(),
            last.len()
        )?;
        self.stream.write_all(&self.request)?;
        let reply_bytes = "$\r\n\r\n".len() + bytes.to_string().len() + bytes;
        self.stream.read_exact(&mut self.reply[..reply_bytes])
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        // The server ends after this.
        let _ = self
            .stream
            .write_all(b"*2\r\n$6\r\nUNLINK\r\n$4\r\nbare\r\n");
    }
}
