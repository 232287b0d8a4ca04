//! The tables, in markdown, as `docs/performance.md` quotes them.

use std::fmt::Write;

use super::Options;
use super::contender::Contender;
use super::record::{Cell, Outcome, Record};
use super::statistics::{CellRuns, Spread};
use super::targets;
use crate::host::Machine;
use crate::size::{MIB, Size};

/// The whole report.
pub(super) fn markdown(machine: &Machine, options: &Options, records: &[Record]) -> String {
    let mut text = String::new();
    head(&mut text, machine, options);
    let mut group = None;
    for cell in cells(records) {
        if group != Some((cell.bytes, cell.ratio)) {
            group = Some((cell.bytes, cell.ratio));
            line(
                &mut text,
                &format!("\n### {} of {}:1 data\n", Size(cell.bytes), cell.ratio),
            );
            line(&mut text, COLUMNS);
            line(
                &mut text,
                "|---|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
            );
        }
        rows(&mut text, cell, &CellRuns::of(cell, records));
    }
    failures(&mut text, records);
    targets::table(&mut text, &cells(records), records);
    text
}

const COLUMNS: &str = "| pattern | threads | contender | good runs | RAM MiB | peak MiB | thousand ops/s | \
    of unlimited | of zram | of disk | fault p50 µs | p90 µs | p99 µs | p99.9 µs | CPU s |";

/// Appends a line.
pub(super) fn line(text: &mut String, content: &str) {
    text.push_str(content);
    text.push('\n');
}

fn head(text: &mut String, machine: &Machine, options: &Options) {
    let entries = [
        (
            "machine",
            format!("{}, {} MiB RAM", machine.cpu, machine.ram_bytes / MIB),
        ),
        ("kernel", machine.kernel.clone()),
        ("commit", machine.commit.clone()),
        (
            "settings",
            format!(
                "transparent huge pages {}, page-cluster {}",
                machine.huge_pages, machine.page_cluster
            ),
        ),
        (
            "runs",
            format!(
                "{} repeats, interleaved; {} s measured after {} s; {}% writes; peers limited to {}% of the data",
                options.repeats,
                options.seconds,
                options.warmup,
                options.writes,
                options.limit_percent
            ),
        ),
    ];
    for (name, value) in entries {
        line(text, &format!("- {name}: {value}"));
    }
    line(text, "- entries: median (minimum–maximum)");
}

fn cells(records: &[Record]) -> Vec<Cell> {
    let mut cells = Vec::new();
    for record in records {
        if !cells.contains(&record.cell) {
            cells.push(record.cell);
        }
    }
    cells
}

fn rows(text: &mut String, cell: Cell, runs: &CellRuns<'_>) {
    for contender in Contender::ALL {
        let all = runs.by(contender).count();
        if all == 0 {
            continue;
        }
        let good = runs
            .by(contender)
            .filter(|record| record.speed().is_some())
            .count();
        let killed = runs
            .by(contender)
            .filter(|record| record.outcome == Outcome::OomKilled);
        let mut count = format!("{good}/{all}");
        match killed.count() {
            0 => {}
            killed => write!(count, ", {killed} OOM").expect("writing to a string"),
        }
        let speed = |record: &Record| record.speed().unwrap_or(0.0);
        let mib = |measure: fn(&Record) -> u64| {
            let spread = runs.spread(contender, |record| measure(record) as f64 / MIB as f64);
            spread
                .filter(|s| s.max > 0.0)
                .map_or("–".into(), |s| format!("{:.0}", s.median))
        };
        let time = |pick: fn(&crate::workload::Report) -> u64| {
            let spread = runs.spread(contender, |record| {
                record
                    .report
                    .as_ref()
                    .map_or(0.0, |report| pick(report) as f64 / 1000.0)
            });
            spread
                .filter(|s| s.max > 0.0)
                .map_or("–".into(), |s| number(s.median))
        };
        let columns = [
            cell.pattern.name().to_owned(),
            cell.threads.to_string(),
            title(contender, runs),
            count,
            mib(Record::total_bytes),
            mib(|record| record.anonymous_bytes_peak + record.pool_bytes_peak),
            spread(runs.spread(contender, |record| speed(record) / 1000.0), ""),
            spread(
                scaled(runs.ratio(contender, Contender::Unlimited, speed), 100.0),
                "%",
            ),
            spread(runs.ratio(contender, Contender::Zram, speed), "x"),
            spread(runs.ratio(contender, Contender::Disk, speed), "x"),
            time(|report| report.fault_ns_p50),
            time(|report| report.fault_ns_p90),
            time(|report| report.fault_ns_p99),
            time(|report| report.fault_ns_p999),
            runs.spread(contender, |record| record.cpu_seconds)
                .map_or("–".into(), |s| number(s.median)),
        ];
        line(text, &format!("| {} |", columns.join(" | ")));
    }
}

/// The contender's name, with the codec where the name does not say it.
fn title(contender: Contender, runs: &CellRuns<'_>) -> String {
    let codec = runs
        .by(contender)
        .map(|record| record.codec)
        .find(|codec| !codec.is_empty());
    match codec {
        Some(codec) if contender.zcache_codec().is_none() => {
            format!("{} {codec}", contender.name())
        }
        _ => contender.name().to_owned(),
    }
}

fn scaled(spread: Option<Spread>, factor: f64) -> Option<Spread> {
    spread.map(|Spread { min, median, max }| Spread {
        min: min * factor,
        median: median * factor,
        max: max * factor,
    })
}

/// `median (min–max)` with a unit, or a dash.
pub(crate) fn spread(spread: Option<Spread>, unit: &str) -> String {
    match spread {
        Some(Spread { min, median, max }) => {
            format!("{}{unit} ({}–{})", number(median), number(min), number(max))
        }
        None => "–".to_owned(),
    }
}

/// Three significant digits, or all digits before the point.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn failures(text: &mut String, records: &[Record]) {
    let wrong: u64 = records
        .iter()
        .filter_map(|r| r.report.as_ref())
        .map(|report| report.wrong_bytes)
        .sum();
    let good = records
        .iter()
        .filter(|record| record.speed().is_some())
        .count();
    line(
        text,
        &format!(
            "\n{good} of {} runs ended well; {wrong} wrong bytes.",
            records.len()
        ),
    );
    for record in records.iter().filter(|record| record.speed().is_none()) {
        let Cell {
            bytes,
            ratio,
            pattern,
            threads,
        } = record.cell;
        line(
            text,
            &format!(
                "- {} {ratio}:1 {} x{threads} run {} of {}: {:?}, peak {} of {} MiB",
                Size(bytes),
                pattern.name(),
                record.repeat + 1,
                record.contender.name(),
                record.outcome,
                (record.anonymous_bytes_peak + record.pool_bytes_peak) / MIB,
                record.total_bytes() / MIB,
            ),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        for (value, text) in [
            (0.0, "0.00"),
            (1.234, "1.23"),
            (12.34, "12.3"),
            (1234.5, "1234"),
        ] {
            assert_eq!(number(value), text);
        }
    }
}
