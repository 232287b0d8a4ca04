//! `cargo xtask`: tasks of this repository that are more than one command.
//!
//! - `kernel`: builds Linux with the patches of `kernel/`, the module beside it, and runs both in a virtual machine
//! - `conformance`: runs programs that test the kernel alone and under `zcache run`, and compares

mod command;
mod conformance;
mod kernel;
mod packages;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Tasks of this repository.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Whether programs that test the kernel behave under `zcache run` as they do alone
    Conformance(conformance::Options),
    /// The kernel module: build it, test it, measure it, or look at it, in a guest
    Kernel(kernel::Options),
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Conformance(options) => conformance::run(&options),
        Task::Kernel(options) => kernel::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}
