//! Builds the C, Go and Java programs of `tests/`, each once for a run of the tests.

use super::{tests_file, tool};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};

const C_FLAGS: [&str; 7] = [
    "-std=c11", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-pthread",
];

/// Sources of the torturer, below `tests/`.
const TORTURE: [&str; 6] = [
    "torture/torture.c",
    "torture/content.c",
    "torture/region.c",
    "torture/special.c",
    "torture/process.c",
    "torture/io.c",
];

/// Builds `name` by `make` if this run has not built it yet. Others who want the same program wait.
fn once(name: &str, make: impl FnOnce(&Path)) -> PathBuf {
    static BUILT: OnceLock<Mutex<HashMap<String, PathBuf>>> = OnceLock::new();
    // A panic of another test while it built leaves the map as it was, so it can be used on.
    let mut built = match BUILT.get_or_init(Mutex::default).lock() {
        Ok(built) => built,
        Err(poisoned) => poisoned.into_inner(),
    };
    if let Some(path) = built.get(name) {
        return path.clone();
    }
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_file(&path);
    make(&path);
    built.insert(name.to_string(), path.clone());
    path
}

fn c(name: &str, compiler: &str, package: &str, flags: &[&str], sources: &[&str]) -> PathBuf {
    once(name, |out| {
        let sources = sources.iter().map(|source| tests_file(source));
        tool(
            package,
            Command::new(compiler)
                .args(C_FLAGS)
                .args(flags)
                .arg("-o")
                .arg(out)
                .args(sources),
        );
    })
}

/// The program that runs another one and measures its tree.
pub(crate) fn watch() -> PathBuf {
    c("watch", "gcc", "gcc", &[], &["support/watch.c"])
}

/// The torturer, linked dynamically.
pub(crate) fn torture() -> PathBuf {
    c("torture", "gcc", "gcc", &[], &TORTURE)
}

/// The torturer, linked statically.
pub(crate) fn torture_static() -> PathBuf {
    c("torture-static", "gcc", "gcc", &["-static"], &TORTURE)
}

/// One of the programs of `tests/torture/wrong_bytes/`.
pub(crate) fn wrong_bytes(name: &str) -> PathBuf {
    let source = format!("torture/wrong_bytes/{name}.c");
    c(
        name,
        "gcc",
        "gcc",
        &[],
        &[&source, "torture/wrong_bytes/race.c", "torture/content.c"],
    )
}

/// One of the programs of `tests/cases/`, by its path there without the ending.
pub(crate) fn case(path: &str) -> PathBuf {
    let name = format!("case-{}", path.replace('/', "-"));
    let source = format!("cases/{path}.c");
    c(&name, "gcc", "gcc", &[], &[&source])
}

/// The same, linked statically: for roots without libraries and processes without descriptors.
pub(crate) fn case_static(path: &str) -> PathBuf {
    let name = format!("case-{}-static", path.replace('/', "-"));
    let source = format!("cases/{path}.c");
    c(&name, "gcc", "gcc", &["-static"], &[&source])
}

/// A program of `tests/mount/`.
pub(crate) fn mount_program(name: &str) -> PathBuf {
    c(name, "gcc", "gcc", &[], &[&format!("mount/{name}.c")])
}

/// The program that holds and checks memory.
pub(crate) fn hold() -> PathBuf {
    c(
        "hold",
        "gcc",
        "gcc",
        &[],
        &["programs/hold.c", "torture/content.c"],
    )
}

/// The program that touches its memory in a random order.
pub(crate) fn scatter() -> PathBuf {
    c(
        "scatter",
        "gcc",
        "gcc",
        &[],
        &["programs/scatter.c", "torture/content.c"],
    )
}

/// The program whose pages can be counted by kind.
pub(crate) fn contents() -> PathBuf {
    c(
        "contents",
        "gcc",
        "gcc",
        &[],
        &["programs/contents.c", "torture/content.c"],
    )
}

/// The program that changes its memory map under many signals.
pub(crate) fn interrupted() -> PathBuf {
    c(
        "interrupted",
        "gcc",
        "gcc",
        &[],
        &["programs/interrupted.c"],
    )
}

/// The malloc program.
pub(crate) fn churn() -> PathBuf {
    c("churn", "gcc", "gcc", &[], &["programs/churn.c"])
}

/// A program of `tests/programs/` that is one file of C, with more flags for the compiler.
pub(crate) fn program(name: &str, flags: &[&str]) -> PathBuf {
    c(name, "gcc", "gcc", flags, &[&format!("programs/{name}.c")])
}

/// The malloc program as a static binary of the GNU library.
pub(crate) fn churn_static() -> PathBuf {
    c(
        "churn-static",
        "gcc",
        "gcc",
        &["-static"],
        &["programs/churn.c"],
    )
}

/// The malloc program as a dynamic binary of the musl library.
pub(crate) fn churn_musl() -> PathBuf {
    c(
        "churn-musl",
        "musl-gcc",
        "musl-tools",
        &[],
        &["programs/churn.c"],
    )
}

/// A 32-bit x86 program that only ends, with status 0.
pub(crate) fn exit_32_bit() -> PathBuf {
    c(
        "exit32",
        "gcc",
        "gcc",
        &["-m32", "-nostdlib", "-static"],
        &["programs/exit32.c"],
    )
}

/// The Go program.
pub(crate) fn goroutines() -> PathBuf {
    once("goroutines", |out| {
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("go-cache");
        tool(
            "golang-go",
            Command::new("go")
                .arg("build")
                .arg("-o")
                .arg(out)
                .arg(tests_file("programs/goroutines.go"))
                .env("GOCACHE", cache)
                .env("GOFLAGS", "-mod=mod"),
        );
    })
}

/// A directory with the classes of the Java program.
pub(crate) fn heap_classes() -> PathBuf {
    once("java-classes", |out| {
        tool(
            "openjdk-17-jdk-headless",
            Command::new("javac")
                .arg("-d")
                .arg(out)
                .arg(tests_file("programs/Heap.java")),
        );
    })
}
