//! The corpus in zswap: a process that holds it is pushed out to swap, which zswap catches.
//!
//! zswap cannot be written to directly, so the times contain what the kernel does around it: finding
//! and unmapping the pages on the way out, faults on the way in.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::{Corpus, Options, Run};
use crate::corpus::PAGE_BYTES;
use crate::host::{HostError, SwapFile, Undo, Zswap};

/// Swap beyond the corpus, for what else is in the process.
const SLACK_BYTES: u64 = 64 << 20;
/// Words to the holder at most: the kernel leaves pages alone that are in use at that moment.
const PUSHES_MAX: u32 = 5;
/// Pages of the corpus that may stay in RAM, in parts of it.
const LEFT_PART: u64 = 1000;

/// The process that holds the corpus.
struct Holder {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

/// Pushes the corpus out, looks at the pool, and touches it again.
pub(super) fn run(options: &Options, corpus: &Corpus, undo: &mut Undo) -> Result<Run, HostError> {
    let bytes = (corpus.pages() * PAGE_BYTES) as u64;
    let file = SwapFile::create(undo, &options.swap_dir, bytes + SLACK_BYTES)?;
    let zswap = Zswap::start(undo)?;
    file.start(undo)?;
    let mut holder = Holder::start(options)?;
    let before = Zswap::usage()?;
    let mut nanoseconds = 0;
    for _ in 0..PUSHES_MAX {
        nanoseconds += holder.ask("out")?[0];
        if holder.resident_bytes()? < bytes / LEFT_PART + SLACK_BYTES / 16 {
            break;
        }
    }
    let swapped_bytes = holder.swapped_bytes()?;
    let after = Zswap::usage()?;
    let (ram_bytes, held_bytes) = (after.0 - before.0, after.1 - before.1);
    // Pages of zeros are only noted in the swap file's map and take no RAM.
    let zero_bytes = corpus
        .sources
        .iter()
        .flatten()
        .filter(|page| page.iter().all(|byte| *byte == 0))
        .count() as u64
        * PAGE_BYTES as u64;
    let mut run = Run::new(held_bytes + zero_bytes, corpus.pages() as u64);
    run.ram_bytes = ram_bytes;
    run.detail = format!(
        "{} over zsmalloc; {} MiB of {} swapped, {} MiB of it on disk",
        zswap.compressor(),
        swapped_bytes >> 20,
        bytes >> 20,
        swapped_bytes.saturating_sub(run.held_bytes) >> 20,
    );
    run.store_seconds = nanoseconds as f64 / 1e9;
    let answer = holder.ask("in")?;
    run.load_seconds = answer[0] as f64 / 1e9;
    run.wrong_pages = answer.get(1).copied().unwrap_or(u64::MAX);
    Ok(run)
}

impl Holder {
    fn start(options: &Options) -> Result<Holder, HostError> {
        let failed = |detail: String| HostError::Command {
            line: "zcache-bench hold".into(),
            detail,
        };
        let program = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
        let child = Command::new(program)
            .args(["hold", "--cpu", &options.cpu.to_string()])
            .arg(&options.corpus)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut child = child.map_err(|error| failed(error.to_string()))?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(failed("it has no pipes".into()));
        };
        let output = BufReader::new(output);
        let mut holder = Holder {
            child,
            input,
            output,
        };
        let line = holder.line()?;
        match line.as_str() {
            "ready" => Ok(holder),
            _ => Err(failed(format!("it said {line:?}"))),
        }
    }

    fn line(&mut self) -> Result<String, HostError> {
        let mut line = String::new();
        let read = self.output.read_line(&mut line);
        read.map_err(|error| HostError::Command {
            line: "zcache-bench hold".into(),
            detail: error.to_string(),
        })?;
        Ok(line.trim().to_owned())
    }

    /// Says a word and returns the numbers of the answer.
    fn ask(&mut self, word: &str) -> Result<Vec<u64>, HostError> {
        let said = writeln!(self.input, "{word}");
        let line = said.map_err(|error| HostError::Command {
            line: "zcache-bench hold".into(),
            detail: error.to_string(),
        });
        let line = line.and_then(|()| self.line())?;
        let numbers: Vec<u64> = line
            .split(' ')
            .filter_map(|word| word.parse().ok())
            .collect();
        match numbers.is_empty() {
            true => Err(HostError::Command {
                line: "zcache-bench hold".into(),
                detail: format!("it answered {line:?}"),
            }),
            false => Ok(numbers),
        }
    }

    fn resident_bytes(&self) -> Result<u64, HostError> {
        crate::host::status_bytes(self.child.id(), "RssAnon:")
    }

    fn swapped_bytes(&self) -> Result<u64, HostError> {
        crate::host::status_bytes(self.child.id(), "VmSwap:")
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
