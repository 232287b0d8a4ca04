//! The allocators side by side, on the zpages of real programs: how densely each packs them, what eviction
//! and evacuation cost, and what a store and a load cost in the allocator alone and with the codec.
//!
//! - The allocator alone is a shard of the core with memory that is touched before; there is no codec, no
//!   lock and no second thread. One shard holds the pages of one program; densities and times are those of
//!   all programs together. With the codec it is the store as `zcache run` opens it.
//! - Density is bytes of pages by bytes of the frames that their blocks take; metadata is shown beside it.
//!   Same-filled pages take no frame with any allocator and are left out.
//! - Every zpage is compared with what was stored, after every stage.
//!
//! Allocators run interleaved. Each repeat draws other pages for churn.

mod arena;
mod report;
mod trial;

use std::path::PathBuf;
use std::process::ExitCode;

use zcache::codec::{self, Kind};
use zcache::{Allocator, Codec};

use crate::density::Corpus;
use crate::host::{HostError, Interrupt, Machine};
use trial::{Trial, Worst};

/// Options of `zcache-bench allocators`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Options {
    /// A folder that `zcache-bench corpus` has made
    corpus: PathBuf,
    /// Runs of each allocator
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    repeats: u32,
    /// The CPU that stores and loads
    #[arg(long, default_value_t = 0)]
    cpu: usize,
}

/// Lengths at which some allocator is at its worst: just over a half and three quarters of a frame, and one
/// byte short of all of it.
const AWKWARD: [usize; 3] = [2049, 3073, 4095];

/// The zpages of one program under one codec.
type Zpages = Vec<Vec<u8>>;

/// Compares; exit code 2 when the comparison could not be made or a zpage came back wrong.
pub(crate) fn run(options: &Options) -> ExitCode {
    match compare(options) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn compare(options: &Options) -> Result<String, HostError> {
    let failed = |line: &str, detail: String| HostError::Command {
        line: line.to_owned(),
        detail,
    };
    let machine = Machine::read();
    let interrupt =
        Interrupt::catch().map_err(|error| failed("catching signals", error.to_string()))?;
    let corpus = Corpus::read(&options.corpus)?;
    zcache_sys::process::run_on(&[options.cpu])
        .map_err(|error| failed(&format!("--cpu {}", options.cpu), error.to_string()))?;
    let mut trials = Vec::new();
    for codec in Codec::shrinking() {
        eprintln!("compressing with {codec}");
        let sources: Vec<Zpages> = corpus
            .sources
            .iter()
            .map(|pages| pages.iter().filter_map(|page| zpage(codec, page)).collect())
            .collect();
        for repeat in 0..options.repeats {
            for allocator in Allocator::ALL {
                if interrupt.came() {
                    return Err(HostError::Interrupted);
                }
                eprintln!(
                    "repeat {} of {}: {} with {codec}",
                    repeat + 1,
                    options.repeats,
                    allocator.name()
                );
                trials.push(Trial::run(allocator, codec, repeat, &sources, &corpus)?);
            }
        }
    }
    let worst = AWKWARD
        .iter()
        .flat_map(|len| Allocator::ALL.map(|allocator| Worst::of(allocator, *len)))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(report::markdown(
        &machine, options, &corpus, &trials, &worst,
    ))
}

/// The bytes that a page takes; none for a same-filled page.
fn zpage(codec: Codec, page: &zcache::Page) -> Option<Vec<u8>> {
    codec::encode(codec, page, |encoded| {
        (encoded.kind != Kind::Same).then(|| encoded.bytes.to_vec())
    })
}
