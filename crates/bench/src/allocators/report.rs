//! The tables, in markdown, as `docs/allocators.md` quotes them.

use std::fmt::Write;

use zcache::{Allocator, Codec};

use super::trial::{Trial, Worst};
use super::{AWKWARD, Options};
use crate::compare::report::{number, spread};
use crate::compare::statistics::Spread;
use crate::density::Corpus;
use crate::density::report::head;
use crate::host::Machine;

/// A column: its head and what it shows of a trial.
type Column = (&'static str, fn(&Trial) -> f64);

const DENSITY: [Column; 6] = [
    ("fresh", |trial| trial.fresh),
    ("all programs in one", |trial| trial.fresh_in_one),
    ("churned", |trial| trial.churned),
    ("half freed", |trial| trial.half_freed),
    ("evacuated", |trial| trial.evacuated),
    ("metadata, bytes a page", |trial| trial.metadata_per_page),
];

const EVICTION: [Column; 5] = [
    ("frames a block", |trial| trial.block_frames),
    ("zpages that leave", |trial| trial.evicted_zpages),
    ("ns", |trial| trial.evict_ns),
    ("zpages moved by evacuation", |trial| trial.moved_zpages),
    ("ns by evacuation", |trial| trial.evacuate_ns),
];

const TIME: [Column; 5] = [
    ("store", |trial| trial.store_ns),
    ("load", |trial| trial.load_ns),
    ("replace", |trial| trial.replace_ns),
    ("store with codec", |trial| trial.store_with_codec_ns),
    ("load with codec", |trial| trial.load_with_codec_ns),
];

/// The whole report.
pub(super) fn markdown(
    machine: &Machine,
    options: &Options,
    corpus: &Corpus,
    trials: &[Trial],
    worst: &[Worst],
) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = head(&mut text, machine, (options.repeats, options.cpu), corpus);
    let _ = writeln!(text, "Density: bytes of pages by bytes of frames.\n");
    let _ = table(&mut text, &DENSITY, trials);
    let _ = ideal(&mut text, trials);
    let _ = writeln!(text, "Eviction and evacuation, for each frame freed.\n");
    let _ = table(&mut text, &EVICTION, trials);
    let _ = writeln!(text, "Time of a page, in nanoseconds.\n");
    let _ = table(&mut text, &TIME, trials);
    let _ = worst_cases(&mut text, worst);
    text
}

fn table(text: &mut String, columns: &[Column], trials: &[Trial]) -> std::fmt::Result {
    write!(text, "| allocator | codec |")?;
    columns
        .iter()
        .try_for_each(|(head, _)| write!(text, " {head} |"))?;
    writeln!(text, "\n|---|---|{}", "--:|".repeat(columns.len()))?;
    for codec in Codec::shrinking() {
        for allocator in Allocator::ALL {
            write!(text, "| {} | {codec} |", allocator.name())?;
            for (_, of) in columns {
                write!(text, " {} |", shown(of_pair(trials, allocator, codec, *of)))?;
            }
            writeln!(text)?;
        }
    }
    writeln!(text)
}

/// A spread, or one number where it has no spread that could be seen.
fn shown(values: Option<Spread>) -> String {
    match values {
        Some(one) if number(one.min) == number(one.max) => number(one.median),
        other => spread(other, ""),
    }
}

fn of_pair(
    trials: &[Trial],
    allocator: Allocator,
    codec: Codec,
    of: fn(&Trial) -> f64,
) -> Option<Spread> {
    let pair = |trial: &&Trial| trial.allocator == allocator && trial.codec == codec;
    Spread::of(trials.iter().filter(pair).map(of).collect())
}

fn ideal(text: &mut String, trials: &[Trial]) -> std::fmt::Result {
    write!(text, "Without any packing loss:")?;
    for codec in Codec::shrinking() {
        if let Some(trial) = trials.iter().find(|trial| trial.codec == codec) {
            write!(text, " {codec} {}", number(trial.ideal))?;
        }
    }
    writeln!(text, ".\n")
}

fn worst_cases(text: &mut String, worst: &[Worst]) -> std::fmt::Result {
    writeln!(
        text,
        "Zpages of one length in a frame: stored once, and after half were freed and the rest evacuated.\n"
    )?;
    write!(text, "| allocator |")?;
    AWKWARD
        .iter()
        .try_for_each(|len| write!(text, " {len} bytes |"))?;
    writeln!(text, "\n|---|{}", "--:|".repeat(AWKWARD.len()))?;
    for allocator in Allocator::ALL {
        write!(text, "| {} |", allocator.name())?;
        for len in AWKWARD {
            let case = |case: &&Worst| case.allocator == allocator && case.len == len;
            if let Some(case) = worst.iter().find(case) {
                let (fresh, evacuated) = (number(case.fresh), number(case.evacuated));
                write!(text, " {fresh}, {evacuated} |")?;
            }
        }
        writeln!(text)?;
    }
    Ok(())
}
