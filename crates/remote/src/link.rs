//! One connection to one server, as the tier sees it: the few commands that it
//! sends, what comes back, and how either fails.
//!
//! Stage on the data path: under everything else. Members: the real network
//! ([`crate::network`]) and a simulated one ([`crate::simulated`]).
//!
//! - Replies come in the order of the commands.
//! - A link on which anything but a timeout failed is of no use any more.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use zcache::tier::TierError;

use crate::endpoint::Address;

/// Characters of an unexpected answer that are shown.
const WHAT_MAX: usize = 120;

/// What the tier asks of a server; nothing else is ever sent, but for AUTH.
#[derive(Clone, Debug)]
pub enum Command {
    /// Stores a segment, with the seconds of its lease.
    Set(String, Arc<Vec<u8>>, u64),
    /// Bytes from the first to before the second offset.
    GetRange(String, u32, u32),
    /// A whole value.
    Get(String),
    /// Gives keys back.
    Unlink(Vec<String>),
    /// Renews a lease of so many seconds.
    Expire(String, u64),
    /// Waits for so many replicas, so many milliseconds.
    Wait(u32, u64),
    /// Whether the server answers.
    Ping,
    /// The next command is about a slot that moves.
    Asking,
    /// One section of what a server says about itself.
    Info(&'static str),
    /// Which slots are on which nodes.
    ClusterSlots,
}

impl Command {
    /// Appends the command as the protocol (RESP) has it.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Command::Set(key, value, seconds) => {
                let seconds = seconds.to_string();
                encode(
                    out,
                    &[b"SET", key.as_bytes(), value, b"EX", seconds.as_bytes()],
                );
            }
            Command::GetRange(key, from, to) => {
                let (from, last) = (from.to_string(), (to - 1).to_string());
                encode(
                    out,
                    &[
                        b"GETRANGE",
                        key.as_bytes(),
                        from.as_bytes(),
                        last.as_bytes(),
                    ],
                );
            }
            Command::Get(key) => encode(out, &[b"GET", key.as_bytes()]),
            Command::Unlink(keys) => {
                let mut words: Vec<&[u8]> = vec![b"UNLINK"];
                words.extend(keys.iter().map(String::as_bytes));
                encode(out, &words);
            }
            Command::Expire(key, seconds) => {
                encode(
                    out,
                    &[b"EXPIRE", key.as_bytes(), seconds.to_string().as_bytes()],
                );
            }
            Command::Wait(replicas, millis) => {
                let (replicas, millis) = (replicas.to_string(), millis.to_string());
                encode(out, &[b"WAIT", replicas.as_bytes(), millis.as_bytes()]);
            }
            Command::Ping => encode(out, &[b"PING"]),
            Command::Asking => encode(out, &[b"ASKING"]),
            Command::Info(section) => encode(out, &[b"INFO", section.as_bytes()]),
            Command::ClusterSlots => encode(out, &[b"CLUSTER", b"SLOTS"]),
        }
    }
}

pub(crate) fn encode(out: &mut Vec<u8>, words: &[&[u8]]) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

/// What a server answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    /// `OK` or `PONG`.
    Ok,
    /// A number.
    Int(i64),
    /// A value.
    Bytes(Vec<u8>),
    /// There is no such key.
    Nil,
    /// Several.
    Array(Vec<Reply>),
    /// It refused.
    Refused {
        /// The first word, as `OOM` or `MOVED`.
        code: String,
        /// What follows.
        text: String,
    },
}

impl Reply {
    /// Where a cluster says that a slot is, if that is the reply: whether for
    /// this once (`ASK`), and the host and port. An empty host is the one that
    /// was asked.
    #[must_use]
    pub fn redirect(&self) -> Option<(bool, String, u16)> {
        let Reply::Refused { code, text } = self else {
            return None;
        };
        let ask = match code.as_str() {
            "MOVED" => false,
            "ASK" => true,
            _ => return None,
        };
        let (host, port) = text.split_whitespace().nth(1)?.rsplit_once(':')?;
        Some((ask, host.to_owned(), port.parse().ok()?))
    }
}

