//! Commands that must succeed.

use std::path::Path;
use std::process::Command;

/// Cargo, to build a package of the repository for release.
pub(crate) fn build(repository: &Path, package: &str) -> Command {
    let mut cargo = Command::new("cargo");
    let words = [
        "build",
        "--quiet",
        "--release",
        "--locked",
        "--package",
        package,
    ];
    cargo.args(words).current_dir(repository);
    cargo
}

/// Runs a command, with its output on ours.
///
/// # Errors
/// It could not be started or did not end well; the text names it.
pub(crate) fn run(command: &mut Command) -> Result<(), String> {
    let status = command
        .status()
        .map_err(|error| format!("{command:?}: {error}"))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{command:?} ended with {status}"))
    }
}

/// Runs a command; what it printed. What it said beside that is shown when it failed.
///
/// # Errors
/// As [`run`].
pub(crate) fn output(command: &mut Command) -> Result<String, String> {
    let output = command
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!("{command:?} ended with {}\n{said}", output.status))
    }
}
