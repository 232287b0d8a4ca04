//! The `zcache` command.

mod codecs;
mod lend;
mod measure;
mod mount;
mod remote_options;
mod size;
mod swap_options;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, Parser, Subcommand, ValueEnum};
use zcache_pager::{EXIT_OWN, RunConfig, StatsTarget};
use zcache_pager::{SwapConfig, TierSource};

/// More memory than the machine has.
#[derive(Parser)]
#[command(name = "zcache", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(Run),
    Lend(lend::Lend),
    Measure(measure::Measure),
    Mount(mount::Mount),
    Umount(mount::Umount),
    #[command(hide = true, name = mount::GUARD)]
    Guard(mount::Guard),
}

/// Whether dictionaries are trained.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Dictionaries {
    Auto,
    Off,
}

/// Run a program and all its children within one hard RAM budget.
///
/// What counts: the anonymous memory of all its processes, the compressed
/// store and zcache's own memory. File-backed and shared memory do not count.
/// What does not fit is kept compressed; the coldest goes to the swap file,
/// if there is one.
///
/// Ends as the program does, by its exit code or its signal; with 125 when
/// zcache itself fails, 126 when the program cannot be executed, 127 when it is
/// not found.
///
/// SIGUSR1 to zcache prints a summary while the program runs.
#[derive(Args)]
struct Run {
    /// The budget, for example 512M or 2G (K, M, G, T: powers of 1024).
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    ram: u64,

    /// Where the coldest blocks go: a folder or a file to be made, on a disk, or
    /// `none` for RAM only. The file loses its name at once. Without this: in
    /// /var/tmp, or else in the working directory or $HOME.
    #[arg(long, value_name = "PATH|none")]
    swap: Option<PathBuf>,

    /// The most that the swap file may hold; without this, what the disk has.
    /// Tables in RAM set a limit too: each page in the store takes about 28 bytes
    /// of --ram, so pages of at most 146 times --ram (4096 / 28), before they are
    /// compressed, fit in both together.
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    swap_max: Option<u64>,

    // Its help lists the codecs that there are.
    #[arg(long, value_name = "NAME", default_value = "auto", help = codecs::help())]
    codec: String,

    /// Dictionaries, trained on the program's own pages while it runs: auto or
    /// off. Fresh pages whose codec has them use them, and cold pages.
    #[arg(long, value_name = "auto|off", default_value = "auto")]
    dictionary: Dictionaries,

    /// CPU time for compressing cold pages harder (at a higher level, with a dictionary)
    /// while nothing else needs it, in percent of one processor; 0 for none.
    #[arg(long, value_name = "PERCENT", default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=100))]
    cold_cpu: u32,

    /// How compressed pages are packed: block (densest), or, for comparison,
    /// zbud or ztri (two or three pages in a frame of 4 KiB) or zsmalloc (size
    /// classes, as zram and zswap have them).
    #[arg(long, value_name = "NAME", default_value = "block")]
    allocator: String,

    /// Write statistics as JSON to this file at the end (`-`: to standard
    /// error, since standard output is the program's), and a summary to
    /// standard error.
    #[arg(long, value_name = "FILE|-")]
    stats: Option<PathBuf>,

    #[command(flatten)]
    remote: remote_options::RemoteOptions,

    #[command(flatten)]
    durability: remote_options::DurabilityOption,

    /// The program and its arguments.
    #[arg(required = true, last = true, value_name = "PROGRAM")]
    program: Vec<OsString>,
}

impl Run {
    fn config(self) -> Result<RunConfig, String> {
        let path = match self.swap {
            Some(path) if path.as_os_str() == "none" => None,
            other => Some(other),
        };
        swap_options::check(path.as_ref(), self.swap_max)?;
        // In the order in which blocks leave for them.
        let remote = self
            .remote
            .tier(&self.durability, self.ram, path.is_some())?;
        let mut tiers = Vec::from_iter(remote);
        tiers.extend(path.map(|path| {
            TierSource::disk(SwapConfig {
                path,
                bytes_max: self.swap_max,
            })
        }));
        Ok(RunConfig {
            ram_bytes: self.ram,
            tiers,
            codec: self
                .codec
                .parse()
                .map_err(|error| format!("--codec: {error}"))?,
            dictionaries: self.dictionary == Dictionaries::Auto,
            cold_cpu_percent: self.cold_cpu,
            allocator: self
                .allocator
                .parse()
                .map_err(|error| format!("--allocator: {error}"))?,
            stats: self.stats.map(|path| match path.as_os_str() == "-" {
                true => StatsTarget::Standard,
                false => StatsTarget::File(path),
            }),
            command: self.program,
            hidden_variables: remote_options::secret_variables(),
        })
    }
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse_from(mount::as_helper(std::env::args_os().collect())) {
        Ok(cli) => cli,
        Err(mut error) => {
            advise(&mut error);
            // Help and version are no errors; a broken pipe is nobody's.
            let _ = error.print();
            return if error.use_stderr() {
                code(EXIT_OWN)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    match cli.command {
        Command::Run(run) => match run.config() {
            Ok(config) => code(zcache_pager::run(config)),
            Err(error) => fail(&error),
        },
        Command::Lend(lend) => ended(lend.run()),
        Command::Measure(measure) => ended(measure.run()),
        Command::Mount(mount) => ended(mount.run()),
        Command::Umount(umount) => ended(umount.run()),
        Command::Guard(guard) => {
            guard.run();
            ExitCode::SUCCESS
        }
    }
}

fn ended(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &str) -> ExitCode {
    eprintln!("zcache: {error}");
    code(EXIT_OWN)
}

/// A program or an option of it without `--` before it is the likely slip: the
/// tip says so.
fn advise(error: &mut clap::Error) {
    let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg) else {
        return;
    };
    let has_better_tip = error.get(ContextKind::SuggestedArg).is_some();
    if error.kind() != ErrorKind::UnknownArgument || has_better_tip {
        return;
    }
    let tip = match argument.starts_with('-') {
        true => "the program and its options go behind --; zcache's own are in: zcache run --help"
            .to_owned(),
        false => format!("write -- before the program: zcache run --ram SIZE -- {argument}"),
    };
    error.insert(
        ContextKind::Suggested,
        ContextValue::StyledStrs(vec![tip.into()]),
    );
}

fn code(code: i32) -> ExitCode {
    ExitCode::from((code & 0xff) as u8)
}
