//! stdin, stdout, stderr, pipes, terminals, directory, environment and file descriptors are the program's own.

use crate::support::{Capped, Job, TempDir, compile, eventually, plain_only, tests_file, tool};
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Duration;

fn same(job: &Job) -> (String, String) {
    let plain = job.plain();
    let capped = job.under(&Capped::ram_mib(64));
    assert_eq!(plain.ended, capped.ended, "{}", capped.report);
    assert_eq!(
        plain.out(),
        capped.out(),
        "stdout differs: {}",
        capped.report
    );
    assert_eq!(
        plain.err(),
        capped.err(),
        "stderr differs: {}",
        capped.report
    );
    (capped.out(), capped.err())
}

#[test]
fn bytes_pass_through_unchanged() {
    let files = TempDir::new("bytes");
    let path = files.file("input");
    let bytes: Vec<u8> = (0..3_000_000u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    std::fs::write(&path, &bytes).expect("input");
    let outcome = Job::new("cat").stdin(&path).under(&Capped::ram_mib(64));
    outcome.assert_success();
    assert!(outcome.stdout == bytes, "cat's output differs");
    same(&Job::shell(
        "echo out; echo err >&2; echo out again; exit 3",
    ));
}

#[test]
fn pipelines_see_their_ends() {
    for text in [
        "yes | head -n 3",
        "seq 100000 | sort -rn | sed -n '1p;$p'",
        "(sleep 0.2; echo late) | cat",
        "cat < /dev/null | wc -c",
        "mkfifo fifo; (cat fifo; echo eof) & echo through > fifo; wait; rm fifo",
        "seq 10 | while read n; do echo $n | (read m; echo $((m * m))); done | paste -sd+ -",
    ] {
        let files = TempDir::new("pipeline");
        same(&Job::shell(text).directory(files.path()));
    }
}

/// Whoever reads from zcache sees the end when the program closes its stdout, not when zcache ends.
#[test]
fn a_closed_stdout_is_an_end_for_the_reader() {
    if plain_only() {
        return;
    }
    let words = Capped::ram_mib(64).words();
    let (zcache, options) = words.split_first().expect("zcache has words");
    let mut child = Command::new(zcache)
        .args(options)
        .args(["sh", "-c", "echo said; exec >&-; read line; exit 4"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("zcache can be started");
    let mut stdout = child.stdout.take().expect("a pipe");
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        stdout.read_to_string(&mut text).map(|_| text)
    });
    let ended = eventually(Duration::from_secs(60), || reader.is_finished());
    let running = child.try_wait().expect("the child is ours").is_none();
    drop(child.stdin.take());
    let status = child.wait().expect("the child is ours");
    assert!(
        ended,
        "the reader did not see the end of stdout while the program ran"
    );
    assert!(running, "zcache ended before the program");
    assert_eq!(status.code(), Some(4));
    assert_eq!(reader.join().expect("the reader").expect("text"), "said\n");
}

#[test]
fn directory_environment_and_limits_are_inherited() {
    let files = TempDir::new("environment");
    for text in [
        "pwd",
        "env | grep -v '^_=' | sort",
        "umask; ulimit -a",
        "echo \"$0\" \"$@\"",
        "cat /proc/self/oom_score_adj; nice",
    ] {
        same(
            &Job::new("bash")
                .args(["-c", text, "name", "one two", "", "three"])
                .directory(files.path())
                .env("STRANGE", "a\nb=c "),
        );
    }
}

/// Signal mask, ignored signals, descriptors and the process group are what they would be without zcache.
#[test]
fn what_a_process_inherits_silently_is_the_same() {
    same(&Job::shell(
        "grep -E '^(SigBlk|SigIgn|SigCgt|Groups|Uid|Gid|Cap)' /proc/self/status",
    ));
    same(&Job::shell("ls /proc/self/fd | wc -l"));
    let script = "import os\nfor fd in sorted(map(int, os.listdir('/proc/self/fd'))):\n  try: print(fd, os.fstat(fd).st_mode)\n  except OSError: pass";
    same(&Job::new("/usr/bin/python3").args(["-c", script]));
    same(&Job::new("/usr/bin/python3").args([
        "-c",
        "import os; print(os.getpgrp() == os.getpid(), os.getsid(0) == os.getpid())",
    ]));
}

#[test]
fn nobody_but_the_programs_children_is_waited_for() {
    let script = "import os, time\ntime.sleep(0.3)\ntry: print(os.waitpid(-1, os.WNOHANG))\nexcept ChildProcessError: print('no children')";
    let (out, _) = same(&Job::new("/usr/bin/python3").args(["-c", script]));
    assert_eq!(out, "no children\n");
}

#[test]
fn traps_and_waits_of_a_shell() {
    for text in [
        "trap 'echo term' TERM; kill -TERM $$; echo after",
        "trap 'echo bye' EXIT; exit 9",
        "trap 'echo child' CHLD; set -m; /bin/true; wait; echo done",
        "sleep 0.1 & pid=$!; wait $pid; echo $?",
        "(exit 3) & wait $!; echo $?",
        "sleep 100 & kill -9 $!; wait $! 2>/dev/null; echo $?",
        "trap '' INT; kill -INT $$; echo ignored",
        "coproc cat; echo text >&${COPROC[1]}; read line <&${COPROC[0]}; echo $line",
        "f() { local n=$1; [ $n -gt 0 ] && f $((n - 1)); }; f 500; echo deep",
        "timeout 0.3 sleep 100; echo $?",
    ] {
        same(&Job::new("bash").args(["-c", text]));
    }
}

/// The words as a line for a shell.
fn line(job_words: &[&str], ram_mib: u64) -> String {
    let mut words: Vec<String> = Vec::new();
    if !plain_only() {
        words.extend(
            Capped::ram_mib(ram_mib)
                .words()
                .iter()
                .map(|word| word.to_string_lossy().into_owned()),
        );
    }
    words.extend(job_words.iter().map(|word| (*word).to_string()));
    words
        .iter()
        .map(|word| format!("'{word}'"))
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn the_terminal_is_the_programs_own() {
    let command = line(
        &[
            "sh",
            "-c",
            "test -t 0 && test -t 1 && stty size >/dev/null && echo terminal",
        ],
        64,
    );
    let text = tool(
        "bsdutils",
        Command::new("script")
            .args(["-qec", &command, "/dev/null"])
            .stdin(Stdio::null()),
    );
    assert!(text.contains("terminal"), "{text}");
}

#[test]
fn job_control_stops_continues_and_interrupts() {
    let hold = compile::hold();
    let command = line(
        &[
            &hold.to_string_lossy(),
            "--bytes",
            "48M",
            "--forever",
            "--say",
        ],
        24,
    );
    let text = tool(
        "python3",
        Command::new("/usr/bin/python3")
            .arg(tests_file("support/job_control.py"))
            .arg(command),
    );
    assert!(text.contains("ok"), "{text}");
}
