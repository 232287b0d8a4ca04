//! Sudden deaths and stops of zcache's own processes: nobody ever reads a zero that nobody wrote (ways 6 and 7 of the nine).

use crate::support::job::Running;
use crate::support::{
    Capped, Ended, Job, Outcome, TempDir, compile, eventually, plain_only, tool, tree,
};
use std::process::Command;
use std::time::Duration;

const BYTES: &str = "64M";
const RAM_MIB: u64 = 32;

/// Three processes that check their memory for ever, and write it to a file from evicted buffers.
struct Verifiers {
    files: TempDir,
    running: Running,
}

impl Verifiers {
    fn start(name: &str, children: u32) -> Verifiers {
        let files = TempDir::new(name);
        let mut running = Job::new(compile::wrong_bytes("w6_verify_forever"))
            .args([
                "--bytes",
                BYTES,
                "--children",
                &children.to_string(),
                "--evidence",
            ])
            .arg(files.file("evidence"))
            .arg("--output")
            .arg(files.file("output"))
            .linger(Duration::from_secs(60))
            .start_under(&Capped::ram_mib(RAM_MIB));
        running.wait_for_stdout("ready", children as usize + 1);
        std::thread::sleep(Duration::from_secs(2));
        Verifiers { files, running }
    }

    /// No process has seen or written a wrong page.
    fn assert_nothing_wrong(files: &TempDir) {
        let evidence = std::fs::read_to_string(files.file("evidence")).expect("the evidence file");
        assert_eq!(evidence, "", "a process saw wrong bytes");
        let mut check = Command::new(compile::wrong_bytes("w6_verify_forever"));
        tool(
            "gcc",
            check
                .args(["--bytes", BYTES, "--check-output"])
                .arg(files.file("output")),
        );
    }
}

/// Everything is gone within a minute, by zcache's own means, and nobody saw a wrong byte.
fn assert_all_died(files: &TempDir, outcome: &Outcome) {
    if !plain_only() {
        assert_eq!(
            outcome.left_running, 0,
            "processes outlived zcache by a minute: {}",
            outcome.report
        );
    }
    Verifiers::assert_nothing_wrong(files);
}

#[test]
fn the_pager_is_killed_and_the_tree_dies_with_it() {
    for children in [0, 2, 2] {
        let Verifiers { files, running } = Verifiers::start("kill-pager", children);
        tree::signal(running.pager(), "KILL");
        let outcome = running.wait();
        // The process that the shell knows may end the same way, or say what happened.
        if outcome.ended != Ended::Signal(9) {
            outcome
                .assert_ended(Ended::Exit(125))
                .assert_says(&["zcache", "pager"]);
        }
        assert_all_died(&files, &outcome);
    }
}

#[test]
fn the_process_that_the_shell_knows_is_killed_and_the_tree_dies_with_it() {
    for children in [0, 2] {
        let Verifiers { files, running } = Verifiers::start("kill-front", children);
        tree::signal(running.first(), "KILL");
        let outcome = running.wait();
        outcome.assert_ended(Ended::Signal(9));
        assert_all_died(&files, &outcome);
    }
}

#[test]
fn the_servant_is_killed() {
    if plain_only() {
        return;
    }
    let Verifiers { files, mut running } = Verifiers::start("kill-servant", 0);
    let servant =
        tree::named(running.root(), "zcache-servant").expect("a process called zcache-servant");
    tree::signal(servant.pid, "KILL");
    let said = eventually(Duration::from_secs(60), || {
        running.stderr().contains("servant") || !running.is_running()
    });
    assert!(
        said,
        "nothing was said about the servant's death: {}",
        running.stderr()
    );
    std::thread::sleep(Duration::from_secs(2));
    let outcome = if running.is_running() {
        running.stop()
    } else {
        let outcome = running.wait();
        outcome.assert_ended(Ended::Signal(7));
        outcome
    };
    outcome.assert_says(&["servant"]);
    assert!(
        !outcome.err().contains("is lost"),
        "a page was lost with the servant: {}",
        outcome.err()
    );
    Verifiers::assert_nothing_wrong(&files);
}

#[test]
fn the_pager_is_stopped_for_a_while() {
    let Verifiers { files, mut running } = Verifiers::start("stop-pager", 1);
    for _ in 0..3 {
        tree::signal(running.pager(), "STOP");
        std::thread::sleep(Duration::from_millis(700));
        tree::signal(running.pager(), "CONT");
        std::thread::sleep(Duration::from_millis(500));
    }
    assert!(
        running.is_running(),
        "the tree did not survive a stopped pager: {}",
        running.stderr()
    );
    let outcome = running.stop();
    if !plain_only() {
        outcome.assert_within(RAM_MIB << 20);
    }
    Verifiers::assert_nothing_wrong(&files);
}

#[test]
fn the_program_is_killed_by_others() {
    let Verifiers { files, running } = Verifiers::start("kill-program", 0);
    let program = tree::named(running.root(), "w6_verify_forev").expect("the program");
    tree::signal(program.pid, "KILL");
    let outcome = running.wait();
    outcome.assert_ended(Ended::Signal(9));
    assert_eq!(outcome.left_running, 0, "{}", outcome.report);
    Verifiers::assert_nothing_wrong(&files);
}

#[test]
fn one_process_of_several_is_killed() {
    let Verifiers { files, mut running } = Verifiers::start("kill-child", 2);
    let child = tree::descendants(running.root())
        .into_iter()
        .rfind(|process| process.name == "w6_verify_forev")
        .expect("a child of the program");
    tree::signal(child.pid, "KILL");
    std::thread::sleep(Duration::from_secs(3));
    assert!(
        running.is_running(),
        "the others died as well: {}",
        running.stderr()
    );
    let outcome = running.stop();
    if !plain_only() {
        outcome.assert_within(RAM_MIB << 20);
    }
    Verifiers::assert_nothing_wrong(&files);
}
