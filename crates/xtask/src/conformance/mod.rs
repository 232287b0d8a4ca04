//! `cargo xtask conformance`: whether programs behave under `zcache run` as they do without it.
//!
//! The kernel's own selftests and stressors of stress-ng are judges who know nothing of zcache. Each program runs alone, twice,
//! and under zcache within a budget so small that pages go and come; what it says of each of its tests is compared.
//!
//! Stages: `packages` (what the machine needs) → `source` (the selftests, unpacked and compiled) → `plans` (which programs, with
//! how much memory) → `run` (one run) → `results` (what it says) → `compare`, beside `expected` → `report`.
//!
//! It does not judge speed, nor whether the budget held: the system tests of the command do.

mod compare;
mod expected;
mod plans;
mod report;
mod results;
mod run;
mod source;

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;

use crate::{command, packages};
use expected::Expected;
use plans::Test;
use report::Row;
use run::{Mode, Tools};

#[derive(Args)]
pub(crate) struct Options {
    /// The set that takes about a minute
    #[arg(long)]
    short: bool,

    /// Only the programs whose name, as suite/program, contains this
    #[arg(long, value_name = "SUITE")]
    only: Option<String>,

    /// The command to judge, instead of one that is built here
    #[arg(long, value_name = "PATH")]
    zcache: Option<PathBuf>,
}

/// Where things are.
struct Places {
    /// The repository.
    repository: PathBuf,
    /// Everything that is built here; it may be deleted at any time.
    cache: PathBuf,
}

impl Places {
    fn find() -> Result<Places, String> {
        let repository = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("../..")
            .canonicalize()
            .map_err(|error| format!("the repository: {error}"))?;
        let cache = std::env::var_os("ZCACHE_CONFORMANCE_CACHE")
            .map(PathBuf::from)
            .or_else(|| {
                Some(PathBuf::from(std::env::var_os("XDG_CACHE_HOME")?).join("zcache-conformance"))
            })
            .or_else(|| {
                Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/zcache-conformance"))
            })
            .ok_or("no place to build in: set ZCACHE_CONFORMANCE_CACHE")?;
        let logs = cache.join("logs");
        fs::create_dir_all(&logs).map_err(|error| format!("{}: {error}", logs.display()))?;
        Ok(Places { repository, cache })
    }

    /// Where a run's words are kept until the next run of the same program.
    fn log(&self, program: &str, mode: &str) -> PathBuf {
        let name: String = program
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
            .collect();
        self.cache.join("logs").join(format!("{name}.{mode}.log"))
    }
}

pub(crate) fn run(options: &Options) -> Result<(), String> {
    let places = Places::find()?;
    let tests = chosen(options)?;
    packages::install(&places.repository.join("tests/packages.txt"))?;
    source::prepare(&places, &tests)?;
    let tools = Tools {
        watch: source::compile_own(&places, "support/watch.c")?,
        filler: source::compile_own(&places, "conformance/filler.c")?,
        zcache: zcache(&places, options)?,
    };
    let list = places.repository.join("tests/conformance/expected.txt");
    let text = fs::read_to_string(&list).map_err(|error| format!("{}: {error}", list.display()))?;
    let mut expected =
        Expected::parse(&text).map_err(|error| format!("{}: {error}", list.display()))?;

    let start = Instant::now();
    println!("{}", report::heading());
    let mut rows = Vec::new();
    for test in &tests {
        let row = judged(&places, &tools, test, &mut expected)?;
        println!("{}", report::line(&row));
        rows.push(row);
    }
    let programs: Vec<String> = rows.iter().map(|row| row.name.clone()).collect();
    print!("\n{}", report::details(&rows, &expected.unmet(&programs)));
    println!("logs: {}", places.cache.join("logs").display());
    let seconds = start.elapsed().as_secs();
    report::judge(&rows).map(|summary| println!("{summary}; {seconds} s"))
}

/// Runs a program alone, twice, then under zcache, and compares.
fn judged(
    places: &Places,
    tools: &Tools,
    test: &Test,
    expected: &mut Expected,
) -> Result<Row, String> {
    let first = run::run(places, tools, test, Mode::First)?;
    let second = run::run(places, tools, test, Mode::Second)?;
    let under = run::run(places, tools, test, Mode::Under)?;
    let name = test.name();
    let comparison = compare::compare(
        &name,
        [&first.results, &second.results],
        &under.results,
        expected,
    );
    let paged = under.paged;
    // What ends otherwise may leave no statistics behind.
    let ended_alike = under.results.ended_as(&first.results);
    let missing = paged.evicted == 0 || paged.loaded == 0 || (test.swap && paged.written == 0);
    Ok(Row {
        name,
        comparison,
        alone: first.elapsed,
        under: under.elapsed,
        paged,
        unpaged: ended_alike && missing,
    })
}

fn chosen(options: &Options) -> Result<Vec<Test>, String> {
    let only = options.only.as_deref().unwrap_or("");
    let mut tests = plans::tests(options.short);
    tests.retain(|test| test.name().contains(only));
    if tests.is_empty() {
        Err(format!("no program is named like {only:?}"))
    } else {
        Ok(tests)
    }
}

/// The command to judge.
fn zcache(places: &Places, options: &Options) -> Result<PathBuf, String> {
    if let Some(path) = &options.zcache {
        return path
            .canonicalize()
            .map_err(|error| format!("{}: {error}", path.display()));
    }
    command::run(&mut command::build(&places.repository, "zcache-cli"))?;
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| places.repository.join("target"), PathBuf::from);
    Ok(target.join("release/zcache"))
}
