//! The first process of the guest: brings the guest up, runs the plan that the initramfs carries, one scenario a line,
//! says how each ended, and switches the guest off.
//!
//! What the host reads begins with `@@`: `@@ pass NAME SECONDS`, `@@ fail NAME: WHY`, `@@ row …` for measurements, `@@ end`.
//!
//! Work that may be killed runs in processes of its own: this program again, with arguments.

mod anon;
mod bench;
mod damage;
mod dropped;
mod files;
mod module;
mod pages;
mod scenarios;
mod sys;

use std::time::Instant;

/// How a scenario ends: well, or with the reason.
pub(crate) type Outcome = Result<(), String>;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if std::process::id() == 1 {
        first_process();
    } else if let Err(error) = scenarios::work(&arguments) {
        eprintln!("{}: {error}", arguments.join(" "));
        // A wrong byte is never taken for a process that was killed.
        std::process::exit(if error.contains(pages::WRONG) { 99 } else { 1 });
    }
}

fn first_process() {
    if let Err(error) = sys::bring_up() {
        println!("@@ fail bring-up: {error}");
    } else {
        let plan = std::fs::read_to_string("/plan").unwrap_or_default();
        for line in plan.lines().filter(|line| !line.is_empty()) {
            run(line);
        }
    }
    println!("@@ end");
    sys::power_off();
}

fn run(line: &str) {
    println!("@@ begin {line}");
    let words: Vec<&str> = line.split_whitespace().collect();
    let begun = Instant::now();
    match scenarios::run(&words) {
        Ok(()) => println!("@@ pass {line} {:.1}", begun.elapsed().as_secs_f64()),
        Err(error) => println!("@@ fail {line}: {error}"),
    }
}
