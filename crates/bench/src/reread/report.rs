//! The tables, in markdown, as `docs/mount.md` quotes them.

use std::fmt::Write;

use super::{Options, Run, Stream};
use crate::compare::report::{number, spread};
use crate::compare::statistics::Spread;
use crate::host::Machine;
use crate::size::MIB;
use crate::workload::PAGE_SIZE;

/// What is asked of zcache, as a multiple of the filesystem alone.
const RANDOM_TIMES: f64 = 4.0;
const SWEEP_TIMES: f64 = 1.5;
const COLD_TIMES: f64 = 0.9;

/// A column: its title, its unit, and what it takes of a run.
type Column = (&'static str, &'static str, fn(&Run) -> f64);

const COLUMNS: [Column; 5] = [
    ("random, thousand/s", "", |run| rate(run, 3) / 1000.0),
    ("p50, µs", "", |run| run.reading.p50_ns as f64 / 1000.0),
    ("p99, µs", "", |run| run.reading.p99_ns as f64 / 1000.0),
    ("sweep again, MiB/s", "", |run| {
        mib(rate(run, 4).midpoint(rate(run, 5)))
    }),
    ("cold sweep, MiB/s", "", |run| mib(rate(run, 0))),
];

fn rate(run: &Run, step: usize) -> f64 {
    run.reading
        .pages_per_second
        .get(step)
        .copied()
        .unwrap_or(0.0)
}

fn mib(pages: f64) -> f64 {
    pages * 4096.0 / MIB as f64
}

/// The whole report.
pub(super) fn markdown(
    machine: &Machine,
    options: &Options,
    runs: &[Run],
    streams: &[Stream],
) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = head(&mut text, machine, options);
    let _ = speeds(&mut text, options, runs);
    let _ = targets(&mut text, options, runs);
    let _ = policies(&mut text, streams);
    text
}

fn head(text: &mut String, machine: &Machine, options: &Options) -> std::fmt::Result {
    machine.describe(text)?;
    let disk = options.iops.map_or("as it is".into(), |iops| {
        format!("{iops} reads and {} MiB a second", iops / 8)
    });
    writeln!(
        text,
        "- file: {} of data that lz4 shrinks {}:1; RAM in all {}, with zcache {} of it page cache; disk {disk}",
        options.bytes, options.ratio, options.ram, options.page_cache
    )?;
    writeln!(
        text,
        "- {} repeats, interleaved; entries: median (minimum–maximum)\n",
        options.repeats
    )
}

fn by<'a>(runs: &'a [Run], contender: &'a str) -> impl Iterator<Item = &'a Run> {
    runs.iter().filter(move |run| run.contender == contender)
}

fn speeds(text: &mut String, options: &Options, runs: &[Run]) -> std::fmt::Result {
    write!(text, "| who |")?;
    for (title, ..) in COLUMNS {
        write!(text, " {title} |")?;
    }
    writeln!(text, " hits once full | RAM at most, MiB |")?;
    writeln!(text, "|---|{}--:|--:|", "--:|".repeat(COLUMNS.len()))?;
    for contender in &options.contenders() {
        let contender = contender.name.as_str();
        write!(text, "| {contender} |")?;
        for (_, unit, of) in COLUMNS {
            let values = by(runs, contender).map(of).collect();
            write!(text, " {} |", spread(Spread::of(values), unit))?;
        }
        let stats = |name: &str| {
            let values = by(runs, contender).filter_map(|run| run.stats.as_ref()?[name].as_f64());
            Spread::of(values.collect())
        };
        let share = match (stats("hit_pages"), stats("missed_pages")) {
            (Some(hits), Some(misses)) => {
                // The first two sweeps fill zcache: all of their pages are missed.
                let filling = 2.0 * (options.bytes.0 / PAGE_SIZE as u64) as f64;
                let missed = (misses.median - filling).max(0.0);
                format!("{}%", number(100.0 * hits.median / (hits.median + missed)))
            }
            _ => "–".into(),
        };
        let peak = stats("ram_bytes_peak").map(|peak| peak.max / MIB as f64);
        writeln!(text, " {share} | {} |", peak.map_or("–".into(), number))?;
    }
    writeln!(text)
}

/// Ratios to the filesystem alone, within each repeat.
fn targets(text: &mut String, options: &Options, runs: &[Run]) -> std::fmt::Result {
    let aims = [(0, RANDOM_TIMES), (3, SWEEP_TIMES), (4, COLD_TIMES)];
    writeln!(
        text,
        "| times the filesystem alone | random | sweep again | cold sweep |"
    )?;
    writeln!(text, "|---|--:|--:|--:|")?;
    for contender in &options.contenders()[1..] {
        let contender = contender.name.as_str();
        write!(text, "| {contender} |")?;
        for (column, _) in aims {
            let of = COLUMNS[column].2;
            let ratios = (0..options.repeats).filter_map(|repeat| {
                let value = |who| by(runs, who).find(|run| run.repeat == repeat).map(of);
                Some(value(contender)? / value("alone")?)
            });
            write!(text, " {} |", spread(Spread::of(ratios.collect()), ""))?;
        }
        writeln!(text)?;
    }
    let wanted = aims.map(|(_, times)| format!("≥ {}", number(times)));
    writeln!(text, "| aim | {} |\n", wanted.join(" | "))
}

fn policies(text: &mut String, streams: &[Stream]) -> std::fmt::Result {
    if streams.is_empty() {
        return Ok(());
    }
    writeln!(
        text,
        "| policy | pages of the set | pages of the stream | hits before | hits after |"
    )?;
    writeln!(text, "|---|--:|--:|--:|--:|")?;
    for stream in streams {
        let percent = |share: f64| format!("{:.1}%", share * 100.0);
        writeln!(
            text,
            "| {} | {} | {} | {} | {} |",
            stream.policy,
            stream.pages.0,
            stream.pages.1,
            percent(stream.hits.0),
            percent(stream.hits.1)
        )?;
    }
    Ok(())
}
