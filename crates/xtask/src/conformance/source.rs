//! The kernel's selftests: unpacked from Debian's package of Linux 6.12 into the cache, and compiled.
//!
//! Only what they and the kernel's headers need is unpacked. `make` sees what is compiled already.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Places;
use super::plans::Test;
use crate::command;

const PACKAGE: &str = "linux-source-6.12";
const ARCHIVE: &str = "/usr/src/linux-source-6.12.tar.xz";

/// What is unpacked, below the archive's root.
const PARTS: &[&str] = &[
    "Makefile",
    "Kbuild",
    "Kconfig",
    "arch/x86",
    "include",
    "mm/gup_test.h",
    "scripts",
    "tools/arch/x86/include",
    "tools/include",
    "tools/scripts",
    "tools/testing/selftests",
    "usr/include",
];

/// Where the source is.
fn tree(places: &Places) -> PathBuf {
    places.cache.join(PACKAGE)
}

/// Where the programs of a suite are made and run.
pub(super) fn folder(places: &Places, suite: &str) -> PathBuf {
    let folder = match suite {
        "futex" => "futex/functional",
        suite => suite,
    };
    tree(places).join("tools/testing/selftests").join(folder)
}

/// Unpacks what is not, and compiles the programs of these tests.
pub(super) fn prepare(places: &Places, tests: &[Test]) -> Result<(), String> {
    let mut suites: Vec<&str> = tests
        .iter()
        .filter(|test| test.is_selftest())
        .map(|test| test.suite)
        .collect();
    suites.dedup();
    if suites.is_empty() {
        return Ok(());
    }
    unpack(places)?;
    for suite in suites {
        let programs: Vec<&str> = tests
            .iter()
            .filter(|test| test.suite == suite)
            .map(Test::program)
            .collect();
        compile(places, suite, &programs)?;
    }
    Ok(())
}

fn unpack(places: &Places) -> Result<(), String> {
    let version =
        command::output(Command::new("dpkg-query").args(["-W", "-f=${Version}", PACKAGE]))?;
    let stamp = places.cache.join("unpacked");
    if fs::read_to_string(&stamp).is_ok_and(|present| present == version) {
        return Ok(());
    }
    println!("unpacking {ARCHIVE} {version}");
    let tree = tree(places);
    let _ = fs::remove_dir_all(&tree);
    command::run(
        Command::new("tar")
            .arg("-xf")
            .arg(ARCHIVE)
            .arg("-C")
            .arg(&places.cache)
            .args(PARTS.iter().map(|part| format!("{PACKAGE}/{part}"))),
    )?;
    command::output(
        Command::new("make")
            .args(["-s", "headers"])
            .arg("-C")
            .arg(&tree),
    )?;
    fs::write(&stamp, version).map_err(|error| format!("{}: {error}", stamp.display()))
}

/// Compiles the named programs only: some others of Linux 6.12 do not compile outside a whole tree.
fn compile(places: &Places, suite: &str, programs: &[&str]) -> Result<(), String> {
    let folder = folder(places, suite);
    let headers = tree(places).join("usr/include");
    let made = Command::new("make")
        .arg("-s")
        .arg("-C")
        .arg(&folder)
        .arg(format!("KHDR_INCLUDES=-isystem {}", headers.display()))
        .args(programs.iter().map(|program| folder.join(program)))
        // These say to make that it is part of a larger run.
        .env_remove("MAKEFLAGS")
        .env_remove("MAKELEVEL")
        .stdout(Stdio::null())
        .output()
        .map_err(|error| format!("make: {error}"))?;
    if made.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&made.stderr);
    Err(format!("the tests of {suite} do not compile:\n{said}"))
}

/// Compiles one C file of this repository.
pub(super) fn compile_own(places: &Places, file: &str) -> Result<PathBuf, String> {
    let source = places.repository.join("tests").join(file);
    let program = places.cache.join(
        Path::new(file)
            .file_stem()
            .ok_or(format!("{file} has no name"))?,
    );
    command::run(
        Command::new("cc")
            .args(["-std=c11", "-O2", "-Wall", "-Werror", "-o"])
            .arg(&program)
            .arg(&source),
    )?;
    Ok(program)
}
