//! Where paging is impossible, zcache says why and what helps, before the program has done anything.

use crate::support::{Capped, Ended, Job, TempDir, compile, plain_only, tool, tree, zcache};
use std::process::Command;

/// A program that leaves a mark when it is run.
fn marking(files: &TempDir) -> (String, std::path::PathBuf) {
    let mark = files.file("mark");
    (format!("echo run > {}", mark.display()), mark)
}

#[test]
fn an_unprivileged_user_is_told_what_helps() {
    if plain_only() {
        return;
    }
    tree::need_root();
    let files = TempDir::new("unprivileged");
    tool(
        "coreutils",
        Command::new("chmod").arg("777").arg(files.path()),
    );
    // The build's directory may be closed to other users.
    let copy = files.file("zcache");
    std::fs::copy(zcache(), &copy).expect("a copy of zcache");
    tool("coreutils", Command::new("chmod").arg("755").arg(&copy));
    let setting =
        std::fs::read_to_string("/proc/sys/vm/unprivileged_userfaultfd").unwrap_or_default();
    assert_eq!(
        setting.trim(),
        "0",
        "vm.unprivileged_userfaultfd is not at its default, so nothing is refused"
    );
    let (text, mark) = marking(&files);
    let output = Command::new("setpriv")
        .args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--inh-caps=-all",
            "--bounding-set=-all",
        ])
        .arg(&copy)
        .args(["run", "--ram", "64M", "--", "sh", "-c", &text])
        .output()
        .expect("setpriv is in the Debian package util-linux");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{said}");
    for word in [
        "userfaultfd",
        "vm.unprivileged_userfaultfd",
        "/dev/userfaultfd",
        "CAP_SYS_PTRACE",
    ] {
        assert!(
            said.contains(word),
            "the refusal does not name {word}: {said}"
        );
    }
    assert!(!mark.exists(), "the program ran before the refusal");
}

#[test]
fn a_setuid_program_is_refused() {
    if plain_only() {
        return;
    }
    tree::need_root();
    let files = TempDir::new("setuid");
    let program = files.file("program");
    std::fs::copy("/bin/true", &program).expect("a copy of true");
    tool(
        "coreutils",
        Command::new("chown").arg("65534").arg(&program),
    );
    tool("coreutils", Command::new("chmod").arg("4755").arg(&program));
    let outcome = Job::new(&program).under(&Capped::ram_mib(64));
    outcome
        .assert_ended(Ended::Exit(125))
        .assert_says(&["setuid"]);
}

#[test]
fn a_32_bit_program_is_refused() {
    if plain_only() {
        return;
    }
    let outcome = Job::new(compile::exit_32_bit()).under(&Capped::ram_mib(64));
    outcome
        .assert_ended(Ended::Exit(125))
        .assert_says(&["32-bit"]);
}

#[test]
fn a_budget_that_is_too_small_is_refused() {
    let output = Command::new(zcache())
        .args(["run", "--ram", "64K", "--", "true"])
        .output()
        .expect("zcache can be started");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert!(said.contains("--ram"), "{said}");
}
