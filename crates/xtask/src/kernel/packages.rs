//! What the machine needs: Debian packages, and bindgen.

use std::path::Path;
use std::process::{Command, Stdio};

use super::Places;
use crate::command;

fn is_installed(package: &str) -> bool {
    let status = Command::new("dpkg-query")
        .args(["-W", "-f=${Status}", package])
        .stderr(Stdio::null())
        .output();
    status.is_ok_and(|output| output.stdout.ends_with(b"install ok installed"))
}

/// Installs what is missing of kernel/packages.txt, and bindgen into the cache.
pub(super) fn install(places: &Places) -> Result<(), String> {
    let list = places.kernel().join("packages.txt");
    let text =
        std::fs::read_to_string(&list).map_err(|error| format!("{}: {error}", list.display()))?;
    let missing: Vec<&str> = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .filter(|package| !is_installed(package))
        .collect();
    if !missing.is_empty() {
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
            .map_err(|error| format!("{error}\ninstall these as root: {}", missing.join(" ")))?;
    }
    bindgen(&places.tools())
}

/// The kernel wants a newer bindgen than Debian has.
fn bindgen(tools: &Path) -> Result<(), String> {
    if tools.join("bin/bindgen").exists() {
        return Ok(());
    }
    println!("installing bindgen");
    command::run(
        Command::new("cargo")
            .args([
                "install",
                "--quiet",
                "--locked",
                "bindgen-cli@0.73.0",
                "--root",
            ])
            .arg(tools)
            .env("CARGO_TARGET_DIR", tools.join("target")),
    )?;
    // Only the program is wanted.
    let _ = std::fs::remove_dir_all(tools.join("target"));
    Ok(())
}
