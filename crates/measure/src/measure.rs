//! A measurement from targets to report.
//!
//! First all sources are opened, so that a wrong name costs no work; then all
//! samples are taken, at once, so that targets are seen at about the same time;
//! the long part works on the copies only.

use std::sync::Arc;
use std::time::Duration;

use zcache::codec::{Dictionary, Encoder};
use zcache::{Allocator, Codec, PAGE_SIZE, Page};
use zcache_pager::Need;

use crate::codecs::Coder;
use crate::error::MeasureError;
use crate::report::{CodecReport, Packing, Report, TargetReport};
use crate::sample::{Sample, sample};
use crate::source::{Kind, Source, Target};
use crate::{codecs, contents, density, dictionary};

/// Lengths of dictionaries and the levels that each is used with.
const DICTIONARIES: &[(usize, &[i32])] = &[(4 << 10, &[1]), (64 << 10, &[1, 6])];

/// What to measure and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// At least one.
    pub targets: Vec<Target>,
    /// The most bytes to sample of all targets together; `None` reads all.
    pub sample_bytes_max: Option<u64>,
    /// Chooses the pages.
    pub seed: u64,
}

/// How far a measurement is.
#[derive(Clone, Debug)]
pub struct Progress<'a> {
    /// The target.
    pub target: &'a str,
    /// What is being done.
    pub stage: &'a str,
    /// Pages done in this stage.
    pub done: u64,
    /// Pages of this stage.
    pub total: u64,
}

