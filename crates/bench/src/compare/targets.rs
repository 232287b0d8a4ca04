//! The speed that zcache sets itself, and whether a comparison reached it.
//!
//! Sequential at least 2x zram; uniform and zipf at least 0.5x zram and at least 3x disk swap; the
//! median fault at most twice zram's and the 99th percentile below zram's. Each peer is compared with
//! the zcache that has the peer's total RAM. Medians of ratios within the repeats decide.

use super::contender::{Budget, Contender};
use super::record::{Cell, Record};
use super::report::{line, spread};
use super::statistics::{CellRuns, Spread};
use crate::size::Size;
use crate::workload::{Pattern, Report};

/// One aim: a ratio to a peer and the bound of it.
struct Target {
    name: &'static str,
    ratio: Option<Spread>,
    bound: Bound,
}

#[derive(Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Bound::AtLeast(bound) => value >= bound,
            Bound::AtMost(bound) => value <= bound,
        }
    }

    fn text(self) -> String {
        match self {
            Bound::AtLeast(bound) => format!("≥ {bound}x"),
            Bound::AtMost(bound) => format!("≤ {bound}x"),
        }
    }
}

/// Appends the table of targets, when zcache ran beside a peer.
pub(super) fn table(text: &mut String, cells: &[Cell], records: &[Record]) {
    let zcache = Contender::ALL
        .into_iter()
        .filter(|contender| contender.zcache_codec().is_some());
    if !records
        .iter()
        .any(|record| record.contender.zcache_codec().is_some())
    {
        return;
    }
    line(text, "\n### Targets\n");
    line(
        text,
        "| data | pattern | threads | contender | target | bound | measured | reached |",
    );
    line(text, "|---|---|--:|---|---|---|--:|---|");
    for &cell in cells {
        let runs = CellRuns::of(cell, records);
        for contender in zcache.clone() {
            for target in targets(cell, contender, &runs) {
                let reached = match target.ratio {
                    Some(ratio) if target.bound.holds(ratio.median) => "yes",
                    Some(_) => "no",
                    None => continue,
                };
                let row = [
                    format!("{} {}:1", Size(cell.bytes), cell.ratio),
                    cell.pattern.name().to_owned(),
                    cell.threads.to_string(),
                    contender.name().to_owned(),
                    target.name.to_owned(),
                    target.bound.text(),
                    spread(target.ratio, "x"),
                    reached.to_owned(),
                ];
                line(text, &format!("| {} |", row.join(" | ")));
            }
        }
    }
}

fn targets(cell: Cell, contender: Contender, runs: &CellRuns<'_>) -> Vec<Target> {
    let speed = |peer| runs.ratio(contender, peer, |record| record.speed().unwrap_or(0.0));
    let time = |pick: fn(&Report) -> u64| {
        let measure = |record: &Record| record.report.as_ref().map_or(0.0, |r| pick(r) as f64);
        runs.ratio(contender, Contender::Zram, measure)
    };
    let target = |name, ratio, bound| Target { name, ratio, bound };
    let sequential = cell.pattern == Pattern::Seq;
    match (contender.budget(), sequential) {
        (Budget::Limit, true) => Vec::new(),
        (Budget::Limit, false) => {
            vec![target(
                "speed of disk swap",
                speed(Contender::Disk),
                Bound::AtLeast(3.0),
            )]
        }
        _ => {
            let bound = Bound::AtLeast(if sequential { 2.0 } else { 0.5 });
            vec![
                target("speed of zram", speed(Contender::Zram), bound),
                target(
                    "fault p50 of zram",
                    time(|r| r.fault_ns_p50),
                    Bound::AtMost(2.0),
                ),
                target(
                    "fault p99 of zram",
                    time(|r| r.fault_ns_p99),
                    Bound::AtMost(1.0),
                ),
            ]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_hold_on_their_side() {
        assert!(Bound::AtLeast(2.0).holds(2.0) && !Bound::AtLeast(2.0).holds(1.99));
        assert!(Bound::AtMost(1.0).holds(0.5) && !Bound::AtMost(1.0).holds(1.01));
    }
}