/// Why a link failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LinkError {
    /// No answer within the time.
    Timeout,
    /// The connection could not be made or broke off.
    Broken(String),
    /// The node's breaker is open: it is not asked at the moment.
    Down,
    /// All connections to the node are in use or late.
    Busy,
    /// The certificate is not accepted, ours or theirs.
    Certificate(String),
    /// User or password are not accepted.
    Password,
    /// The answer is none that the command has.
    Protocol(String),
}

impl LinkError {
    /// An answer that a command does not have.
    pub(crate) fn unexpected(what: &impl fmt::Debug) -> LinkError {
        let text = format!("{what:?}");
        LinkError::Protocol(text.chars().take(WHAT_MAX).collect())
    }

    /// As a tier reports it.
    #[must_use]
    pub fn as_tier_error(&self) -> TierError {
        TierError::of_errno(match self {
            LinkError::Timeout | LinkError::Busy => 110,
            LinkError::Broken(_) => 104,
            LinkError::Down => 112,
            LinkError::Certificate(_) | LinkError::Password => 13,
            LinkError::Protocol(_) => 71,
        })
    }
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LinkError::Timeout => f.write_str("no answer in time"),
            LinkError::Broken(what) => f.write_str(what),
            LinkError::Down => f.write_str("the node does not answer and is not asked for a while"),
            LinkError::Busy => f.write_str("all connections to the node are in use"),
            LinkError::Certificate(what) => write!(f, "certificate refused: {what}"),
            LinkError::Password => f.write_str("user or password refused"),
            LinkError::Protocol(what) => write!(f, "unexpected answer: {what}"),
        }
    }
}

impl std::error::Error for LinkError {}

/// One connection.
pub trait Link: Send {
    /// Sends commands, all at once.
    ///
    /// # Errors
    /// [`LinkError`]; nothing is known about what arrived.
    fn send(&mut self, commands: &[Command]) -> Result<(), LinkError>;

    /// Waits for the reply to the oldest command that has none. After a timeout
    /// that reply is given to nobody.
    ///
    /// # Errors
    /// [`LinkError::Timeout`] after this time; anything else is the link's end.
    fn receive(&mut self, within: Duration) -> Result<Reply, LinkError>;
}

/// Makes connections.
pub trait Network: Send + Sync {
    /// Connects.
    ///
    /// # Errors
    /// [`LinkError`], after this time at the latest.
    fn connect(&self, address: &Address, within: Duration) -> Result<Box<dyn Link>, LinkError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_encoded_as_the_protocol_has_them() {
        let encoded = |command: Command| {
            let mut out = Vec::new();
            command.encode(&mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            encoded(Command::GetRange("k".into(), 10, 20)),
            "*4\r\n$8\r\nGETRANGE\r\n$1\r\nk\r\n$2\r\n10\r\n$2\r\n19\r\n"
        );
        assert_eq!(
            encoded(Command::Set("k".into(), Arc::new(b"v\r\n".to_vec()), 7)),
            "*5\r\n$3\r\nSET\r\n$1\r\nk\r\n$3\r\nv\r\n\r\n$2\r\nEX\r\n$1\r\n7\r\n"
        );
    }

    #[test]
    fn redirects_are_read() {
        let reply = |code: &str, text: &str| Reply::Refused {
            code: code.into(),
            text: text.into(),
        };
        let moved = reply("MOVED", "3999 127.0.0.1:6381").redirect();
        assert_eq!(moved, Some((false, "127.0.0.1".into(), 6381)));
        assert_eq!(
            reply("ASK", "1 ::1:6381").redirect(),
            Some((true, "::1".into(), 6381))
        );
        assert_eq!(
            reply("MOVED", "1 :6381").redirect(),
            Some((false, String::new(), 6381))
        );
        for bad in [
            reply("MOVED", ""),
            reply("MOVED", "1 a"),
            reply("ERR", "1 a:1"),
            Reply::Ok,
        ] {
            assert_eq!(bad.redirect(), None);
        }
    }
}
