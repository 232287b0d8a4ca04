//! Linux 6.12 as Debian has it, unpacked into the cache and patched.
//!
//! The patches that are applied are kept beside the tree, so that others can be put in their place without unpacking
//! and compiling all of it again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Places;
use crate::command;

const ARCHIVE: &str = "/usr/src/linux-source-6.12.tar.xz";

/// Unpacks and patches what is not.
pub(super) fn prepare(places: &Places) -> Result<(), String> {
    let tree = places.linux();
    let unpacked = places.cache.join("unpacked");
    if !unpacked.exists() {
        println!("unpacking {ARCHIVE}");
        let _ = fs::remove_dir_all(&tree);
        let _ = fs::remove_dir_all(applied(places));
        command::run(
            Command::new("tar")
                .arg("-xf")
                .arg(ARCHIVE)
                .arg("-C")
                .arg(&places.cache),
        )?;
        write(&unpacked, "")?;
    }
    let wanted = series(&places.kernel().join("patches"))?;
    let present = series(&applied(places)).unwrap_or_default();
    if texts(&wanted)? == texts(&present)? {
        return Ok(());
    }
    println!("applying {} patches", wanted.len());
    for path in present.iter().rev() {
        patch(&tree, path, true)?;
    }
    let _ = fs::remove_dir_all(applied(places));
    for path in &wanted {
        patch(&tree, path, false).inspect_err(|_| {
            // A tree that is patched in part is no tree.
            let _ = fs::remove_file(&unpacked);
        })?;
    }
    keep(places, &wanted)
}

fn applied(places: &Places) -> PathBuf {
    places.cache.join("applied")
}

/// The patches of a folder in their order.
fn series(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let list = folder.join("series");
    let text = fs::read_to_string(&list).map_err(|error| format!("{}: {error}", list.display()))?;
    Ok(text
        .lines()
        .filter(|line| !line.is_empty())
        .map(|line| folder.join(line))
        .collect())
}

fn texts(paths: &[PathBuf]) -> Result<Vec<Vec<u8>>, String> {
    paths
        .iter()
        .map(|path| fs::read(path).map_err(|error| format!("{}: {error}", path.display())))
        .collect()
}

fn patch(tree: &Path, path: &Path, reverse: bool) -> Result<(), String> {
    let mut command = Command::new("patch");
    command
        .args([
            "-p1",
            "--silent",
            "--fuzz=0",
            "--no-backup-if-mismatch",
            "-d",
        ])
        .arg(tree);
    if reverse {
        command.arg("-R");
    }
    command::run(command.arg("-i").arg(path))
}

fn keep(places: &Places, patches: &[PathBuf]) -> Result<(), String> {
    let folder = applied(places);
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut names = String::new();
    for path in patches {
        let name = path.file_name().unwrap_or_default();
        fs::copy(path, folder.join(name))
            .map_err(|error| format!("{}: {error}", path.display()))?;
        names.push_str(&name.to_string_lossy());
        names.push('\n');
    }
    write(&folder.join("series"), &names)
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}
