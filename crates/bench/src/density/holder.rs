//! The process whose pages zswap holds: it reads a corpus into memory, and on a word on its standard
//! input pushes it out to swap, or touches every page and compares it with the file.
//!
//! Words: `out` answers the nanoseconds that it took; `in` those of the touches, and how many pages are
//! wrong. Everything else ends it.

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use zcache_sys::{memory, process};

use super::{Corpus, Page};

/// Options of the hidden command `zcache-bench hold`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Options {
    /// The corpus
    corpus: PathBuf,
    /// The CPU to run on
    #[arg(long)]
    cpu: usize,
}

/// One page of the corpus in one page of this process.
#[repr(align(4096))]
struct Aligned(Page);

/// Holds the pages until its standard input ends.
pub(crate) fn run(options: &Options) -> ExitCode {
    match serve(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn serve(options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    process::run_on(&[options.cpu])?;
    let held = aligned(Corpus::read(&options.corpus)?);
    println!("ready");
    for word in std::io::stdin().lock().lines() {
        match word?.as_str() {
            "out" => {
                let clock = Instant::now();
                memory::page_out(&held)?;
                println!("{}", clock.elapsed().as_nanos());
            }
            "in" => {
                let clock = Instant::now();
                let first = |page: &Aligned| u64::from(std::hint::black_box(page.0[0]));
                let sum: u64 = held.iter().map(first).sum();
                let time = clock.elapsed().as_nanos();
                std::hint::black_box(sum);
                println!("{time} {}", wrong(options, &held)?);
            }
            _ => break,
        }
        std::io::stdout().flush()?;
    }
    Ok(())
}

/// The pages of all programs in pages of this process: swapped out are then the very same.
fn aligned(corpus: Corpus) -> Vec<Aligned> {
    corpus.sources.into_iter().flatten().map(Aligned).collect()
}

/// How many pages are not those of the corpus, which is read once more for it, so that no second copy
/// is in memory before.
fn wrong(options: &Options, held: &[Aligned]) -> Result<usize, Box<dyn std::error::Error>> {
    let corpus = Corpus::read(&options.corpus)?;
    let pairs = held.iter().zip(corpus.sources.iter().flatten());
    Ok(pairs.filter(|(one, other)| one.0 != **other).count())
}
