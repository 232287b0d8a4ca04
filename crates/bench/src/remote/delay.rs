//! A link with a delay: a proxy that hands on what comes after a while, each direction in its order.
//!
//! Each direction of a connection has two threads: one takes what arrives and notes when it is due, the other sleeps
//! until then. So a delay takes nothing from the bandwidth. What waits is bounded.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::host::HostError;

/// Pieces on their way in one direction.
const PIECES_MAX: usize = 1024;

/// The longest of them.
const PIECE_BYTES_MAX: usize = 64 << 10;

/// How long the kernel may let a thread oversleep, in nanoseconds.
const SLACK_NS: std::ffi::c_ulong = 1;

/// A proxy before one server.
pub(super) struct DelayedLink {
    /// Where it listens.
    pub(super) address: (String, u16),
    ends: Arc<AtomicBool>,
    accepts: Option<JoinHandle<()>>,
}

impl DelayedLink {
    /// Adds `delay` to each round trip: half of it in each direction.
    pub(super) fn before(
        server: &(String, u16),
        delay: Duration,
    ) -> Result<DelayedLink, HostError> {
        let failed = |error: std::io::Error| HostError::Command {
            line: "a delaying proxy".into(),
            detail: error.to_string(),
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        let ends = Arc::new(AtomicBool::new(false));
        let (server, asked) = (server.clone(), Arc::clone(&ends));
        let accepts = std::thread::spawn(move || {
            for client in listener.incoming() {
                if asked.load(Ordering::Relaxed) {
                    return;
                }
                // A connection that fails is the client's to make again.
                let _ = client.and_then(|client| join(client, &server, delay / 2));
            }
        });
        Ok(DelayedLink {
            address: (Ipv4Addr::LOCALHOST.to_string(), port),
            ends,
            accepts: Some(accepts),
        })
    }
}

impl Drop for DelayedLink {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        // The thread waits for a connection; connections under way end with their clients.
        let woken = TcpStream::connect((self.address.0.as_str(), self.address.1));
        if let (Ok(_), Some(accepts)) = (woken, self.accepts.take()) {
            let _ = accepts.join();
        }
    }
}

fn join(client: TcpStream, server: &(String, u16), delay: Duration) -> std::io::Result<()> {
    let server = TcpStream::connect((server.0.as_str(), server.1))?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (client_too, server_too) = (client.try_clone()?, server.try_clone()?);
    direction(client, server, delay);
    direction(server_too, client_too, delay);
    Ok(())
}

fn direction(from: TcpStream, to: TcpStream, delay: Duration) {
    let (sender, receiver) = sync_channel(PIECES_MAX);
    std::thread::spawn(move || take(from, &sender, delay));
    std::thread::spawn(move || hand_on(to, &receiver));
}

type Piece = (Instant, Vec<u8>);

fn take(mut from: TcpStream, sender: &SyncSender<Piece>, delay: Duration) {
    let mut buffer = vec![0; PIECE_BYTES_MAX];
    while let Ok(read) = from.read(&mut buffer) {
        let due = Instant::now() + delay;
        if read == 0 || sender.send((due, buffer[..read].to_vec())).is_err() {
            break;
        }
    }
}

fn hand_on(mut to: TcpStream, receiver: &Receiver<Piece>) {
    // Without this a sleep takes some 60 µs more than asked for; where it is refused, the bare round trip shows that.
    let _ = nix::sys::prctl::set_timerslack(SLACK_NS);
    for (due, bytes) in receiver {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if to.write_all(&bytes).is_err() {
            break;
        }
    }
    // The peer may have gone first.
    let _ = to.shutdown(Shutdown::Both);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_through_in_order_and_late() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let echo = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut bytes = vec![0; 300_000];
            stream.read_exact(&mut bytes).unwrap();
            stream.write_all(&bytes).unwrap();
        });
        let delay = Duration::from_millis(20);
        let link = DelayedLink::before(&("127.0.0.1".into(), port), delay).unwrap();
        let mut stream = TcpStream::connect((link.address.0.as_str(), link.address.1)).unwrap();
        let sent: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();
        let start = Instant::now();
        stream.write_all(&sent).unwrap();
        let mut received = vec![0; sent.len()];
        stream.read_exact(&mut received).unwrap();
        assert!(start.elapsed() >= delay, "{:?}", start.elapsed());
        assert!(received == sent);
        echo.join().unwrap();
    }
}
