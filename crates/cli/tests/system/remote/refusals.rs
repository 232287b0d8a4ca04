//! What is refused at the start, in one line that says what to change.

use super::certificates::Certificates;
use super::scattered::Scattering;
use super::server::{Server, Setup, free_port};
use crate::support::{TempDir, plain_only};

#[test]
fn a_server_that_evicts_is_refused() {
    if plain_only() {
        return;
    }
    let server = Setup::new()
        .option("maxmemory-policy", "allkeys-lru")
        .start();
    Scattering::over([server.url()]).assert_refused(&[
        &server.port.to_string(),
        "allkeys-lru",
        "set 'maxmemory-policy noeviction'",
    ]);
}

#[test]
fn a_password_that_is_missing_or_wrong_is_refused() {
    if plain_only() {
        return;
    }
    let server = Setup::new().option("requirepass", "sesame-7291").start();
    let over = || Scattering::over([server.url()]);
    over().assert_refused(&["wants a password", "--remote-password-file"]);
    let said = over()
        .env("ZCACHE_REMOTE_PASSWORD", "other-8134")
        .assert_refused(&["refuses the user or the password"]);
    assert!(!said.contains("8134"), "{said}");
    let files = TempDir::new("password");
    let file = files.file("password");
    std::fs::write(&file, "sesame-7291\n").expect("a file");
    let mode = |mode| {
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(&file, permissions).expect("its mode");
    };
    mode(0o644);
    over()
        .option("--remote-password-file", &file)
        .assert_refused(&["chmod 600"]);
    mode(0o600);
    let run = over().option("--remote-password-file", &file).start();
    let held = run.held();
    assert!(held.remote("posted_blocks") > 0);
}

#[test]
fn a_certificate_that_has_expired_is_refused() {
    if plain_only() {
        return;
    }
    let expired = Certificates::new(-1);
    let server = Setup::new()
        .by_tls(&expired)
        .option("tls-auth-clients", "no")
        .start();
    Scattering::over([server.url()])
        .option("--remote-ca", expired.ca())
        .assert_refused(&["certificate", "expired", "renew"]);
}

#[test]
fn a_certificate_that_nobody_we_trust_signed_is_refused() {
    if plain_only() {
        return;
    }
    let (theirs, others) = (Certificates::new(30), Certificates::new(30));
    let server = Setup::new()
        .by_tls(&theirs)
        .option("tls-auth-clients", "no")
        .start();
    Scattering::over([server.url()])
        .option("--remote-ca", others.ca())
        .assert_refused(&["certificate", "--remote-ca"]);
}

#[test]
fn plaintext_to_another_machine_is_refused() {
    if plain_only() {
        return;
    }
    Scattering::over(["redis://198.19.0.2"]).assert_refused(&[
        "198.19.0.2",
        "plaintext",
        "rediss://",
        "--remote-plaintext",
    ]);
}

#[test]
fn a_secret_in_a_url_is_refused_and_not_repeated() {
    if plain_only() {
        return;
    }
    for url in [
        "redis://user:sesame-7291@127.0.0.1",
        "redis://:sesame-7291@127.0.0.1:1",
    ] {
        let said = Scattering::over([url]).assert_refused(&["--remote-password-file"]);
        assert!(!said.contains("7291"), "{said}");
    }
}

#[test]
fn what_nothing_would_keep_is_refused() {
    if plain_only() {
        return;
    }
    let server = Server::start();
    Scattering::over([server.url()])
        .option("--swap", "none")
        .assert_refused(&["--swap PATH", "--remote-durability"]);
    Scattering::over([server.url()])
        .option("--remote-durability", "two-copies")
        .assert_refused(&["two masters"]);
    Scattering::over([server.url()])
        .option("--remote-durability", "wait")
        .assert_refused(&["appendonly yes"]);
}

#[test]
fn a_server_that_is_not_there_or_not_what_it_is_called_is_refused() {
    if plain_only() {
        return;
    }
    let port = free_port();
    Scattering::over([format!("redis://127.0.0.1:{port}")])
        .assert_refused(&[&port.to_string(), "start valkey-server or redis-server"]);
    let server = Server::start();
    Scattering::over([format!("redis-cluster://127.0.0.1:{}", server.port)])
        .assert_refused(&["is no cluster", "redis://"]);
    // Somebody who listens and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = silent.local_addr().expect("its address").port();
    Scattering::over([format!("redis://127.0.0.1:{port}")])
        .assert_refused(&[&port.to_string(), "no answer in time"]);
}