type Show<'a> = &'a mut dyn FnMut(&Progress<'_>);

/// One target's pages and what is known of it beside them.
struct Part {
    source: Source,
    sample: Sample,
    chosen: u64,
}

/// Measures the targets, each by itself and all together.
///
/// # Errors
/// [`MeasureError`] of the first target that cannot be measured.
pub fn measure(options: &Options, show: Show<'_>) -> Result<Report, MeasureError> {
    let sources = options.targets.iter().map(Source::open);
    let sources = sources.collect::<Result<Vec<Source>, MeasureError>>()?;
    let all_pages: u64 = sources.iter().map(Source::pages).sum();
    let most = options
        .sample_bytes_max
        .map(|bytes| bytes / PAGE_SIZE as u64);
    let mut parts = Vec::new();
    for source in sources {
        let chosen = share(source.pages(), all_pages, most);
        let sample = sample(&source, chosen, options.seed, |done| {
            show(&Progress {
                target: &source.name,
                stage: "reading",
                done,
                total: chosen,
            });
        });
        if sample.pages.is_empty() {
            return Err(MeasureError::Vanished {
                name: source.name,
                chosen_pages: chosen,
            });
        }
        parts.push(Part {
            source,
            sample,
            chosen,
        });
    }
    let mut targets = Vec::new();
    for part in &parts {
        targets.push(analyse(head(part), &part.pages(), show)?);
    }
    let together = match &targets[..] {
        [_] => None,
        targets => {
            let pages: Vec<&Page> = parts.iter().flat_map(Part::pages).collect();
            Some(analyse(add_up(targets), &pages, show)?)
        }
    };
    Ok(Report {
        format: 1,
        seed: options.seed,
        sample_bytes_max: options.sample_bytes_max,
        targets,
        together,
    })
}

/// How many pages are chosen of a target with `pages` of `all`: its share, so
/// that the samples together are one of the targets together.
fn share(pages: u64, all: u64, most: Option<u64>) -> u64 {
    match most {
        Some(most) if most < all => {
            let share = u128::from(most) * u128::from(pages) / u128::from(all.max(1));
            (share as u64).clamp(1, pages.max(1))
        }
        _ => pages,
    }
}

impl Part {
    fn pages(&self) -> Vec<&Page> {
        self.sample.pages.iter().collect()
    }
}

/// A report with what is known before the pages are looked at.
fn head(part: &Part) -> TargetReport {
    let mut report = TargetReport {
        name: part.source.name.clone(),
        pages: part.source.pages(),
        sampled_pages: part.sample.pages.len() as u64,
        vanished_pages: part.sample.vanished_pages,
        sampling_ns: nanoseconds(part.sample.time),
        ..empty("file")
    };
    debug_assert_eq!(report.sampled_pages + report.vanished_pages, part.chosen);
    if let Kind::Process {
        pid,
        swapped_pages,
        unpageable_pages,
        under_zcache,
    } = part.source.kind
    {
        report.kind = "process";
        report.pid = Some(pid);
        report.swapped_pages = swapped_pages;
        report.unpageable_pages = unpageable_pages;
        report.under_zcache = under_zcache;
    }
    report
}

fn add_up(targets: &[TargetReport]) -> TargetReport {
    let sum = |field: fn(&TargetReport) -> u64| targets.iter().map(field).sum();
    TargetReport {
        name: format!("all {} together", targets.len()),
        pages: sum(|target| target.pages),
        swapped_pages: sum(|target| target.swapped_pages),
        unpageable_pages: sum(|target| target.unpageable_pages),
        under_zcache: targets.iter().any(|target| target.under_zcache),
        sampled_pages: sum(|target| target.sampled_pages),
        vanished_pages: sum(|target| target.vanished_pages),
        sampling_ns: sum(|target| target.sampling_ns),
        ..empty("together")
    }
}

fn empty(kind: &'static str) -> TargetReport {
    TargetReport {
        kind,
        name: String::new(),
        pid: None,
        pages: 0,
        swapped_pages: 0,
        unpageable_pages: 0,
        under_zcache: false,
        sampled_pages: 0,
        vanished_pages: 0,
        sampling_ns: 0,
        contents: crate::Contents::default(),
        incompressible_pages: 0,
        codecs: Vec::new(),
        packings: Vec::new(),
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Fills in what the pages say.
fn analyse(
    mut report: TargetReport,
    pages: &[&Page],
    show: Show<'_>,
) -> Result<TargetReport, MeasureError> {
    let name = report.name.clone();
    let mut tick = |stage: &str, done: u64| {
        show(&Progress {
            target: &name,
            stage,
            done,
            total: pages.len() as u64,
        });
    };
    report.contents = contents::look(pages, |done| tick("sorting", done));
    for codec in Codec::shrinking() {
        let stage = format!("compressing by {codec}");
        let coder = Coder::Plain(codec);
        let found = codecs::look(coder, pages, report.pages, |done| tick(&stage, done))?;
        report.codecs.push(found);
    }
    let incompressible = |codec: &CodecReport| codec.incompressible_pages;
    report.incompressible_pages = report.codecs.iter().map(incompressible).min().unwrap_or(0);
    for (bytes, levels) in DICTIONARIES {
        with_dictionary(&mut report, pages, *bytes, levels, &mut tick)?;
    }
    for allocator in Allocator::ALL {
        for codec in Codec::shrinking() {
            let stage = format!("packing by {} and {codec}", allocator.name());
            let found = density::look(allocator, codec, pages, |done| tick(&stage, done))?;
            let packing = packing(&report, allocator, codec, &found);
            report.packings.push(packing);
        }
    }
    Ok(report)
}

/// Adds what the codecs make of the pages with a dictionary of so many bytes,
/// if one can be trained.
fn with_dictionary(
    report: &mut TargetReport,
    pages: &[&Page],
    bytes: usize,
    levels: &[i32],
    tick: &mut dyn FnMut(&str, u64),
) -> Result<(), MeasureError> {
    let own: Vec<&Page> = pages
        .iter()
        .copied()
        .filter(|page| !contents::is_same_filled(page))
        .collect();
    let Some((train, measure)) = dictionary::divide(&own, bytes) else {
        return Ok(());
    };
    tick(&format!("training a dictionary of {}K", bytes >> 10), 0);
    let Some(trained) = dictionary::train(&train, bytes) else {
        return Ok(());
    };
    for level in levels {
        let Ok(encoder) = Encoder::new(Arc::clone(&trained), *level) else {
            continue;
        };
        let stage = format!(
            "compressing by {} {level} with a dictionary of {}K",
            Dictionary::CODEC,
            bytes >> 10
        );
        let coder = Coder::Trained(encoder);
        let found = codecs::look(coder, &measure, report.pages, |done| tick(&stage, done))?;
        report.codecs.push(found);
    }
    Ok(())
}

fn packing(
    report: &TargetReport,
    allocator: Allocator,
    codec: Codec,
    found: &density::Density,
) -> Packing {
    let pages = report.pages + report.swapped_pages;
    let ram_bytes = |resident_part: f64| {
        let need = Need {
            pages,
            stored_bytes_a_page: found.per_page_bytes,
            resident_part,
            unpageable_bytes: report.unpageable_pages * PAGE_SIZE as u64 + found.fixed_bytes,
        };
        (report.kind != "file").then(|| need.ram_bytes())
    };
    Packing {
        allocator: allocator.name(),
        codec: codec.name(),
        dictionary_bytes: 0,
        density: PAGE_SIZE as f64 / found.per_page_bytes.max(1.0),
        ram_bytes_least: ram_bytes(0.0),
        ram_bytes_half: ram_bytes(0.5),
        stored_bytes: (pages as f64 * found.per_page_bytes) as u64 + found.fixed_bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_in_proportion_and_never_nothing() {
        assert_eq!(share(10, 100, None), 10);
        assert_eq!(share(10, 100, Some(100)), 10);
        assert_eq!(share(75, 100, Some(20)), 15);
        assert_eq!(share(1, 1_000_000, Some(1000)), 1);
        assert_eq!(share(u64::MAX / 2, u64::MAX, Some(1 << 40)), (1 << 39) - 1);
    }
}
