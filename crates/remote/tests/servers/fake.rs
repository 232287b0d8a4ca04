//! A server that answers other bytes, or without an end.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use zcache::tier::TierError;
use zcache_remote::{Durability, Endpoint, RemoteConfig, RemoteTier};

use crate::load::{read, write};

/// Of these, the first ones that have an end.
const ENDED: usize = 6;

/// What it answers to GETRANGE.
const ANSWERS: [&str; 10] = [
    "other",
    "short",
    "long",
    "nil",
    "error",
    "rubbish",
    "late",
    "endless value",
    "endless line",
    "trickle",
];

fn serve(stream: TcpStream, answer: &AtomicU32) -> std::io::Result<()> {
    let mut out = stream.try_clone()?;
    let mut lines = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut words = Vec::new();
        for _ in 0..line[1..].trim().parse().unwrap_or(0) {
            let mut length = String::new();
            lines.read_line(&mut length)?;
            let mut word = vec![0; length[1..].trim().parse::<usize>().unwrap_or(0) + 2];
            lines.read_exact(&mut word)?;
            word.truncate(word.len() - 2);
            words.push(String::from_utf8_lossy(&word).into_owned());
        }
        let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
        let reply = match words[0].as_str() {
            "PING" => "+PONG\r\n".to_owned(),
            "SET" => "+OK\r\n".to_owned(),
            "INFO" => bulk(
                "redis_version:7.0.0\r\nredis_mode:standalone\r\nmaxmemory_policy:noeviction\r\n",
            ),
            "GET" => bulk("1"),
            "GETRANGE" => {
                let number = |n: usize| words[n].parse::<usize>().unwrap_or(0);
                let len = number(3) + 1 - number(2);
                match ANSWERS[answer.load(Relaxed) as usize] {
                    "other" => bulk(&"x".repeat(len)),
                    "short" => bulk(&"x".repeat(len / 2)),
                    "long" => bulk(&"x".repeat(len * 2)),
                    "nil" => "$-1\r\n".to_owned(),
                    "error" => "-ERR no\r\n".to_owned(),
                    "late" => {
                        std::thread::sleep(Duration::from_millis(200));
                        "$-1\r\n".to_owned()
                    }
                    "endless value" => return endless(out, "$9000000000000\r\n", Duration::ZERO),
                    "endless line" => return endless(out, "+", Duration::ZERO),
                    "trickle" => return endless(out, "+", Duration::from_millis(2)),
                    _ => "?!\u{1}\r\n\r\n*-7\r\n".to_owned(),
                }
            }
            _ => ":1\r\n".to_owned(),
        };
        out.write_all(reply.as_bytes())?;
    }
}

fn endless(mut out: TcpStream, head: &str, pause: Duration) -> std::io::Result<()> {
    out.write_all(head.as_bytes())?;
    let part: &[u8] = if pause.is_zero() { &[b'x'; 4096] } else { b"x" };
    loop {
        out.write_all(part)?;
        std::thread::sleep(pause);
    }
}

/// A server, what it answers, and how many connections it was asked for.
fn start() -> (String, Arc<AtomicU32>, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let answer = Arc::new(AtomicU32::new(0));
    let answers = Arc::clone(&answer);
    let connections = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&connections);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            counted.fetch_add(1, Relaxed);
            let answer = Arc::clone(&answers);
            std::thread::spawn(move || serve(stream, &answer));
        }
    });
    (url, answer, connections)
}

fn open(url: &str) -> RemoteTier {
    let mut config = RemoteConfig::new(vec![Endpoint::parse(url).unwrap()], Durability::Disk);
    config.posts = false;
    config.timeouts.hedge_min = Duration::from_millis(200);
    RemoteTier::open(config).unwrap()
}

#[test]
fn a_late_answer_is_nobody_s_and_the_connection_is_used_again() {
    let (url, answer, connections) = start();
    let mut config = RemoteConfig::new(vec![Endpoint::parse(&url).unwrap()], Durability::Disk);
    config.posts = false;
    config.timeouts.hedge_min = Duration::from_millis(5);
    let tier = RemoteTier::open(config).unwrap();
    assert!(write(&tier, 0..8).iter().all(Result::is_ok));
    answer.store(0, Relaxed);
    assert_eq!(read(&tier, 3, 1), Err(TierError::Lost));
    let before = connections.load(Relaxed);
    for round in 0..5 {
        let block = 4 + round % 4;
        let late = ANSWERS.iter().position(|one| *one == "late").unwrap();
        answer.store(late as u32, Relaxed);
        let _ = read(&tier, block, 1);
        answer.store(0, Relaxed);
        // The worker hears of the late one, and the server is asked as before.
        std::thread::sleep(Duration::from_millis(600));
        let _ = read(&tier, block, 1);
    }
    let node = &tier.stats().nodes[0];
    assert!(node.reads_late > 0, "{node:?}");
    assert_eq!((node.opened, node.is_open), (0, false), "{node:?}");
    let more = connections.load(Relaxed) - before;
    assert_eq!(more, 0, "the late connection is used again");
}

#[test]
fn nobody_waits_for_the_end_of_a_reply_that_has_none() {
    let (url, answer, _) = start();
    for what in ["endless value", "endless line", "trickle"] {
        answer.store(0, Relaxed);
        let tier = open(&url);
        assert!(write(&tier, 0..8).iter().all(Result::is_ok));
        let n = ANSWERS.iter().position(|one| *one == what).unwrap();
        answer.store(n as u32, Relaxed);
        let begun = Instant::now();
        assert!(read(&tier, 3, 1).is_err(), "{what}");
        drop(tier);
        assert!(begun.elapsed() < Duration::from_secs(15), "{what}");
    }
}

#[test]
fn other_bytes_are_never_a_page() {
    let (url, answer, _) = start();
    for (n, what) in ANSWERS[..ENDED].iter().enumerate() {
        let tier = open(&url);
        assert!(write(&tier, 0..8).iter().all(Result::is_ok));
        answer.store(n as u32, Relaxed);
        let start = Instant::now();
        let result = read(&tier, 3, 1);
        println!("{what}: {result:?}");
        match *what {
            "error" | "rubbish" => assert!(result.is_err()),
            _ => assert_eq!(result, Err(TierError::Lost), "{what}"),
        }
        assert!(start.elapsed() < Duration::from_secs(2), "{what}");
        answer.store(0, Relaxed);
    }
}
