//! What stands before a server and answers otherwise than it: a wrong bit in what is read, or that the key is at another node.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

/// How it answers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Answers {
    /// As the server does.
    Rightly = 0,
    /// One bit of each range that is read is another.
    OtherBytes = 1,
    /// Each range that is read is of another value.
    OtherPlace = 2,
    /// Everything is at a node that nobody is at.
    Elsewhere = 3,
}

#[derive(Default)]
struct Shared {
    answers: AtomicU8,
    elsewhere: AtomicU16,
    /// Replies that it changed.
    changed: AtomicU64,
    ends: AtomicBool,
}

/// A proxy under way.
pub(super) struct Proxy {
    shared: Arc<Shared>,
    pub(super) port: u16,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Before the server at this port.
    pub(super) fn before(server: u16) -> Proxy {
        let port = super::server::free_port();
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("a free port");
        let shared = Arc::new(Shared::default());
        let own = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            for client in listener.incoming() {
                if own.ends.load(Relaxed) {
                    return;
                }
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(("127.0.0.1", server)))
                else {
                    continue;
                };
                let own = Arc::clone(&own);
                std::thread::spawn(move || pass_on(client, server, &own));
            }
        });
        Proxy {
            shared,
            port,
            thread: Some(thread),
        }
    }

    pub(super) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Answers so from now on.
    pub(super) fn answer(&self, answers: Answers) {
        self.shared.answers.store(answers as u8, Relaxed);
    }

    /// Says from now on that everything is at this port.
    pub(super) fn send_elsewhere(&self, port: u16) {
        self.shared.elsewhere.store(port, Relaxed);
        self.answer(Answers::Elsewhere);
    }

    /// Replies that were other ones than the server's.
    pub(super) fn changed(&self) -> u64 {
        self.shared.changed.load(Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ends.store(true, Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One connection, one command after the other, until either side ends it.
fn pass_on(client: TcpStream, server: TcpStream, shared: &Shared) -> Option<()> {
    for stream in [&client, &server] {
        stream.set_nodelay(true).ok()?;
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .ok()?;
    }
    let (mut client, mut server) = (BufReader::new(client), BufReader::new(server));
    let mut before = Vec::new();
    loop {
        let mut command = Vec::new();
        take(&mut client, &mut command)?;
        let is_range = command.windows(8).take(16).any(|word| word == b"GETRANGE");
        let answers = shared.answers.load(Relaxed);
        if answers == Answers::Elsewhere as u8 {
            let port = shared.elsewhere.load(Relaxed);
            let moved = format!("-MOVED 0 127.0.0.1:{port}\r\n");
            client.get_mut().write_all(moved.as_bytes()).ok()?;
            shared.changed.fetch_add(1, Relaxed);
            continue;
        }
        server.get_mut().write_all(&command).ok()?;
        let mut reply = Vec::new();
        take(&mut server, &mut reply)?;
        let asked = reply.clone();
        if is_range && reply.len() > 64 {
            if answers == Answers::OtherBytes as u8 {
                let middle = reply.len() / 2;
                reply[middle] ^= 0x10;
                shared.changed.fetch_add(1, Relaxed);
            } else if answers == Answers::OtherPlace as u8 && !before.is_empty() {
                reply.clone_from(&before);
                shared.changed.fetch_add(1, Relaxed);
            }
            before = asked;
        }
        client.get_mut().write_all(&reply).ok()?;
    }
}

/// One message of the protocol as it is.
fn take(from: &mut BufReader<TcpStream>, out: &mut Vec<u8>) -> Option<()> {
    let begin = out.len();
    from.read_until(b'\n', out).ok().filter(|read| *read > 2)?;
    let line = String::from_utf8_lossy(&out[begin..]).into_owned();
    let number = line.get(1..)?.trim_end().parse::<usize>();
    match (line.as_bytes()[0], number) {
        (b'$', Ok(len)) => {
            let at = out.len();
            out.resize(at + len + 2, 0);
            from.read_exact(&mut out[at..]).ok()
        }
        (b'*', Ok(count)) => (0..count).try_for_each(|_| take(from, out).ok_or(())).ok(),
        _ => Some(()),
    }
}
