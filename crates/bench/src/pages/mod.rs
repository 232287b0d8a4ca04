//! What a page costs: bytes of RAM of a real store for another page, by kind of page and by how it is addressed, and how
//! many pages a limit on RAM can address.
//!
//! - The numbers are those of a store's public statistics, and nothing is derived from the sizes of records.
//! - A cost is a difference: a store with twice as many pages less one with as many, so what a store takes once is not in it.
//! - Every page is loaded and compared in the end.
//!
//! It needs no disk, no privilege and no quiet machine: nothing is timed.

mod kind;
mod measure;
mod report;

use std::process::ExitCode;

use crate::host::Machine;
use kind::Kind;
use measure::{Address, Bound, Cost, Home};

/// Options of `zcache-bench pages`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Options {
    /// Pages of each difference
    #[arg(long, default_value_t = 16384, value_parser = clap::value_parser!(u32).range(256..))]
    pages: u32,
}

/// RAM of the stores whose bound is measured.
const BOUND_BYTES: u64 = 1 << 20;

/// A row of costs: a kind, where its pages are, and what one costs under each address that can name it.
struct Row {
    kind: Kind,
    home: Home,
    costs: Vec<Option<Cost>>,
}

/// Measures; exit code 2 when a page was refused or came back wrong.
pub(crate) fn run(options: &Options) -> ExitCode {
    match measure(options) {
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

fn measure(options: &Options) -> Result<String, String> {
    let in_ram = Kind::ALL.map(|kind| (kind, Home::Ram));
    let in_tier = Kind::IN_TIER.map(|kind| (kind, Home::Tier));
    let mut rows = Vec::new();
    for (kind, home) in in_ram.into_iter().chain(in_tier) {
        eprintln!("{}{}", kind.name(), home.name());
        let costs = Address::ALL.map(|address| Cost::of(kind, home, address, options.pages));
        rows.push(Row {
            kind,
            home,
            costs: costs.into_iter().collect::<Result<_, _>>()?,
        });
    }
    let mut bounds = Vec::new();
    for kind in Kind::IN_TIER {
        eprintln!("{}, until refused", kind.name());
        for address in Address::BOUNDED {
            bounds.push(Bound::of(kind, address, BOUND_BYTES)?);
        }
    }
    Ok(report::markdown(&Machine::read(), options, &rows, &bounds))
}
