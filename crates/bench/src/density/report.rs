//! The tables, in markdown, as `docs/density.md` quotes them.

use super::contender::Contender;
use super::{Corpus, Options, Run, mib_per_second};
use crate::compare::report::{number, spread};
use crate::compare::statistics::Spread;
use crate::host::Machine;
use crate::size::MIB;
use std::fmt::Write;
use std::time::Duration;

/// Peers to which densities are compared.
const PEERS: [&str; 2] = ["zram-lz4", "zswap"];

/// The aims on the default path.
const DENSITY_OF_ZRAM: f64 = 1.45;
const DENSITY_OF_ZSWAP: f64 = 1.4;
const DECODE_US: f64 = 5.0;

/// The whole report.
pub(super) fn markdown(
    machine: &Machine,
    options: &Options,
    corpus: &Corpus,
    contenders: &[Contender],
    runs: &[Run],
) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = head(&mut text, machine, (options.repeats, options.cpu), corpus);
    let _ = densities(&mut text, contenders, runs);
    let _ = details(&mut text, contenders, runs);
    let _ = targets(&mut text, contenders, runs);
    let _ = by_program(&mut text, corpus, contenders, runs);
    text
}

/// What a report of measurements on a corpus begins with.
pub(crate) fn head(
    text: &mut String,
    machine: &Machine,
    (repeats, cpu): (u32, usize),
    corpus: &Corpus,
) -> std::fmt::Result {
    machine.describe(text)?;
    writeln!(
        text,
        "- runs: {repeats} repeats, interleaved, one thread bound to CPU {cpu}; entries: median (minimum–maximum)"
    )?;
    writeln!(
        text,
        "- corpus: {} pages ({} MiB) of {} programs\n",
        corpus.pages(),
        corpus.pages() as u64 * 4096 / MIB,
        corpus.sources.len()
    )?;
    writeln!(text, "{}", corpus.manifest)
}

fn densities(text: &mut String, contenders: &[Contender], runs: &[Run]) -> std::fmt::Result {
    writeln!(
        text,
        "| contender | held MiB | RAM MiB | density | of {} | of {} | store MiB/s | load MiB/s | load p50 µs | decompress p50 µs |",
        PEERS[0], PEERS[1]
    )?;
    writeln!(text, "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|")?;
    for contender in contenders {
        let name = contender.to_string();
        let of = |measure: &dyn Fn(&Run) -> f64| {
            let values = runs.iter().filter(|run| run.contender == name).map(measure);
            Spread::of(values.filter(|value| *value > 0.0).collect())
        };
        let rate =
            |seconds: f64, run: &Run| mib_per_second(run.pages, Duration::from_secs_f64(seconds));
        let median =
            |value: Option<Spread>| value.map_or("–".into(), |value| number(value.median));
        writeln!(
            text,
            "| {name} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            median(of(&|run| run.held_bytes as f64 / MIB as f64)),
            median(of(&|run| run.ram_bytes as f64 / MIB as f64)),
            spread(of(&Run::density), ""),
            spread(against(runs, &name, PEERS[0]), "x"),
            spread(against(runs, &name, PEERS[1]), "x"),
            spread(of(&|run| rate(run.store_seconds, run)), ""),
            spread(of(&|run| rate(run.load_seconds, run)), ""),
            spread(of(&|run| run.load_ns_p50 as f64 / 1e3), ""),
            spread(of(&|run| run.decode_ns_p50 as f64 / 1e3), ""),
        )?;
    }
    Ok(())
}

/// The spread of a contender's density by a peer's, within each repeat.
fn against(runs: &[Run], name: &str, peer: &str) -> Option<Spread> {
    let of = |name: &str, repeat: u32| {
        let mut found = runs
            .iter()
            .filter(move |run| run.contender == name && run.repeat == repeat);
        found.next().map(Run::density)
    };
    let repeats = runs
        .iter()
        .filter(|run| run.contender == name)
        .map(|run| run.repeat);
    let ratios = repeats.filter_map(|repeat| Some(of(name, repeat)? / of(peer, repeat)?));
    Spread::of(ratios.collect())
}

/// What zcache sets itself, and which of its ways reach it.
fn targets(text: &mut String, contenders: &[Contender], runs: &[Run]) -> std::fmt::Result {
    writeln!(
        text,
        "\n| contender | density ≥ {DENSITY_OF_ZRAM}x {} | ≥ {DENSITY_OF_ZSWAP}x {} | decompress p50 ≤ {DECODE_US} µs |\n|---|---|---|---|",
        PEERS[0], PEERS[1]
    )?;
    for contender in contenders.iter().filter(|contender| contender.is_zcache()) {
        let name = contender.to_string();
        let decode = runs.iter().filter(|run| run.contender == name);
        let decode = Spread::of(decode.map(|run| run.decode_ns_p50 as f64 / 1e3).collect());
        let reached = |value: Option<Spread>, holds: &dyn Fn(f64) -> bool| match value {
            Some(value) if holds(value.median) => "yes",
            Some(_) => "no",
            None => "–",
        };
        writeln!(
            text,
            "| {name} | {} | {} | {} |",
            reached(against(runs, &name, PEERS[0]), &|x| x >= DENSITY_OF_ZRAM),
            reached(against(runs, &name, PEERS[1]), &|x| x >= DENSITY_OF_ZSWAP),
            reached(decode, &|x| x <= DECODE_US),
        )?;
    }
    Ok(())
}

fn details(text: &mut String, contenders: &[Contender], runs: &[Run]) -> std::fmt::Result {
    writeln!(text)?;
    for contender in contenders {
        let name = contender.to_string();
        let mine: Vec<&Run> = runs.iter().filter(|run| run.contender == name).collect();
        if let Some(run) = mine.first().filter(|run| !run.detail.is_empty()) {
            writeln!(text, "- {name}: {}", run.detail)?;
        }
    }
    let wrong: u64 = runs.iter().map(|run| run.wrong_pages).sum();
    let pages: u64 = runs.iter().map(|run| run.pages).sum();
    writeln!(
        text,
        "- {pages} pages were read back and compared; {wrong} were wrong"
    )
}

fn by_program(
    text: &mut String,
    corpus: &Corpus,
    contenders: &[Contender],
    runs: &[Run],
) -> std::fmt::Result {
    let names: Vec<String> = contenders.iter().map(Contender::to_string).collect();
    let first = |name: &String| {
        runs.iter()
            .find(|run| run.contender == *name && !run.sources.is_empty())
    };
    let shown: Vec<&Run> = names.iter().filter_map(first).collect();
    if shown.is_empty() {
        return Ok(());
    }
    let titles: Vec<&str> = shown.iter().map(|run| run.contender.as_str()).collect();
    writeln!(
        text,
        "\nDensity by program, first repeat:\n\n| program | {} |",
        titles.join(" | ")
    )?;
    writeln!(text, "|---|{}", "--:|".repeat(titles.len()))?;
    for (number_of, entry) in corpus.manifest.sources.iter().enumerate() {
        let cell = |run: &&Run| match run.sources.get(number_of) {
            Some((held, ram)) if *ram > 0 => number(*held as f64 / *ram as f64),
            _ => "–".into(),
        };
        let cells: Vec<String> = shown.iter().map(cell).collect();
        writeln!(text, "| {} | {} |", entry.name, cells.join(" | "))?;
    }
    Ok(())
}
