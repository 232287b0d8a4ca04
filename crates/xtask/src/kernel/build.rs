//! The kernel, the module, and the program of the guest.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Kind, Places};
use crate::command;

/// Warnings that are known and harmless: objtool of 6.12 does not know all functions of newer compilers that never return.
const KNOWN_WARNINGS: &[&str] = &["falls through to next function"];

/// Builds all three.
pub(super) fn everything(places: &Places) -> Result<(), String> {
    kernel(places)?;
    if places.kind != Kind::Without {
        module(places)?;
    }
    guest_program(places)
}

/// `make`, with Debian's compiler, which has the library's sources, and our bindgen before all others.
fn make(places: &Places) -> Command {
    let mut command = Command::new("make");
    let path = std::env::var("PATH").unwrap_or_default();
    let tools = places.tools().join("bin");
    command
        .env("PATH", format!("{}:/usr/bin:{path}", tools.display()))
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("RUSTFLAGS")
        // What cargo sets for us is not the kernel's.
        .env_remove("RUSTC")
        .env_remove("CARGO")
        .env_remove("MAKEFLAGS")
        .arg("--no-print-directory")
        .arg("-s")
        .arg(format!(
            "-j{}",
            std::thread::available_parallelism().map_or(2, usize::from)
        ));
    if places.kind == Kind::Debug {
        // KASAN and Rust go together with clang only.
        command.arg("LLVM=1");
    }
    command
}

fn configuration(places: &Places) -> Result<String, String> {
    let read = |name: &str| {
        let path = places.kernel().join(name);
        fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let mut text = read("config")?;
    match places.kind {
        Kind::Plain => {}
        Kind::Debug => text.push_str(&read("config.debug")?),
        // Later lines win.
        Kind::Without => text.push_str(&read("config.without")?),
    }
    Ok(text)
}

fn kernel(places: &Places) -> Result<(), String> {
    let build = places.kernel_build();
    fs::create_dir_all(&build).map_err(|error| format!("{}: {error}", build.display()))?;
    let wanted = configuration(places)?;
    let stamp = build.join("zcache-configuration");
    let in_tree = |target: &str| {
        let mut command = make(places);
        command
            .arg("-C")
            .arg(places.linux())
            .arg(format!("O={}", build.display()))
            .arg(target);
        command
    };
    if fs::read_to_string(&stamp).is_ok_and(|present| present == wanted) {
        return command::run(&mut in_tree("all"));
    }
    println!("configuring the kernel");
    command::output(&mut in_tree("tinyconfig"))?;
    let path = build.join(".config");
    let tiny = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    fs::write(&path, tiny + &wanted).map_err(|error| format!("{}: {error}", path.display()))?;
    command::output(&mut in_tree("olddefconfig"))?;
    let settled =
        fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let refused: Vec<&str> = wanted
        .lines()
        .filter(|line| line.starts_with("CONFIG_") && !settled.lines().any(|other| other == *line))
        .filter(|line| !is_unset(&wanted, line))
        .collect();
    if !refused.is_empty() {
        return Err(format!("this kernel does not take {}", refused.join(" ")));
    }
    println!("building the kernel: some minutes");
    command::run(&mut in_tree("all"))?;
    fs::write(&stamp, wanted).map_err(|error| format!("{}: {error}", stamp.display()))
}

/// Whether a later line of the configuration takes this option back.
fn is_unset(wanted: &str, line: &str) -> bool {
    let name = line.split('=').next().unwrap_or(line);
    wanted.contains(&format!("# {name} is not set"))
}

/// Copies what is not the same yet, so that make sees what changed.
fn copy_folder(from: &Path, to: &Path) -> Result<(), String> {
    let failed = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    fs::create_dir_all(to).map_err(|error| failed(to, error))?;
    for entry in fs::read_dir(from).map_err(|error| failed(from, error))? {
        let path = entry.map_err(|error| failed(from, error))?.path();
        let target = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            copy_folder(&path, &target)?;
            continue;
        }
        let bytes = fs::read(&path).map_err(|error| failed(&path, error))?;
        if fs::read(&target).is_ok_and(|present| present == bytes) {
            continue;
        }
        fs::write(&target, bytes).map_err(|error| failed(&target, error))?;
    }
    Ok(())
}

