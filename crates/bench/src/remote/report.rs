//! The tables, in markdown, as `docs/performance.md` quotes them.

use std::fmt::Write;

use super::eviction::{EvictionRun, Way};
use super::page::{PageRun, Times};
use super::program::{ProgramRun, Where};
use super::{Bench, Place, Runs};
use crate::compare::report::{number, spread};
use crate::compare::statistics::Spread;
use crate::host::Machine;
use crate::size::Size;

/// What a page from a server may take, by the bare round trip.
const PAGE_TIMES_MAX: f64 = 1.3;

/// What is to go out on loopback, in MiB a second.
const EVICTION_MIN: f64 = 300.0;

/// The whole report.
pub(super) fn markdown(machine: &Machine, bench: &Bench<'_>, place: &Place, runs: &Runs) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = head(&mut text, machine, bench, place);
    let _ = pages(&mut text, &runs.pages);
    let _ = evictions(&mut text, &runs.evictions);
    let _ = programs(&mut text, &runs.programs);
    text
}

fn head(
    text: &mut String,
    machine: &Machine,
    bench: &Bench<'_>,
    place: &Place,
) -> std::fmt::Result {
    let options = bench.options;
    machine.describe(text)?;
    writeln!(
        text,
        "- server: {}, over {}, eviction over loopback; disk: {}",
        bench.program.version,
        place.name(),
        bench.disk.name
    )?;
    writeln!(
        text,
        "- {} rounds, interleaved; entries: median (minimum–maximum), ratios within a round\n",
        options.rounds
    )?;
    writeln!(
        text,
        "A page of 4 KiB, {} reads of each kind a round; program below: peak {}, RAM {}, {} accesses.\n",
        options.reads,
        options.bytes,
        Size(options.bytes.0 / 4),
        options.ops
    )
}

/// The spread of what runs give.
fn over<'a, R: 'a>(runs: impl Iterator<Item = &'a R>, of: impl Fn(&R) -> f64) -> Option<Spread> {
    Spread::of(runs.map(of).collect())
}

fn verdict(spread: Option<Spread>, is_met: impl Fn(f64) -> bool) -> &'static str {
    match spread {
        Some(spread) if is_met(spread.median) => "yes",
        Some(_) => "no",
        None => "–",
    }
}

fn ms(delay_us: u64) -> String {
    match delay_us {
        0 => "none".to_owned(),
        us => format!("{} ms", us as f64 / 1000.0),
    }
}

fn pages(text: &mut String, runs: &[PageRun]) -> std::fmt::Result {
    writeln!(
        text,
        "| delay | sealed | GETRANGE p50 µs | page p50 µs | ratio | ≤ {PAGE_TIMES_MAX} | GETRANGE p99 µs | page p99 µs | \
         ratio | disk p50 µs | disk p99 µs |"
    )?;
    writeln!(text, "|---|---|{}", "--:|".repeat(9))?;
    let mut seen = Vec::new();
    for first in runs {
        let cell = (first.delay_us, first.sealed);
        if seen.contains(&cell) {
            continue;
        }
        seen.push(cell);
        let of = |measure: &dyn Fn(&PageRun) -> f64| {
            let same = runs.iter().filter(|run| (run.delay_us, run.sealed) == cell);
            over(same, measure)
        };
        let p50: fn(&Times) -> f64 = |times| times.p50_us;
        let p99: fn(&Times) -> f64 = |times| times.p99_us;
        let ratio = of(&|run| p50(&run.page) / p50(&run.bare));
        let sealed = if first.sealed { "yes" } else { "no" };
        write!(text, "| {} | {sealed} |", ms(first.delay_us))?;
        write!(text, " {} |", spread(of(&|run| p50(&run.bare)), ""))?;
        write!(text, " {} |", spread(of(&|run| p50(&run.page)), ""))?;
        write!(text, " {} |", spread(ratio, "x"))?;
        write!(
            text,
            " {} |",
            verdict(ratio, |times| times <= PAGE_TIMES_MAX)
        )?;
        write!(text, " {} |", spread(of(&|run| p99(&run.bare)), ""))?;
        write!(text, " {} |", spread(of(&|run| p99(&run.page)), ""))?;
        write!(
            text,
            " {} |",
            spread(of(&|run| p99(&run.page) / p99(&run.bare)), "x")
        )?;
        write!(text, " {} |", spread(of(&|run| p50(&run.disk)), ""))?;
        writeln!(text, " {} |", spread(of(&|run| p99(&run.disk)), ""))?;
    }
    writeln!(text)
}

