//! The measured program: reads one file as any program would and checks what it reads.
//!
//! First by sweeps, then at random, then by a sweep again. It knows nothing of zcache. A page's content follows from its number,
//! so every read is checked by a word.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use serde::{Deserialize, Serialize};

use crate::workload::{Data, Histogram, PAGE_SIZE, Ratio, mix};

/// What a sweep reads at once, as cp(1) does.
const SWEEP_BYTES: usize = 128 << 10;

/// Options of the hidden `zcache-bench read`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Options {
    /// The file
    file: PathBuf,
    /// What to do, in this order
    #[arg(value_enum, required = true)]
    steps: Vec<Step>,
    /// How long a timed step lasts
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// The `cgroup.procs` of one more cgroup to run in
    #[arg(long)]
    join: Option<PathBuf>,
}

/// One way to read the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Step {
    /// From the beginning to the end.
    Sweep,
    /// As many random pages as there are.
    Random,
    /// Each page once, in random order.
    Shuffle,
    /// Random pages for some seconds, each timed.
    Timed,
}

/// What came of the steps, one entry a step.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Reading {
    /// Pages a second.
    pub(crate) pages_per_second: Vec<f64>,
    /// Median time of a timed read.
    pub(crate) p50_ns: u64,
    /// 99th percentile of it.
    pub(crate) p99_ns: u64,
    /// Pages that were not what they must be.
    pub(crate) wrong_pages: u64,
}

/// The generator of the file.
pub(crate) fn data(ratio: Ratio) -> Data {
    Data { seed: 42, ratio }
}

/// A page of the file.
pub(crate) fn page(data: Data, number: u64) -> [u8; PAGE_SIZE] {
    let words = data.page(number, 0).words;
    let mut bytes = [0; PAGE_SIZE];
    for (chunk, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(words) {
        *chunk = word.to_le_bytes();
    }
    bytes
}

/// The numbers of so many pages, each once, in an order that looks random.
pub(super) fn shuffled(pages: u64) -> impl Iterator<Item = u64> {
    // An odd factor makes each number of a power of two come once.
    let span = pages.next_power_of_two();
    let numbers = (0..span).map(move |number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    numbers
        .map(move |number| number & (span - 1))
        .filter(move |number| *number < pages)
}

struct Reader {
    file: File,
    pages: u64,
    data: Data,
    random: u64,
    wrong_pages: u64,
    times: Histogram,
}

/// Reads and prints one line of JSON.
pub(crate) fn run(options: &Options) -> ExitCode {
    match read(options) {
        Ok(reading) => {
            println!("{}", serde_json::json!(reading));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {}: {error}", options.file.display());
            ExitCode::from(2)
        }
    }
}

fn read(options: &Options) -> std::io::Result<Reading> {
    if let Some(procs) = &options.join {
        std::fs::write(procs, std::process::id().to_string())?;
    }
    let file = File::open(&options.file)?;
    let mut first = [0; 8];
    file.read_exact_at(&mut first, 0)?;
    let word = u64::from_le_bytes(first);
    let known = [Ratio::Two, Ratio::Three].map(data).into_iter();
    let mut reader = Reader {
        pages: file.metadata()?.len() / PAGE_SIZE as u64,
        file,
        data: known
            .into_iter()
            .find(|data| data.word(0, 0, 0) == word)
            .ok_or(std::io::ErrorKind::InvalidData)?,
        random: 1,
        wrong_pages: 0,
        times: Histogram::new(),
    };
    let mut reading = Reading::default();
    for step in &options.steps {
        let start = Instant::now();
        let pages = reader.step(*step, Duration::from_secs(options.seconds))?;
        let rate = pages as f64 / start.elapsed().as_secs_f64();
        reading.pages_per_second.push(rate);
    }
    reading.p50_ns = reader.times.quantile_ns(500);
    reading.p99_ns = reader.times.quantile_ns(990);
    reading.wrong_pages = reader.wrong_pages;
    Ok(reading)
}

impl Reader {
    /// Returns how many pages were read.
    fn step(&mut self, step: Step, length: Duration) -> std::io::Result<u64> {
        let advice = match step {
            Step::Sweep => PosixFadviseAdvice::POSIX_FADV_NORMAL,
            _ => PosixFadviseAdvice::POSIX_FADV_RANDOM,
        };
        posix_fadvise(&self.file, 0, 0, advice)?;
        match step {
            Step::Sweep => self.sweep(),
            Step::Random => {
                for _ in 0..self.pages {
                    let number = self.draw();
                    self.read_page(number)?;
                }
                Ok(self.pages)
            }
            Step::Shuffle => {
                for number in shuffled(self.pages) {
                    self.read_page(number)?;
                }
                Ok(self.pages)
            }
            Step::Timed => {
                let end = Instant::now() + length;
                let mut pages = 0;
                loop {
                    let number = self.draw();
                    let start = Instant::now();
                    if start >= end {
                        return Ok(pages);
                    }
                    self.read_page(number)?;
                    self.times.record(start.elapsed().as_nanos() as u64);
                    pages += 1;
                }
            }
        }
    }

    fn draw(&mut self) -> u64 {
        self.random = mix(self.random);
        self.random % self.pages
    }

    fn read_page(&mut self, number: u64) -> std::io::Result<()> {
        let mut page = [0; PAGE_SIZE];
        self.file
            .read_exact_at(&mut page, number * PAGE_SIZE as u64)?;
        self.check(number, &page);
        Ok(())
    }

    fn sweep(&mut self) -> std::io::Result<u64> {
        let mut bytes = vec![0; SWEEP_BYTES];
        let mut number = 0;
        while number < self.pages {
            let got = self.file.read_at(&mut bytes, number * PAGE_SIZE as u64)?;
            for page in bytes[..got].chunks_exact(PAGE_SIZE) {
                self.check(number, page);
                number += 1;
            }
            if got < PAGE_SIZE {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.pages)
    }

    fn check(&mut self, number: u64, page: &[u8]) {
        let found = page
            .first_chunk::<8>()
            .map(|word| u64::from_le_bytes(*word));
        self.wrong_pages += u64::from(found != Some(self.data.word(number, 0, 0)));
    }
}
