//! Real connections, with redis-rs's parser of replies.
//!
//! Stage on the data path: under the nodes. The thread that waits for a page
//! writes and reads its own socket. Sends only what [`Command`] has, and AUTH.
//!
//! - Each call ends at its time, whatever a server does; a reply has an end too.
//!
//! `socket`: the bounds; `names`: where hosts are; `tls`: certificates.

mod names;
mod socket;
mod tls;

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use redis::{Parser, RedisError, Value};
use rustls::StreamOwned;

use crate::config::{Secret, Tls};
use crate::endpoint::Address;
use crate::link::{Command, Link, LinkError, Network, Reply, encode};
use names::Names;
use socket::{Bounded, Socket};
use tls::Sessions;

/// What a link keeps of the buffer that it sends from.
pub(crate) const LINK_BYTES: u64 = 64 << 10;

/// No reply is longer than this: a segment, and what is around it.
const REPLY_BYTES_MAX: usize = 128 << 10;

/// But for the map of a cluster, of some ten thousand runs of slots.
const MAP_BYTES_MAX: usize = 4 << 20;

/// Characters of an error that are kept.
const TEXT_MAX: usize = 300;

/// A request of more bytes than this has more time.
const SENT_BYTES_IN_TIME: usize = 256 << 10;

/// Connections by TCP, TLS and sockets of this machine.
pub(crate) struct RedisNetwork {
    username: Option<String>,
    password: Option<Secret>,
    tls: Sessions,
    names: Names,
}

/// What is spoken on.
enum Stream {
    Plain(Bounded),
    Tls(Box<StreamOwned<rustls::ClientConnection, Bounded>>),
}

struct RedisLink {
    stream: Stream,
    parser: Parser,
    out: Vec<u8>,
    within: Duration,
    /// Replies that came too late, or will, and are nobody's.
    skipped: usize,
    /// What the longest reply to the last commands may have.
    reply_bytes_max: usize,
}

impl RedisNetwork {
    pub(crate) fn new(
        username: Option<String>,
        password: Option<Secret>,
        tls: Tls,
    ) -> RedisNetwork {
        RedisNetwork {
            username,
            password,
            tls: Sessions::new(tls),
            names: Names::default(),
        }
    }

