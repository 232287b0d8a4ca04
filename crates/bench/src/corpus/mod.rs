//! A corpus of real pages: eight kinds of programs are started on real work, and some of the anonymous
//! pages of each are copied at a fixed moment, into one file a program and a manifest.
//!
//! Which pages a run finds differs a little from run to run, as programs do; a comparison therefore
//! writes the very same files into every contender, and the manifest says where they come from.
//! Everything that is started is ended, whatever ends the run.

mod manifest;
mod program;
mod programs;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::host::{HostError, Interrupt, Machine};
use crate::size::{MIB, Size};
pub(crate) use manifest::{Entry, Manifest};
use programs::PROGRAMS;

/// Bytes of a page.
pub(crate) const PAGE_BYTES: usize = 4096;

/// Options of `zcache-bench corpus`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Options {
    /// The folder to make; it must not exist
    folder: PathBuf,
    /// The most bytes of each program
    #[arg(long, default_value = "64M")]
    sample: Size,
    /// Which pages of a program are drawn
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only these programs
    #[arg(long, value_delimiter = ',', default_values_t = PROGRAMS.iter().map(|program| program.name.to_owned()))]
    programs: Vec<String>,
}

/// Makes a corpus; exit code 2 when it could not be made.
pub(crate) fn run(options: &Options) -> ExitCode {
    let interrupt = Interrupt::catch().map_err(|error| HostError::Command {
        line: "catching signals".into(),
        detail: error.to_string(),
    });
    match interrupt.and_then(|interrupt| make(options, &interrupt)) {
        Ok(manifest) => {
            print!("{manifest}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn make(options: &Options, interrupt: &Interrupt) -> Result<Manifest, HostError> {
    for name in &options.programs {
        if !PROGRAMS.iter().any(|program| program.name == name) {
            let known: Vec<&str> = PROGRAMS.iter().map(|program| program.name).collect();
            return Err(HostError::Command {
                line: format!("--programs {name}"),
                detail: format!("known are: {}", known.join(", ")),
            });
        }
    }
    let folder = &options.folder;
    std::fs::create_dir(folder).map_err(HostError::file(folder))?;
    let made = fill(options, interrupt);
    if made.is_err() {
        // What is there so far is no corpus; the folder was made above.
        let _ = std::fs::remove_dir_all(folder);
    }
    made
}

fn fill(options: &Options, interrupt: &Interrupt) -> Result<Manifest, HostError> {
    let mut manifest = Manifest {
        format: 1,
        seed: options.seed,
        machine: Machine::read(),
        sources: Vec::new(),
    };
    let pages = options.sample.0 / PAGE_BYTES as u64;
    for program in PROGRAMS {
        if options.programs.iter().any(|name| name == program.name) {
            eprintln!("{}: {}", program.name, program.work);
            let entry = program.sample(&options.folder, pages, options.seed, interrupt)?;
            eprintln!(
                "{}: {} of {} MiB",
                program.name,
                entry.pages * PAGE_BYTES as u64 / MIB,
                entry.resident_pages * PAGE_BYTES as u64 / MIB
            );
            manifest.sources.push(entry);
        }
    }
    manifest.write(&options.folder)?;
    Ok(manifest)
}

/// Reads the pages of an entry.
///
/// # Errors
/// [`HostError::File`], or [`HostError::Format`] when the file has not the pages that the manifest says.
pub(crate) fn read(folder: &Path, entry: &Entry) -> Result<Vec<[u8; PAGE_BYTES]>, HostError> {
    let path = folder.join(&entry.file);
    let bytes = std::fs::read(&path).map_err(HostError::file(&path))?;
    let (pages, rest) = bytes.as_chunks::<PAGE_BYTES>();
    if pages.len() as u64 != entry.pages || !rest.is_empty() {
        return Err(HostError::Format {
            path,
            content: format!("{} bytes for {} pages", bytes.len(), entry.pages),
        });
    }
    Ok(pages.to_vec())
}
