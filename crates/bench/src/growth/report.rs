//! The tables, in markdown, as `docs/decisions/remote-growth.md` quotes them.

use std::fmt::Write;

use super::{Outcome, Plan, View};
use crate::compare::report::number;

/// The whole report.
pub(super) fn markdown(plan: &Plan, outcomes: &[Outcome], views: &[View]) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = head(&mut text, plan);
    let _ = layouts(&mut text, outcomes);
    let _ = losses(&mut text, outcomes);
    let _ = seen(&mut text, views);
    text
}

fn head(text: &mut String, plan: &Plan) -> std::fmt::Result {
    writeln!(
        text,
        "- {} hosts, each with {} segments of {} blocks, two copies; leases of {} s; seed {}\n",
        plan.hosts,
        plan.segments,
        plan.blocks_each,
        plan.lease.as_secs(),
        plan.seed
    )
}

fn layouts(text: &mut String, outcomes: &[Outcome]) -> std::fmt::Result {
    writeln!(
        text,
        "| a host borrows from | connections of a server | at most | index, bytes a block | other RAM counted, MiB | \
         commands/s of the busiest server, at rest | with leases |"
    )?;
    writeln!(text, "|---|--:|--:|--:|--:|--:|--:|")?;
    for outcome in outcomes {
        writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} |",
            outcome.layout.name(),
            outcome.connections.0,
            outcome.connections.1,
            number(outcome.ram_bytes.0 as f64 / outcome.blocks as f64),
            mib(outcome.ram_bytes.1),
            number(outcome.commands.0),
            number(outcome.commands.1)
        )?;
    }
    writeln!(text)
}

fn losses(text: &mut String, outcomes: &[Outcome]) -> std::fmt::Result {
    writeln!(
        text,
        "| a host borrows from | hosts die | blocks lost | of the blocks of the living | two copies again after, s |"
    )?;
    writeln!(text, "|---|--:|--:|--:|--:|")?;
    for outcome in outcomes {
        for loss in &outcome.losses {
            let repaired = loss.repaired_s.map_or("not".to_owned(), number);
            writeln!(
                text,
                "| {} | {} | {} | {} | {repaired} |",
                outcome.layout.name(),
                loss.died,
                loss.lost,
                loss.of
            )?;
        }
        writeln!(
            text,
            "| {} | in the end | {} | {} right, {} wrong | |",
            outcome.layout.name(),
            outcome.end.lost,
            outcome.end.right,
            outcome.end.wrong
        )?;
    }
    writeln!(text)
}

fn seen(text: &mut String, views: &[View]) -> std::fmt::Result {
    if views.is_empty() {
        return Ok(());
    }
    writeln!(
        text,
        "| one borrower, servers | how | RAM without blocks, MiB | a block back, µs |"
    )?;
    writeln!(text, "|--:|---|--:|--:|")?;
    for view in views {
        let how = match view.layout {
            super::Layout::Cluster => "a cluster",
            _ => "by themselves",
        };
        write!(text, "| {} | {how} |", view.servers)?;
        match &view.error {
            Some(error) => writeln!(text, " {error} | |")?,
            None => writeln!(
                text,
                " {} | {} |",
                mib(view.ram_bytes.1),
                number(view.read_us)
            )?,
        }
    }
    writeln!(text)
}

fn mib(bytes: u64) -> String {
    number(bytes as f64 / f64::from(1 << 20))
}