    fn tcp(&self, host: &str, port: u16, within: Duration) -> io::Result<Bounded> {
        let until = Instant::now() + within;
        let left = || until.saturating_duration_since(Instant::now());
        let mut failed = io::ErrorKind::TimedOut.into();
        let addresses = self.names.resolve(host, port, left())?;
        for (number, address) in addresses.iter().enumerate() {
            // One that nobody is at leaves the others their time.
            let wait = left() / (addresses.len() - number) as u32;
            if wait.is_zero() {
                break;
            }
            match TcpStream::connect_timeout(address, wait) {
                Ok(socket) => {
                    socket.set_nodelay(true)?;
                    return Ok(Bounded::new(Socket::Tcp(socket)));
                }
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    fn stream(&self, address: &Address, within: Duration) -> Result<Stream, LinkError> {
        let until = Instant::now() + within;
        let io = |error: io::Error| io_error(&error);
        let (host, port, tls) = match address {
            Address::Unix(path) => {
                let socket = Socket::connect_unix(path, within).map_err(io)?;
                return Ok(Stream::Plain(Bounded::new(socket)));
            }
            Address::Tcp { host, port, tls } => (host, *port, *tls),
        };
        let mut socket = self.tcp(host, port, within).map_err(io)?;
        if !tls {
            return Ok(Stream::Plain(socket));
        }
        let mut session = self.tls.begin(host)?;
        let left = until.saturating_duration_since(Instant::now());
        socket.allow(left, REPLY_BYTES_MAX);
        while session.is_handshaking() {
            session.complete_io(&mut socket).map_err(io)?;
        }
        Ok(Stream::Tls(Box::new(StreamOwned::new(session, socket))))
    }
}

impl Network for RedisNetwork {
    fn connect(&self, address: &Address, within: Duration) -> Result<Box<dyn Link>, LinkError> {
        let link = self.open(address, within);
        if let (Err(_), Address::Tcp { host, .. }) = (&link, address) {
            self.names.doubt(host);
        }
        Ok(Box::new(link?))
    }
}

impl RedisNetwork {
    fn open(&self, address: &Address, within: Duration) -> Result<RedisLink, LinkError> {
        let until = Instant::now() + within;
        let left = || until.saturating_duration_since(Instant::now());
        let mut link = RedisLink {
            stream: self.stream(address, within)?,
            parser: Parser::new(),
            out: Vec::new(),
            within: left(),
            skipped: 0,
            reply_bytes_max: REPLY_BYTES_MAX,
        };
        if let Some(password) = &self.password {
            let mut words: Vec<&[u8]> = vec![b"AUTH"];
            words.extend(self.username.as_ref().map(String::as_bytes));
            words.push(password.reveal().as_bytes());
            encode(&mut link.out, &words);
            link.send_out()?;
            match link.receive(left())? {
                Reply::Ok => {}
                // Wrong, or none is wanted.
                Reply::Refused { code, .. } if code == "WRONGPASS" || code == "ERR" => {
                    return Err(LinkError::Password);
                }
                // The text may repeat what the server was given.
                Reply::Refused { code, .. } => {
                    return Err(LinkError::Protocol(format!("{code} to AUTH")));
                }
                _ => return Err(LinkError::Protocol("no answer to AUTH".to_owned())),
            }
        }
        link.within = within;
        Ok(link)
    }
}

impl Stream {
    fn allow(&mut self, within: Duration, bytes: usize) {
        match self {
            Stream::Plain(socket) => socket.allow(within, bytes),
            Stream::Tls(stream) => stream.sock.allow(within, bytes),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.read(bytes),
            Stream::Tls(stream) => stream.read(bytes),
        }
    }
}

impl RedisLink {
    fn send_out(&mut self) -> Result<(), LinkError> {
        let times = 1 + self.out.len() / SENT_BYTES_IN_TIME;
        self.stream
            .allow(self.within * times as u32, self.reply_bytes_max);
        let sent = match &mut self.stream {
            Stream::Plain(socket) => socket.write_all(&self.out),
            Stream::Tls(stream) => stream.write_all(&self.out).and_then(|()| stream.flush()),
        };
        sent.map_err(|error| io_error(&error))
    }
}

impl Link for RedisLink {
    fn send(&mut self, commands: &[Command]) -> Result<(), LinkError> {
        self.out.clear();
        self.reply_bytes_max = REPLY_BYTES_MAX;
        for command in commands {
            command.encode(&mut self.out);
            if matches!(command, Command::ClusterSlots) {
                self.reply_bytes_max = MAP_BYTES_MAX;
            }
        }
        let sent = self.send_out();
        // A burst of segments is no reason to keep its buffer on every link.
        self.out.shrink_to(LINK_BYTES as usize);
        sent
    }

    fn receive(&mut self, within: Duration) -> Result<Reply, LinkError> {
        // What has no time is there already, or late.
        let within = within.max(Duration::from_micros(100));
        self.stream
            .allow(within, self.reply_bytes_max * (1 + self.skipped));
        loop {
            match self.parser.parse_value(&mut self.stream) {
                Ok(_) if self.skipped > 0 => self.skipped -= 1,
                Ok(value) => return reply(value),
                Err(error) => {
                    let error = link_error(&error);
                    if error == LinkError::Timeout {
                        self.skipped += 1;
                    }
                    return Err(error);
                }
            }
        }
    }
}

fn reply(value: Value) -> Result<Reply, LinkError> {
    Ok(match value {
        Value::Nil => Reply::Nil,
        Value::Int(number) => Reply::Int(number),
        Value::BulkString(bytes) => Reply::Bytes(bytes),
        Value::Okay => Reply::Ok,
        Value::SimpleString(text) if text == "PONG" => Reply::Ok,
        Value::Array(values) => {
            Reply::Array(values.into_iter().map(reply).collect::<Result<_, _>>()?)
        }
        Value::ServerError(error) => Reply::Refused {
            code: error.code().to_owned(),
            text: shown(error.details().unwrap_or_default()),
        },
        other => return Err(LinkError::unexpected(&other)),
    })
}

/// What of a server's words is kept: it may end up on a terminal.
fn shown(text: &str) -> String {
    let plain = text.chars().filter(|c| !c.is_control());
    plain.take(TEXT_MAX).collect()
}

fn link_error(error: &RedisError) -> LinkError {
    if error.is_timeout() {
        LinkError::Timeout
    } else if error.is_io_error() {
        broken(error.to_string())
    } else {
        LinkError::Protocol(error.to_string())
    }
}

fn io_error(error: &io::Error) -> LinkError {
    match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => LinkError::Timeout,
        _ => broken(error.to_string()),
    }
}

fn broken(text: String) -> LinkError {
    match text.to_lowercase().contains("certificate") {
        true => LinkError::Certificate(text),
        false => LinkError::Broken(text),
    }
}
