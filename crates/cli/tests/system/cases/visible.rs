//! What a program can see of its pager: nobody else's ends in its waits, nobody else in its lists of processes, its own words and its
//! caller's surroundings.

use super::support::{agree, agree_job, bash, case};
use crate::support::{Capped, Job, TempDir, compile, plain_only};
use std::time::Duration;

#[test]
#[ignore = "differs: a wait for clones sees the helper"]
fn waits_see_children_only() {
    agree("visible/waits", &["plain"]);
}

#[test]
#[ignore = "differs: an orphaned helper is given to the subreaper"]
fn waits_of_a_subreaper_see_its_family_only() {
    agree("visible/waits", &["subreaper"]);
}

#[test]
fn command_line_and_environment_stay() {
    agree("visible/own_words", &[]);
}

/// In a namespace of its own, where nobody else runs the same program.
#[test]
#[ignore = "differs: a helper has the command line of its program"]
fn a_program_finds_itself_once() {
    let job = case("visible/counted", &[]);
    agree_job(&job.within(["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]));
}

/// Runs the program that prints what it inherited, started by `text`, which ends with `"$@"`.
fn inherited(text: &str) {
    let job = case("visible/inherited", &[]).within(["/bin/bash", "-c", text, "bash"]);
    agree_job(&job);
}

#[test]
fn surroundings() {
    inherited("exec \"$@\"");
}

#[test]
fn ignored_signals_are_inherited() {
    inherited("trap '' PIPE HUP INT QUIT TERM CHLD USR1 USR2 TSTP TTOU WINCH TRAP; exec \"$@\"");
}

#[test]
fn masks_and_priorities_are_inherited() {
    inherited("umask 027; exec nice -n 5 taskset 1 \"$@\"");
}

#[test]
fn descriptors_are_inherited() {
    inherited("exec \"$@\" 3</dev/null 5>/dev/null 9<>/dev/null 20</etc/passwd");
}

/// What zcache starts is its child, as with `timeout`; a session that the program makes is its own.
#[test]
fn a_session_of_its_own() {
    let program = compile::case("visible/inherited");
    agree_job(&Job::new("setsid").arg("-w").arg(program));
}

#[test]
fn without_new_privileges() {
    inherited("exec setpriv --no-new-privs \"$@\"");
}

/// Streams that the caller has closed are closed, not something else.
#[test]
fn closed_streams_are_closed() {
    for text in [
        "exec \"$@\" <&-",
        "exec \"$@\" >&-",
        "exec \"$@\" 2>&-",
        "exec \"$@\" <&- >&- 2>&-",
    ] {
        let files = TempDir::new("closed");
        let said = files.file("said");
        let run = |under: bool| {
            let job = Job::new(compile::case("visible/inherited"))
                .arg(&said)
                .within(["/bin/bash", "-c", text, "bash"])
                .bound(Duration::from_secs(60));
            let outcome = if under {
                job.under(&Capped::ram_mib(64).option("--swap", "none"))
            } else {
                job.plain()
            };
            outcome.assert_success();
            std::fs::read_to_string(&said).expect("the program wrote its file")
        };
        let alone = run(false);
        assert_eq!(alone, run(true), "{text}");
    }
}

/// A reader that has enough ends the program, as SIGPIPE does alone, or lets it see EPIPE where that is ignored.
#[test]
fn broken_pipes() {
    for text in [
        "yes | head -n 2; echo ${PIPESTATUS[0]}",
        "trap '' PIPE; yes 2>/dev/null | head -n 2; echo ${PIPESTATUS[0]}",
    ] {
        agree_job(&bash(text, &[]));
    }
    let text = "trap '' PIPE; \"$@\" 2>/dev/null | head -n 2; exit ${PIPESTATUS[0]}";
    let job = Job::new("yes")
        .within(["/bin/bash", "-c", text, "bash"])
        .bound(Duration::from_secs(60));
    let plain = job.plain();
    let under = job.under(&Capped::ram_mib(64));
    super::support::compare(&plain, &under);
    assert!(plain_only() || plain.out() == "y\ny\n", "{}", plain.out());
}

/// What a shell says of its children is what it says alone.
#[test]
fn jobs_of_a_shell() {
    let text = "set -m; sleep 0.2 & sleep 0.1 & wait -n; echo $?; wait; echo $?; jobs; (exit 3) & wait $!; echo $?; \
                kill -STOP $BASHPID & wait $!; echo stopped $?; jobs | wc -l; kill -CONT %%; wait; echo $?";
    agree_job(&bash(text, &[]));
}

#[test]
#[ignore = "differs: a child that nobody traces would run without a pager"]
fn children_that_are_not_traced() {
    agree("visible/still_differs", &["untraced"]);
}

#[test]
#[ignore = "differs: calls by another ABI would change memory unseen"]
fn calls_by_int_0x80() {
    agree("visible/still_differs", &["int80"]);
}

#[test]
#[ignore = "differs: the shadow is writable private memory, an eighth of the budget"]
fn a_limit_of_data() {
    agree("visible/still_differs", &["data"]);
}

#[test]
#[ignore = "differs: Linux makes no huge page with holes of memory that a userfaultfd watches"]
fn memory_that_is_collapsed() {
    agree("visible/still_differs", &["collapse"]);
}

#[test]
#[ignore = "differs: what the program watches by a userfaultfd stays resident, and more than the budget is refused"]
fn own_write_protection_beyond_the_budget() {
    agree("visible/still_differs", &["own-protect"]);
}

#[test]
#[ignore = "differs: Linux takes any userfaultfd's memory for a copy, and cannot be asked whose it is"]
fn own_copies_to_memory_that_is_not_watched() {
    agree("visible/still_differs", &["own-copy"]);
}

#[test]
#[ignore = "differs: memory has one userfaultfd, which is the pager's"]
fn memory_that_is_given_up_and_was_not_watched() {
    agree("visible/still_differs", &["own-unregister"]);
}
