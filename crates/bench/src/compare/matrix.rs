//! The order of runs: cells, repeats, contenders; and the progress line of each.

use super::Options;
use super::contender::Contender;
use super::record::{Cell, Outcome, Record};
use super::run::Bench;
use crate::host::HostError;
use crate::size::{MIB, Size};
use crate::workload::Pattern;

/// The options of `--quick`: one small cell a pattern, one repeat.
pub(super) fn quick(options: &Options) -> Options {
    Options {
        bytes: vec![Size(64 * MIB)],
        ratio: vec![2],
        pattern: vec![Pattern::Seq, Pattern::Zipf],
        threads: vec![2],
        repeats: 1,
        seconds: 0.3,
        warmup: 0.1,
        ..options.clone()
    }
}

/// Runs everything. Records gathered before an error stay in `records`.
///
/// # Errors
/// [`HostError`] when the machine cannot be set up, or after Ctrl-C. A contender that fails is no
/// error: its record says so.
pub(super) fn walk(
    options: &Options,
    bench: &mut Bench<'_>,
    records: &mut Vec<Record>,
) -> Result<(), HostError> {
    let cells = cells(options);
    let contenders = order(&options.contenders);
    let total = cells.len() * options.repeats as usize * contenders.len();
    for cell in cells {
        for repeat in 0..options.repeats {
            let mut ram_bytes = None;
            for &contender in &contenders {
                let record = bench.run(cell, contender, repeat, ram_bytes)?;
                if contender == Contender::Zram && record.pool_bytes_peak > 0 {
                    ram_bytes = Some(record.total_bytes());
                }
                eprintln!("[{}/{total}] {}", records.len() + 1, progress(&record));
                records.push(record);
            }
        }
    }
    Ok(())
}

fn cells(options: &Options) -> Vec<Cell> {
    let mut cells = Vec::new();
    for bytes in &options.bytes {
        for &ratio in &options.ratio {
            for &pattern in &options.pattern {
                for &threads in &options.threads {
                    cells.push(Cell {
                        bytes: bytes.0,
                        ratio,
                        pattern,
                        threads,
                    });
                }
            }
        }
    }
    cells
}

/// The contenders with zram first: its pool decides how much RAM the others get.
fn order(contenders: &[Contender]) -> Vec<Contender> {
    let mut order = contenders.to_vec();
    order.sort_by_key(|&contender| contender != Contender::Zram);
    order
}

fn progress(record: &Record) -> String {
    let Cell {
        bytes,
        ratio,
        pattern,
        threads,
    } = record.cell;
    let what = format!(
        "{} {ratio}:1 {} x{threads} #{} {}",
        Size(bytes),
        pattern.name(),
        record.repeat + 1,
        record.contender.name()
    );
    let ram = match record.total_bytes() {
        0 => String::new(),
        bytes => format!(" in {} MiB", bytes / MIB),
    };
    let result = match (&record.outcome, &record.report) {
        (Outcome::Ok, Some(report)) => format!(
            "{:.0} ops/s, {} faults, p50 {:.1} µs, p99 {:.1} µs, {:.1} s in all",
            report.ops_per_second,
            report.faults,
            report.fault_ns_p50 as f64 / 1000.0,
            report.fault_ns_p99 as f64 / 1000.0,
            record.wall_seconds
        ),
        (outcome, _) => format!("{outcome:?}"),
    };
    format!("{what}{ram}: {result}")
}
