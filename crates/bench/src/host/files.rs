//! Small reads and writes of sysfs and proc files, and the few commands that std cannot replace.
//!
//! Not on the data path. It keeps no state.

use std::path::Path;
use std::process::{Command, Stdio};

use super::HostError;

/// The content of a file without the white space around it.
///
/// # Errors
/// [`HostError::File`] when it cannot be read.
pub(super) fn read(path: &Path) -> Result<String, HostError> {
    let content = std::fs::read_to_string(path).map_err(HostError::file(path))?;
    Ok(content.trim().to_owned())
}

/// The number in a file.
///
/// # Errors
/// [`HostError::File`] or [`HostError::Format`].
pub(super) fn read_number(path: &Path) -> Result<u64, HostError> {
    let content = read(path)?;
    content.parse().map_err(|_| HostError::Format {
        path: path.to_owned(),
        content,
    })
}

/// Writes a value into a kernel file, which must exist.
///
/// # Errors
/// [`HostError::File`] when the kernel refuses it.
pub(super) fn write(path: &Path, value: &str) -> Result<(), HostError> {
    use std::io::Write;
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .open(path)
        .map_err(HostError::file(path))?;
    file.write_all(value.as_bytes())
        .map_err(HostError::file(path))
}

/// The number after `name` in a file of `name number` lines, such as `/proc/meminfo`.
///
/// # Errors
/// [`HostError::File`], or [`HostError::Format`] when no line has the name.
pub(super) fn read_field(path: &Path, name: &str) -> Result<u64, HostError> {
    let content = read(path)?;
    let value = content.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some(name)).then(|| words.next()?.parse().ok())?
    });
    value.ok_or(HostError::Format {
        path: path.to_owned(),
        content,
    })
}

/// Runs a command of the system to its end.
///
/// # Errors
/// [`HostError::Command`] when it does not start or does not succeed.
pub(super) fn command(program: &str, args: &[&str]) -> Result<String, HostError> {
    let line = || format!("{program} {}", args.join(" "));
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .output()
        .map_err(|error| HostError::Command {
            line: line(),
            detail: error.to_string(),
        })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let detail = format!("{}, {}", output.status, said.trim());
    Err(HostError::Command {
        line: line(),
        detail,
    })
}
