//! Orders to the server, by its socket.
//!
//! - Every call has a timeout.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::configuration::CONTROL_USER;
use crate::error::LendError;
use crate::password::Password;

/// For one answer.
const WITHIN: Duration = Duration::from_secs(5);

/// The longest text in an answer, and the most parts of one.
const TEXT_BYTES_MAX: u64 = 64 << 10;
const PARTS_MAX: u64 = 1 << 20;

/// Lists in lists.
const DEPTH_MAX: u32 = 4;

/// A connection to the server.
pub(crate) struct Control {
    stream: BufReader<UnixStream>,
}

/// What it answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    Text(String),
    Number(u64),
    List(Vec<Answer>),
    /// It refuses.
    Refused(String),
}

impl Control {
    /// Connects, if the server listens.
    pub(crate) fn connect(socket: &Path, password: &Password) -> std::io::Result<Control> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(WITHIN))?;
        stream.set_write_timeout(Some(WITHIN))?;
        let mut control = Control {
            stream: BufReader::new(stream),
        };
        match control.ask(&["AUTH", CONTROL_USER, password.reveal()])? {
            Answer::Text(_) => Ok(control),
            other => Err(std::io::Error::other(format!("{other:?}"))),
        }
    }

    /// Asks one thing.
    pub(crate) fn ask(&mut self, words: &[&str]) -> std::io::Result<Answer> {
        let mut out = format!("*{}\r\n", words.len());
        for word in words {
            out.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        self.stream.get_mut().write_all(out.as_bytes())?;
        answer(&mut self.stream, DEPTH_MAX)
    }

    /// Gives an order that must be obeyed.
    pub(crate) fn order(&mut self, words: &[&str]) -> Result<Answer, LendError> {
        match self.ask(words) {
            Ok(Answer::Refused(why)) => Err(LendError::Silent(format!("{}: {why}", words[0]))),
            Ok(answer) => Ok(answer),
            Err(error) => Err(LendError::Silent(format!("{}: {error}", words[0]))),
        }
    }
}

/// Reads one answer of the protocol (RESP).
fn answer(from: &mut impl BufRead, depth: u32) -> std::io::Result<Answer> {
    let unexpected = |what: &str| std::io::Error::other(format!("unexpected answer: {what}"));
    let mut line = String::new();
    from.by_ref().take(TEXT_BYTES_MAX).read_line(&mut line)?;
    let line = line.trim_end();
    let Some((kind, rest)) = line.split_at_checked(1) else {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    };
    let number = || rest.parse::<u64>().map_err(|_| unexpected(line));
    match kind {
        "+" => Ok(Answer::Text(rest.to_owned())),
        "-" => Ok(Answer::Refused(rest.to_owned())),
        ":" => Ok(Answer::Number(number()?)),
        "$" => {
            let len = number()?;
            if len > TEXT_BYTES_MAX {
                return Err(unexpected(line));
            }
            let mut bytes = vec![0; len as usize + 2];
            from.read_exact(&mut bytes)?;
            bytes.truncate(len as usize);
            let text = String::from_utf8_lossy(&bytes).into_owned();
            Ok(Answer::Text(text))
        }
        "*" if depth > 0 => {
            let parts = number()?;
            if parts > PARTS_MAX {
                return Err(unexpected(line));
            }
            let parts = (0..parts).map(|_| answer(from, depth - 1));
            Ok(Answer::List(parts.collect::<Result<_, _>>()?))
        }
        _ => Err(unexpected(line)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_and_bad_ones_refused() {
        let read = |text: &str| answer(&mut text.as_bytes(), DEPTH_MAX).ok();
        assert_eq!(read("+OK\r\n"), Some(Answer::Text("OK".into())));
        assert_eq!(read(":7\r\n"), Some(Answer::Number(7)));
        assert_eq!(read("$3\r\na\r\n\r\n"), Some(Answer::Text("a\r\n".into())));
        let refused = Answer::Refused("NOPERM no".into());
        assert_eq!(read("-NOPERM no\r\n"), Some(refused));
        let list = Answer::List(vec![Answer::Text("0".into()), Answer::List(Vec::new())]);
        assert_eq!(read("*2\r\n$1\r\n0\r\n*0\r\n"), Some(list));
        for bad in [
            "",
            "\r\n",
            "$-1\r\n",
            "$99999999\r\n",
            "$5\r\nab",
            ":x\r\n",
            "*1\r\n",
            "*9999999\r\n",
            "%",
        ] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }
}