/// Removes what has no namesake of the same sort in `from`: a file that has moved
/// would be a second source of its module.
fn remove_strangers(from: &Path, to: &Path) -> Result<(), String> {
    let failed = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    for entry in fs::read_dir(to).map_err(|error| failed(to, error))? {
        let path = entry.map_err(|error| failed(to, error))?.path();
        let origin = from.join(path.file_name().unwrap_or_default());
        match (path.is_dir(), origin.is_dir(), origin.is_file()) {
            (true, true, _) => remove_strangers(&origin, &path)?,
            (true, false, _) => fs::remove_dir_all(&path).map_err(|error| failed(&path, error))?,
            (false, _, true) => {}
            (false, _, false) => fs::remove_file(&path).map_err(|error| failed(&path, error))?,
        }
    }
    Ok(())
}

fn module(places: &Places) -> Result<(), String> {
    let module = places.module();
    copy_folder(&places.kernel().join("zcache"), &module)?;
    // Make's own files are beside the first, none is among these.
    let core = (
        places.repository.join("crates/core/src"),
        module.join("core"),
    );
    if core.1.is_dir() {
        remove_strangers(&core.0, &core.1)?;
    }
    copy_folder(&core.0, &core.1)?;
    let output = make(places)
        .arg("-C")
        .arg(places.kernel_build())
        .arg(format!("M={}", module.display()))
        .arg("modules")
        .output()
        .map_err(|error| format!("make: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let warnings: Vec<&str> = said
        .lines()
        .filter(|line| !KNOWN_WARNINGS.iter().any(|known| line.contains(known)))
        .collect();
    if !output.status.success() || warnings.iter().any(|line| line.contains("warning:")) {
        return Err(format!(
            "the module does not build cleanly:\n{}",
            warnings.join("\n")
        ));
    }
    Ok(())
}

/// The target of the guest's program, which is linked statically: there is no library in the guest.
const TARGET: &str = "x86_64-unknown-linux-gnu";

fn guest_program(places: &Places) -> Result<(), String> {
    command::run(
        command::build(&places.repository, "zcache-guest")
            .args(["--target", TARGET])
            .arg("--target-dir")
            .arg(places.cache.join("guest-target"))
            .env(
                "RUSTFLAGS",
                "-C target-feature=+crt-static -C strip=symbols",
            ),
    )
}

/// Where the guest's program is.
pub(super) fn guest_program_path(places: &Places) -> PathBuf {
    places
        .cache
        .join("guest-target")
        .join(TARGET)
        .join("release/zcache-guest")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_no_file_that_its_origin_lost() {
        let room = std::env::temp_dir().join(format!("zcache-xtask-{}", std::process::id()));
        let (from, to) = (room.join("from"), room.join("to"));
        fs::create_dir_all(from.join("entry")).unwrap();
        fs::create_dir_all(to.join("gone")).unwrap();
        for file in ["entry/mod.rs", "lib.rs"] {
            fs::write(from.join(file), file).unwrap();
        }
        for file in ["entry.rs", "gone/mod.rs", "lib.rs"] {
            fs::write(to.join(file), "old").unwrap();
        }
        remove_strangers(&from, &to).unwrap();
        copy_folder(&from, &to).unwrap();
        assert!(!to.join("entry.rs").exists() && !to.join("gone").exists());
        for file in ["entry/mod.rs", "lib.rs"] {
            assert_eq!(fs::read_to_string(to.join(file)).unwrap(), file);
        }
        fs::remove_dir_all(&room).unwrap();
    }
}
