//! Debian packages that a task needs.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::command;

fn is_installed(package: &str) -> bool {
    let status = Command::new("dpkg-query")
        .args(["-W", "-f=${Status}", package])
        .stderr(Stdio::null())
        .output();
    status.is_ok_and(|output| output.stdout.ends_with(b"install ok installed"))
}

/// Installs what is missing of a list: one package a line, `#` begins a comment.
///
/// # Errors
/// The list cannot be read or apt-get fails; the text names what to install.
pub(crate) fn install(list: &Path) -> Result<(), String> {
    let text =
        std::fs::read_to_string(list).map_err(|error| format!("{}: {error}", list.display()))?;
    let missing: Vec<&str> = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .filter(|package| !is_installed(package))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("installing {}", missing.join(" "));
    command::run(Command::new("apt-get").args(["update", "-qq"]))
        .and_then(|()| {
            command::run(
                Command::new("apt-get")
                    .args(["install", "-y", "-qq", "--no-install-recommends"])
                    .args(&missing)
                    .env("DEBIAN_FRONTEND", "noninteractive")
                    .stdout(Stdio::null()),
            )
        })
        .map_err(|error| format!("{error}\ninstall these as root: {}", missing.join(" ")))
}
