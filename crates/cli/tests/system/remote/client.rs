//! A client of a server that the tests started: one command, one reply.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Longer than this no server that is well takes to answer.
const BOUND: Duration = Duration::from_secs(20);

/// What a server answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Reply {
    Text(String),
    Refused(String),
    Number(i64),
    Bytes(Vec<u8>),
    Nothing,
    List(Vec<Reply>),
}

impl Reply {
    /// The reply as text.
    pub(super) fn text(&self) -> String {
        match self {
            Reply::Text(text) | Reply::Refused(text) => text.clone(),
            Reply::Number(number) => number.to_string(),
            Reply::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Reply::Nothing => String::new(),
            Reply::List(replies) => {
                let texts: Vec<String> = replies.iter().map(Reply::text).collect();
                texts.join("\n")
            }
        }
    }
}

/// A connection.
pub(super) struct Client(BufReader<TcpStream>);

impl Client {
    /// Connects; `None` when nobody is there.
    pub(super) fn connect(host: &str, port: u16) -> Option<Client> {
        let address = format!("{host}:{port}").parse().ok()?;
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()?;
        stream.set_read_timeout(Some(BOUND)).ok()?;
        Some(Client(BufReader::new(stream)))
    }

    /// Asks; `None` when the connection breaks.
    pub(super) fn ask(&mut self, words: &[&[u8]]) -> Option<Reply> {
        let mut out = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            out.extend_from_slice(word);
            out.extend_from_slice(b"\r\n");
        }
        self.0.get_mut().write_all(&out).ok()?;
        self.reply()
    }

    fn reply(&mut self) -> Option<Reply> {
        let mut line = String::new();
        self.0.read_line(&mut line).ok()?;
        let (kind, rest) = line.trim_end().split_at_checked(1)?;
        Some(match kind {
            "+" => Reply::Text(rest.to_owned()),
            "-" => Reply::Refused(rest.to_owned()),
            ":" => Reply::Number(rest.parse().ok()?),
            "$" => match rest.parse::<usize>() {
                Err(_) => Reply::Nothing,
                Ok(len) => {
                    let mut bytes = vec![0; len + 2];
                    self.0.read_exact(&mut bytes).ok()?;
                    bytes.truncate(len);
                    Reply::Bytes(bytes)
                }
            },
            "*" => match rest.parse::<usize>() {
                Err(_) => Reply::Nothing,
                Ok(len) => Reply::List((0..len).map(|_| self.reply()).collect::<Option<_>>()?),
            },
            _ => return None,
        })
    }
}
