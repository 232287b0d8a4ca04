//! How `zcache run` ends: the program's status and signals are its own; zcache's failures are 125, 126 and 127.

use crate::support::{Capped, Ended, Job, TempDir, tree, zcache};
use std::process::Command;

fn ended(text: &str) -> Ended {
    Job::shell(text).under(&Capped::ram_mib(64)).ended
}

#[test]
fn statuses_are_the_programs_own() {
    for status in [0, 1, 7, 125, 126, 127, 255] {
        assert_eq!(ended(&format!("exit {status}")), Ended::Exit(status));
    }
}

#[test]
fn deaths_by_signal_are_seen_as_such() {
    for (name, number) in [
        ("TERM", 15),
        ("SEGV", 11),
        ("KILL", 9),
        ("ABRT", 6),
        ("HUP", 1),
        ("USR1", 10),
        ("PIPE", 13),
    ] {
        assert_eq!(
            ended(&format!("ulimit -c 0; kill -s {name} $$")),
            Ended::Signal(number),
            "{name}"
        );
    }
}

#[test]
fn a_shell_sees_the_status_of_a_signal() {
    let inner = Capped::ram_mib(64).words();
    let words: Vec<String> = inner
        .iter()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let text = format!("{} sh -c 'kill -s INT $$'; echo status=$?", words.join(" "));
    let outcome = Job::new("bash").args(["-c", &text]).plain();
    assert!(
        outcome.out().contains("status=130"),
        "{}{}",
        outcome.out(),
        outcome.err()
    );
}

/// Runs zcache with these words and gives status and stderr.
fn refusal(words: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(zcache())
        .args(words)
        .output()
        .expect("zcache can be started");
    assert!(
        output.stdout.is_empty(),
        "{words:?} says on stdout: {}",
        String::from_utf8_lossy(&output.stdout)
    );
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

#[test]
fn what_does_not_exist_is_127() {
    for program in ["/nonexistent/program", "no-such-program-in-path"] {
        let (status, said) = refusal(&["run", "--ram", "64M", "--", program]);
        assert_eq!(status, Some(127), "{said}");
        assert!(said.contains(program), "{said}");
    }
}

#[test]
fn what_cannot_be_executed_is_126() {
    let files = TempDir::new("not-executable");
    let path = files.file("text");
    std::fs::write(&path, "just text\n").expect("a file");
    for program in [path.as_path(), files.path()] {
        let program = program.to_string_lossy();
        let (status, said) = refusal(&["run", "--ram", "64M", "--", &program]);
        assert_eq!(status, Some(126), "{said}");
        assert!(said.contains(program.as_ref()), "{said}");
    }
}

#[test]
fn bad_options_are_125_and_name_what_is_wrong() {
    for (words, named) in [
        (vec!["run", "--", "true"], "--ram"),
        (vec!["run", "--ram", "64M"], "program"),
        (vec!["run", "--ram", "64M", "--"], "program"),
        (vec!["run", "--ram", "lots", "--", "true"], "lots"),
        (vec!["run", "--ram", "64Q", "--", "true"], "64Q"),
        (vec!["run", "--ram", "-1", "--", "true"], "-1"),
        (vec!["run", "--ram", "0", "--", "true"], "--ram"),
        (
            vec!["run", "--ram", "99999999999999999999G", "--", "true"],
            "--ram",
        ),
        (
            vec!["run", "--ram", "64M", "--codec", "rot13", "--", "true"],
            "rot13",
        ),
        (
            vec!["run", "--ram", "64M", "--allocator", "slob", "--", "true"],
            "slob",
        ),
        (
            vec!["run", "--ram", "64M", "--swap-max", "x", "--", "true"],
            "--swap-max",
        ),
        (
            vec!["run", "--ram", "64M", "--frobnicate", "--", "true"],
            "--frobnicate",
        ),
        (vec!["run", "--ram", "64M", "--stats"], "--stats"),
        (
            vec![
                "run",
                "--ram",
                "64M",
                "--swap",
                "/nonexistent/directory/file",
                "--",
                "true",
            ],
            "/nonexistent/directory",
        ),
        (
            vec![
                "run",
                "--ram",
                "64M",
                "--stats",
                "/nonexistent/directory/file",
                "--",
                "true",
            ],
            "/nonexistent/directory",
        ),
        (
            vec!["run", "--ram", "64M", "--swap", "/dev/shm", "--", "true"],
            "in RAM",
        ),
        (
            vec!["run", "--ram", "64M", "--swap-max", "0", "--", "true"],
            "--swap-max",
        ),
        (
            vec![
                "run",
                "--ram",
                "64M",
                "--swap",
                "none",
                "--swap-max",
                "1G",
                "--",
                "true",
            ],
            "--swap-max",
        ),
        (vec!["run", "--ram", "64M", "sort", "-n"], "-- sort"),
        (vec!["frobnicate"], "frobnicate"),
    ] {
        let (status, said) = refusal(&words);
        assert_eq!(status, Some(125), "{words:?}: {said}");
        assert!(
            said.to_lowercase().contains(&named.to_lowercase()),
            "{words:?} does not name {named}: {said}"
        );
    }
}

#[test]
fn codecs_that_are_refused_are_told_with_those_that_exist() {
    let (_, said) = refusal(&["run", "--ram", "64M", "--codec", "rot13", "--", "true"]);
    for known in ["auto", "lz4", "zstd"] {
        assert!(said.contains(known), "{said}");
    }
    let (_, said) = refusal(&["run", "--ram", "64M", "--allocator", "slob", "--", "true"]);
    for known in ["block", "zbud", "ztri", "zsmalloc"] {
        assert!(said.contains(known), "{said}");
    }
}

#[test]
fn help_and_version_are_on_stdout() {
    for word in ["--help", "--version"] {
        let output = Command::new(zcache())
            .arg(word)
            .output()
            .expect("zcache can be started");
        assert!(output.status.success(), "{word}: {output:?}");
        assert!(
            String::from_utf8_lossy(&output.stdout).contains("zcache"),
            "{word}: {output:?}"
        );
    }
    let output = Command::new(zcache())
        .args(["run", "--help"])
        .output()
        .expect("zcache can be started");
    let text = String::from_utf8_lossy(&output.stdout);
    for option in [
        "--ram",
        "--swap",
        "--swap-max",
        "--codec",
        "--allocator",
        "--stats",
    ] {
        assert!(
            text.contains(option),
            "run --help does not name {option}: {text}"
        );
    }
}

/// A signal sent to zcache is meant for the program, as with env, nice and timeout.
#[test]
fn a_signal_to_zcache_reaches_the_program() {
    let text = "trap 'echo got; exit 5' TERM; echo ready; while :; do sleep 0.1; done";
    let mut running = Job::shell(text).start_under(&Capped::ram_mib(64));
    running.wait_for_stdout("ready", 1);
    tree::signal(running.first(), "TERM");
    let outcome = running.wait();
    outcome.assert_ended(Ended::Exit(5));
    assert!(outcome.out().contains("got"), "{}", outcome.out());
}
