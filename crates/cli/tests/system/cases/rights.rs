//! Rights that a program gives up are given up: nobody acts for it with more, and it runs on as it does alone.

use super::support::{agree, agree_job, case, case_static};
use crate::support::{Capped, Job, TempDir, compile, plain_only, tool, tree};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

#[test]
fn no_helper_keeps_what_the_process_gave_up() {
    tree::need_root();
    agree("rights/dropped_root", &[]);
}

#[test]
fn code_of_the_pager_is_no_way_out() {
    agree("rights/code_page", &[]);
}

/// A directory that every user may enter, with a program in it.
fn public(name: &str, program: &Path, mode: &str) -> TempDir {
    let files = TempDir::new(name);
    let copy = files.file("program");
    std::fs::copy(program, &copy).expect("a copy of the program");
    tool(
        "coreutils",
        Command::new("chmod").arg("755").arg(files.path()),
    );
    tool("coreutils", Command::new("chmod").arg(mode).arg(&copy));
    files
}

/// A change of rights in a program that every user can execute.
fn change(how: &str) {
    tree::need_root();
    let files = public(how, &compile::case("rights/changes"), "755");
    let program = files.file("program");
    let words = [how, program.to_str().expect("a path in ASCII")];
    agree_job(
        &Job::new(&program)
            .args(words)
            .bound(Duration::from_secs(60)),
    );
}

#[test]
fn setuid() {
    change("setuid");
}

#[test]
fn setresuid_and_groups() {
    change("setresuid");
}

#[test]
fn seteuid_for_a_while() {
    change("seteuid");
}

#[test]
fn capset() {
    change("capset");
}

#[test]
fn bounding_set() {
    change("bounding");
}

#[test]
fn no_new_privileges() {
    change("no-new-privs");
}

#[test]
fn capabilities_kept_and_dropped() {
    change("keep-caps");
}

#[test]
fn root_that_is_none() {
    change("securebits");
}

#[test]
fn not_dumpable_as_root() {
    change("not-dumpable");
}

#[test]
fn not_dumpable_as_a_user() {
    change("not-dumpable-user");
}

/// A change of the root directory to one that has the program and nothing else: no /proc, no libraries.
fn new_root(how: &str) {
    tree::need_root();
    let root = public(how, &compile::case_static("rights/changes"), "755");
    let path = root.path().to_str().expect("a path in ASCII");
    let outcome = agree_job(&case_static("rights/changes", &[how, path]));
    assert_eq!(
        outcome.err(),
        "",
        "zcache has something to say of a root without /proc"
    );
}

#[test]
fn chroot() {
    new_root("chroot");
}

#[test]
fn chroot_and_setuid() {
    new_root("chroot-user");
}

#[test]
fn pivot_root() {
    new_root("pivot-root");
}

/// A file that its user may execute and not read, as a user without privileges.
#[test]
fn a_file_that_can_only_be_executed() {
    tree::need_root();
    let files = public("execute-only", &compile::case("rights/hold"), "711");
    let job = Job::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(files.file("program"))
        .arg("100")
        .bound(Duration::from_secs(60));
    agree_job(&job);
}

#[test]
fn setpriv_changes_the_user_and_executes() {
    tree::need_root();
    let files = public("setpriv", &compile::case("rights/hold"), "755");
    let job = Job::new("setpriv").args(tree::WITHOUT_RIGHTS);
    let job = job.arg(files.file("program"));
    agree_job(&job.arg("100").bound(Duration::from_secs(60)));
}

#[test]
fn su_changes_the_user_and_executes() {
    tree::need_root();
    let files = public("su", &compile::case("rights/hold"), "755");
    let text = format!("exec {} 100", files.file("program").display());
    let words = ["-s", "/bin/sh", "nobody", "-c", &text];
    agree_job(&Job::new("su").args(words).bound(Duration::from_secs(60)));
}

#[test]
fn a_script_that_changes_its_user_and_forks() {
    tree::need_root();
    let text = "import os, subprocess
os.setgid(1001); os.setuid(1001)
data = [bytes([i % 251]) * 4096 for i in range(20000)]
child = os.fork()
if child == 0:
    print('child', sum(len(d) for d in data), flush=True); os._exit(5)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
print(subprocess.run(['echo', 'sub'], capture_output=True))
print(all(d[0] == i % 251 for i, d in enumerate(data)))";
    agree_job(
        &Job::new("/usr/bin/python3")
            .args(["-c", text])
            .bound(Duration::from_secs(60)),
    );
}

#[test]
fn capabilities_are_the_callers() {
    let text = "grep -E '^(Cap|NoNewPrivs|Uid|Gid|Groups)' /proc/self/status";
    agree_job(&Job::new("/bin/bash").args(["-c", text]));
}

/// An empty file that another user made and holds open is not taken as the swap file: he could read it.
#[test]
fn the_swap_file_is_nobody_elses() {
    if plain_only() {
        return;
    }
    tree::need_root();
    let files = TempDir::new("foreign-swap");
    tool(
        "coreutils",
        Command::new("chmod").arg("1777").arg(files.path()),
    );
    let (swap, seen) = (files.file("swap"), files.file("seen"));
    let text = format!(
        "umask 0; : > {0}; exec 7<{0}; sleep 4; head -c 400000000 <&7 | tr -d '\\0' | wc -c > {1}",
        swap.display(),
        seen.display()
    );
    let mut reader = Command::new("setpriv")
        .args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "bash",
            "-c",
            &text,
        ])
        .spawn()
        .expect("setpriv is in the Debian package util-linux");
    std::thread::sleep(Duration::from_millis(500));
    let capped = Capped::ram_mib(32)
        .option("--codec", "raw")
        .option("--swap", &swap);
    let outcome = case("rights/hold", &["100", "2"]).under(&capped);
    let ended = reader.wait();
    assert!(
        ended.is_ok_and(|status| status.success()),
        "the reader failed"
    );
    let seen = std::fs::read_to_string(seen).expect("what the reader saw");
    assert_eq!(
        seen.trim(),
        "0",
        "bytes that user 65534 could read; zcache said: {}",
        outcome.err()
    );
}
