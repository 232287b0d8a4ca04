//! bindgen, which is not packaged as the kernel wants it.

use std::path::Path;
use std::process::Command;

use crate::command;

/// Installs it into the cache: the kernel wants a newer one than Debian has.
pub(super) fn install(tools: &Path) -> Result<(), String> {
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
