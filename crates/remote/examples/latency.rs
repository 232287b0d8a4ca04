//! How long a page takes to come back, beside the bare GETRANGE on the same
//! link, and how fast blocks go out.
//!
//! `cargo run --release -p zcache-remote --example latency -- URL [sealed]`

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use zcache::tier::{Tier, TierError, TierRead, TierWrite};
use zcache_remote::{Address, Durability, Endpoint, RemoteConfig, RemoteTier, Sealing};

const BLOCK: usize = 16384;
const BLOCKS: usize = 8192;
const READS: usize = 20_000;

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

fn random(state: &mut u64) -> u64 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

fn quantiles(name: &str, times: &mut [Duration]) -> Duration {
    times.sort();
    let at = |q: f64| times[(times.len() as f64 * q) as usize];
    println!("{name}: p50 {:?} p99 {:?}", at(0.5), at(0.99));
    at(0.5)
}

/// The bare round trip: 4 KiB of a 64 KB value, over a plain socket.
struct Bare {
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
}

impl Bare {
    fn new(address: &Address) -> Bare {
        let stream: Box<dyn Stream> = match address {
            Address::Unix(path) => Box::new(UnixStream::connect(path).expect("connects")),
            Address::Tcp { host, port, .. } => {
                let stream = TcpStream::connect((host.as_str(), *port)).expect("connects");
                stream.set_nodelay(true).expect("a socket option");
                Box::new(stream)
            }
        };
        let mut bare = Bare {
            stream,
            buffer: vec![0; 8192],
        };
        let value = "x".repeat(65_000);
        let length = value.len();
        bare.ask(
            &format!("*3\r\n$3\r\nSET\r\n$8\r\nzc:bench\r\n${length}\r\n{value}\r\n"),
            5,
        );
        bare
    }

    fn ask(&mut self, command: &str, answer_bytes: usize) {
        self.stream.write_all(command.as_bytes()).expect("writes");
        let answer = &mut self.buffer[..answer_bytes];
        self.stream.read_exact(answer).expect("reads");
    }

    fn page(&mut self, from: usize) -> Duration {
        let start = Instant::now();
        let (from, to) = (from.to_string(), (from + 4095).to_string());
        let lengths = (from.len(), to.len());
        let (a, b) = lengths;
        let head = "*4\r\n$8\r\nGETRANGE\r\n$8\r\nzc:bench\r\n";
        self.ask(
            &format!("{head}${a}\r\n{from}\r\n${b}\r\n{to}\r\n"),
            4096 + 9,
        );
        start.elapsed()
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        self.ask("*2\r\n$6\r\nUNLINK\r\n$8\r\nzc:bench\r\n", 4);
    }
}

fn main() {
    let url = std::env::args().nth(1).expect("a URL");
    let sealed = std::env::args().nth(2).is_some();
    let endpoint = Endpoint::parse(&url).expect("a URL of a remote");
    let address = endpoint.addresses()[0].clone();
    for round in 0..2 {
        let mut config = RemoteConfig::new(vec![endpoint.clone()], Durability::Disk);
        config.posts = false;
        config.seal = if sealed {
            Sealing::Always
        } else {
            Sealing::Never
        };
        let tier = RemoteTier::open(config).expect("a server");
        let mut state = 3;
        let data: Vec<u8> = (0..BLOCK * 64)
            .map(|_| random(&mut state) as u8 | 1)
            .collect();
        // As packed blocks are, with some hundred bytes free at the end.
        let data: Vec<u8> = data
            .chunks(BLOCK)
            .flat_map(|block| [&block[..BLOCK - 400], &[0; 400]].concat())
            .collect();
        let start = Instant::now();
        for batch in 0..BLOCKS / 64 {
            let block = |(n, bytes)| TierWrite {
                offset_bytes: ((batch * 64 + n) * BLOCK) as u64,
                bytes,
                result: Err(TierError::IO),
            };
            let mut writes: Vec<_> = data.chunks(BLOCK).enumerate().map(block).collect();
            tier.write(&mut writes);
            assert!(
                writes.iter().all(|write| write.result == Ok(())),
                "a write failed"
            );
        }
        let rate = (BLOCKS * BLOCK) as f64 / start.elapsed().as_secs_f64() / f64::from(1 << 20);
        println!("round {round}: out {rate:.0} MiB/s");
        let mut page = vec![0; 4096];
        let mut times = Vec::with_capacity(READS);
        let mut bare_times = Vec::with_capacity(READS);
        let mut late = 0;
        let mut bare = Bare::new(&address);
        for n in 0..READS {
            let block = random(&mut state) as usize % BLOCKS;
            let part = random(&mut state) as usize % 4;
            bare_times.push(bare.page(n % 14 * 4096));
            let mut reads = [TierRead {
                offset_bytes: (block * BLOCK + part * 4096) as u64,
                bytes: &mut page,
                result: Err(TierError::IO),
            }];
            let start = Instant::now();
            tier.read(&mut reads);
            times.push(start.elapsed());
            if reads[0].result == Err(TierError::of_errno(110)) {
                late += 1;
                continue;
            }
            assert_eq!(reads[0].result, Ok(()));
            let at = block % 64 * BLOCK + part * 4096;
            assert!(page == data[at..at + 4096], "other bytes");
        }
        drop(bare);
        let bare = quantiles("bare GETRANGE", &mut bare_times);
        let tiers = quantiles("a page", &mut times);
        println!(
            "ratio {:.2}, {late} given up as late",
            tiers.as_secs_f64() / bare.as_secs_f64()
        );
        let stats = tier.stats();
        println!("{stats:?}");
    }
}
