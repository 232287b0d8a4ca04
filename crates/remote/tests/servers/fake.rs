//! A server that answers other bytes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use zcache::tier::TierError;
use zcache_remote::{Durability, Endpoint, RemoteConfig, RemoteTier};

use crate::load::{read, write};

/// What it answers to GETRANGE.
const ANSWERS: [&str; 6] = ["other", "short", "long", "nil", "error", "rubbish"];

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
                    _ => "?!\u{1}\r\n\r\n*-7\r\n".to_owned(),
                }
            }
            _ => ":1\r\n".to_owned(),
        };
        out.write_all(reply.as_bytes())?;
    }
}

#[test]
fn other_bytes_are_never_a_page() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let answer = Arc::new(AtomicU32::new(0));
    let answers = Arc::clone(&answer);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = Arc::clone(&answers);
            std::thread::spawn(move || serve(stream, &answer));
        }
    });
    for (n, what) in ANSWERS.iter().enumerate() {
        let mut config = RemoteConfig::new(vec![Endpoint::parse(&url).unwrap()], Durability::Disk);
        config.posts = false;
        config.timeouts.hedge_min = Duration::from_millis(200);
        let tier = RemoteTier::open(config).unwrap();
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
