//! The tables, in markdown, as `docs/engine.md` quotes them.

use std::fmt::Write;

use zcache::PAGE_SIZE;

use super::kind::Kind;
use super::measure::{Address, Bound, Cost};
use super::{Options, Row};
use crate::compare::report::number;
use crate::host::Machine;

/// Below so many bytes a page, frames hold no page: it is what one more or less of them comes to.
const NO_FRAMES: f64 = 1.0;

/// The whole report.
pub(super) fn markdown(
    machine: &Machine,
    options: &Options,
    rows: &[Row],
    bounds: &[Bound],
) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = head(&mut text, machine, options);
    let _ = costs(&mut text, rows);
    let _ = reach(&mut text, bounds);
    text
}

fn head(text: &mut String, machine: &Machine, options: &Options) -> std::fmt::Result {
    machine.describe(text)?;
    writeln!(
        text,
        "- what {} more pages cost where there are as many; blocks, one shard, the fast codec\n",
        options.pages
    )
}

fn costs(text: &mut String, rows: &[Row]) -> std::fmt::Result {
    writeln!(
        text,
        "Bytes of RAM for a page: its zpage + packing loss + tables = all, and percent of a page.\n"
    )?;
    write!(text, "| pages | density of frames |")?;
    Address::ALL
        .iter()
        .try_for_each(|address| write!(text, " {} |", address.name()))?;
    writeln!(text, "\n|---|{}", "--:|".repeat(1 + Address::ALL.len()))?;
    for row in rows {
        write!(text, "| {}{} |", row.kind.name(), row.home.name())?;
        write!(text, " {} |", density(row))?;
        row.costs
            .iter()
            .try_for_each(|cost| write!(text, " {} |", shown(*cost)))?;
        writeln!(text)?;
    }
    writeln!(text)
}

/// Bytes of zpages by bytes of frames, from the least to the most dense of the row.
fn density(row: &Row) -> String {
    let of = |cost: &Cost| (cost.frames >= NO_FRAMES).then(|| cost.zpage / cost.frames);
    let all = row.costs.iter().flatten().filter_map(of);
    let (least, most) = all.fold((f64::INFINITY, 0_f64), |(least, most), one| {
        (least.min(one), most.max(one))
    });
    match (number(least), number(most)) {
        _ if most == 0.0 => "–".to_owned(),
        (least, most) if least == most => most,
        (least, most) => format!("{least}–{most}"),
    }
}

fn shown(cost: Option<Cost>) -> String {
    let Some(cost) = cost else {
        return "–".to_owned();
    };
    let percent = 100.0 * cost.ram() / PAGE_SIZE as f64;
    let tables = number(cost.tables);
    if cost.frames < NO_FRAMES {
        return format!("{tables} ({percent:.1}%)");
    }
    let packing = (cost.frames - cost.zpage).max(0.0);
    format!(
        "{} + {packing:.0} + {tables} = {} ({percent:.1}%)",
        number(cost.zpage),
        number(cost.ram()),
    )
}

fn reach(text: &mut String, bounds: &[Bound]) -> std::fmt::Result {
    writeln!(
        text,
        "MiB of pages that 1 MiB of RAM can address when all but the youngest are in the tier.\n"
    )?;
    write!(text, "| pages |")?;
    Address::BOUNDED
        .iter()
        .try_for_each(|address| write!(text, " {} |", address.name()))?;
    writeln!(text, "\n|---|{}", "--:|".repeat(Address::BOUNDED.len()))?;
    for kind in Kind::IN_TIER {
        write!(text, "| {} |", kind.name())?;
        for address in Address::BOUNDED {
            let bound = |bound: &&Bound| bound.kind == kind && bound.address == address;
            if let Some(bound) = bounds.iter().find(bound) {
                let pages_bytes = f64::from(bound.pages) * PAGE_SIZE as f64;
                write!(
                    text,
                    " {} |",
                    number(pages_bytes / bound.limit_bytes as f64)
                )?;
            }
        }
        writeln!(text)?;
    }
    Ok(())
}
