//! What nobody but the run may know: the password, and, of sealed blocks, what is in them.

use super::certificates::Certificates;
use super::scattered::Scattering;
use super::server::{Server, Setup};
use crate::support::{plain_only, tree};
use std::path::PathBuf;

/// What `scatter --marked` puts into each page.
const MARK: &[u8] = b"zcache test plaintext mark";

fn has_mark(bytes: &[u8]) -> bool {
    bytes.windows(MARK.len()).any(|window| window == MARK)
}

#[test]
fn a_server_can_read_nothing_of_what_is_sealed() {
    if plain_only() {
        return;
    }
    for (seal, readable) in [("never", true), ("always", false)] {
        let server = Server::start();
        let mut run = Scattering::over([server.url()])
            .option("--remote-seal", seal)
            .argument("--marked")
            .start();
        run.passes(1);
        let values = server.values();
        assert!(values.len() > 1 << 20, "{} bytes", values.len());
        assert_eq!(has_mark(&values), readable, "--remote-seal {seal}");
        run.held().assert_nothing_left([&server]);
    }
}

#[test]
fn the_password_is_in_no_argument_message_or_environment_of_the_program() {
    if plain_only() {
        return;
    }
    let password = "sesame-7291";
    let server = Setup::new().option("requirepass", password).start();
    let mut run = Scattering::over([server.url()])
        .env("ZCACHE_REMOTE_PASSWORD", password)
        .start();
    run.passes(1);
    let holds = |path: PathBuf| {
        let bytes = std::fs::read(&path).unwrap_or_default();
        String::from_utf8_lossy(&bytes).contains(password)
    };
    let below = tree::descendants(run.running.root());
    let mut programs = 0;
    for process in &below {
        let of = PathBuf::from(format!("/proc/{}", process.pid));
        assert!(
            !holds(of.join("cmdline")),
            "{process:?} has it in its arguments"
        );
        if process.name == "scatter" {
            programs += 1;
            assert!(
                !holds(of.join("environ")),
                "{process:?} has it in its environment"
            );
        }
    }
    assert!(programs > 0, "{below:?}");
    let held = run.held();
    assert!(!held.outcome.err().contains(password));
    assert!(held.remote("posted_blocks") > 0);
}

#[test]
fn a_user_with_the_prefix_and_the_commands_alone_is_enough() {
    if plain_only() {
        return;
    }
    let rights =
        "borrower on >sesame-7291 ~mine:* +get +set +getrange +unlink +expire +wait +ping +info";
    let server = Setup::new().user(rights).start();
    let mut run = Scattering::over([server.url()])
        .option("--remote-prefix", "mine")
        .env("ZCACHE_REMOTE_USER", "borrower")
        .env("ZCACHE_REMOTE_PASSWORD", "sesame-7291")
        .start();
    run.passes(1);
    run.held().assert_nothing_left([&server]);
    Scattering::over([server.url()])
        .env("ZCACHE_REMOTE_USER", "borrower")
        .env("ZCACHE_REMOTE_PASSWORD", "sesame-7291")
        .assert_refused(&["lacks rights", "~PREFIX:*"]);
}

#[test]
fn both_sides_show_certificates() {
    if plain_only() {
        return;
    }
    let made = Certificates::new(30);
    let server = Setup::new().by_tls(&made).start();
    let over = || Scattering::over([server.url()]).option("--remote-ca", made.ca());
    let (certificate, key) = made.client();
    let mut run = over()
        .option("--remote-cert", &certificate)
        .option("--remote-key", &key)
        .start();
    run.passes(1);
    let held = run.held();
    assert!(held.remote("reads") > held.remote("reads_lost") + held.remote("reads_failed"));
    over().assert_refused(&["certificate"]);
}