fn evictions(text: &mut String, runs: &[EvictionRun]) -> std::fmt::Result {
    writeln!(
        text,
        "| eviction | sealed | MiB/s | of disk | ≥ {} MiB/s |",
        number(EVICTION_MIN)
    )?;
    writeln!(text, "|---|---|--:|--:|--:|")?;
    let disk = |round| {
        let found = runs
            .iter()
            .find(|run| run.way == Way::Disk && run.round == round);
        found.map_or(f64::NAN, |run| run.mib_per_second)
    };
    for way in Way::ALL {
        for sealed in [false, true] {
            let same = || {
                runs.iter()
                    .filter(|run| run.way == way && run.sealed == sealed)
            };
            if same().next().is_none() {
                continue;
            }
            let rate = over(same(), |run| run.mib_per_second);
            let ratio = over(same(), |run| run.mib_per_second / disk(run.round));
            let is_sealed = if sealed { "yes" } else { "no" };
            let target = match way {
                Way::Disk => "–",
                _ => verdict(rate, |rate| rate >= EVICTION_MIN),
            };
            writeln!(
                text,
                "| {} | {is_sealed} | {} | {} | {target} |",
                way.name(),
                spread(rate, ""),
                spread(ratio, "x")
            )?;
        }
    }
    writeln!(text)
}

fn programs(text: &mut String, runs: &[ProgramRun]) -> std::fmt::Result {
    if runs.is_empty() {
        return Ok(());
    }
    writeln!(
        text,
        "| delay | where pages go | thousand ops/s | of disk | fault p50 µs | p99 µs | fill s | whole run s |"
    )?;
    writeln!(text, "|---|---|{}", "--:|".repeat(6))?;
    let mut delays: Vec<u64> = runs.iter().map(|run| run.delay_us).collect();
    delays.sort_unstable();
    delays.dedup();
    for delay_us in delays {
        let at = |place| {
            let same = move |run: &&ProgramRun| run.delay_us == delay_us && run.place == place;
            runs.iter().filter(same)
        };
        let disk = |round| {
            let found = at(Where::Disk).find(|run| run.round == round);
            found.map_or(f64::NAN, |run| run.report.ops_per_second)
        };
        for place in Where::ALL {
            let of = |measure: &dyn Fn(&ProgramRun) -> f64| over(at(place), measure);
            let speed = of(&|run| run.report.ops_per_second / 1000.0);
            let ratio = of(&|run| run.report.ops_per_second / disk(run.round));
            write!(text, "| {} | {} |", ms(delay_us), place.name())?;
            write!(text, " {} | {} |", spread(speed, ""), spread(ratio, "x"))?;
            let us = |ns: u64| ns as f64 / 1000.0;
            write!(
                text,
                " {} |",
                spread(of(&|run| us(run.report.fault_ns_p50)), "")
            )?;
            write!(
                text,
                " {} |",
                spread(of(&|run| us(run.report.fault_ns_p99)), "")
            )?;
            write!(
                text,
                " {} |",
                spread(of(&|run| run.report.fill_seconds), "")
            )?;
            writeln!(text, " {} |", spread(of(&|run| run.wall_seconds), ""))?;
        }
    }
    writeln!(text)
}
