//! Who comes in, what is said, and how it ends.

use super::lender::{BOUND, Borrower, Lender};
use crate::support::{TempDir, eventually, plain_only, tool, tree, zcache};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn is_running(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn a_borrower_gets_its_pages_back_and_the_server_ends_with_its_lender() {
    if plain_only() {
        return;
    }
    for signal in ["TERM", "INT"] {
        let mut lender = Lender::start(&["--ram", "64M"]);
        let password = lender.password();
        let url = lender.url();
        let mut borrower =
            Borrower::start(48, &password, &["--remote", &url, "--swap", "/var/tmp"]);
        borrower.await_passes(1);
        let posted = borrower.end("posted_blocks");
        assert!(posted > 500, "{posted} blocks for 48 MiB in 16 MiB");
        let server = lender.server().expect("a server");
        let status = lender.end(signal);
        assert_eq!(status.code(), Some(0), "{}", lender.err());
        assert!(!is_running(server), "the server goes on");
        assert!(TcpStream::connect(("127.0.0.1", lender.port)).is_err());
    }
}

#[test]
fn the_server_does_not_outlive_a_lender_that_is_killed() {
    if plain_only() {
        return;
    }
    let mut lender = Lender::start(&["--ram", "64M"]);
    let server = lender.server().expect("a server");
    lender.end("KILL");
    assert!(
        eventually(BOUND, || !is_running(server)),
        "the server goes on"
    );
}

/// What the server says to a borrower, or to nobody that it knows.
fn ask(lender: &Lender, as_borrower: bool, words: &[&str]) -> String {
    let mut command = Command::new("redis-cli");
    command.args(["-p", &lender.port.to_string()]);
    if as_borrower {
        let password = std::fs::read_to_string(lender.password()).expect("a password");
        command
            .args(["--user", "borrower"])
            .env("REDISCLI_AUTH", password.trim());
    }
    tool("redis-tools", command.args(words))
}

#[test]
fn nobody_else_comes_in_and_a_borrower_only_to_its_keys() {
    if plain_only() {
        return;
    }
    let lender = Lender::start(&["--ram", "64M"]);
    for words in [&["PING"][..], &["SET", "zc:a", "1"], &["INFO"]] {
        let said = ask(&lender, false, words);
        assert!(said.contains("NOAUTH"), "{words:?}: {said}");
    }
    assert_eq!(
        ask(&lender, true, &["SET", "zc:a", "value", "EX", "9"]),
        "OK\n"
    );
    assert_eq!(ask(&lender, true, &["GETRANGE", "zc:a", "1", "2"]), "al\n");
    assert_eq!(ask(&lender, true, &["UNLINK", "zc:a"]), "1\n");
    for words in [
        &["SET", "other", "1"][..],
        &["GET", "zcother"],
        &["KEYS", "*"],
        &["SCAN", "0"],
        &["FLUSHALL"],
        &["DEL", "zc:a"],
        &["CONFIG", "GET", "dir"],
        &["ACL", "LIST"],
        &["SHUTDOWN"],
        &["CLUSTER", "NODES"],
        &["EVAL", "return 1", "0"],
    ] {
        let said = ask(&lender, true, words);
        assert!(said.contains("NOPERM"), "{words:?}: {said}");
    }
}

#[test]
fn the_password_is_in_its_file_and_nowhere_else() {
    if plain_only() {
        return;
    }
    let lender = Lender::start(&["--ram", "64M"]);
    let password = std::fs::read_to_string(lender.password()).expect("a password");
    let password = password.trim();
    for name in ["password", "server.conf", "server.log"] {
        let path = lender.folder().join(name);
        let mode = std::fs::metadata(&path).expect(name).permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let folder_mode = std::fs::metadata(lender.folder())
        .expect("a folder")
        .permissions();
    assert_eq!(folder_mode.mode() & 0o777, 0o700);
    let server = lender.server().expect("a server");
    let read = |path: &str| String::from_utf8_lossy(&std::fs::read(path).expect(path)).into_owned();
    let file = |name: &str| std::fs::read_to_string(lender.folder().join(name)).expect(name);
    for text in [
        lender.out(),
        lender.err(),
        file("server.conf"),
        file("server.log"),
        read(&format!("/proc/{server}/cmdline")),
        read(&format!("/proc/{server}/environ")),
        read(&format!("/proc/{}/cmdline", lender.pid())),
    ] {
        assert!(!text.contains(password), "{text}");
    }
}

fn lend(options: &[&str]) -> Output {
    let files = TempDir::new("lend-refused");
    Command::new(zcache())
        .args(["lend", "--dir"])
        .arg(files.file("lent"))
        .args(options)
        .output()
        .expect("zcache runs")
}

#[test]
fn what_cannot_be_lent_is_refused_with_what_helps() {
    if plain_only() {
        return;
    }
    for (options, words) in [
        (
            &["--ram", "64M", "--listen", "0.0.0.0"][..],
            &["--tls-cert", "--plaintext"][..],
        ),
        (&["--ram", "900T"], &["--keep-free", "at most"]),
        (&["--ram", "1M"], &["32 MiB or more"]),
        (
            &["--ram", "64M", "--listen", "lender"],
            &["no address to listen at", "10.0.0.1"],
        ),
        (&["--ram", "64M", "--prefix", "a b"], &["--prefix 'a b'"]),
        (
            &["--ram", "64M", "--tls-cert", "c"],
            &["--tls-key", "--tls-ca"],
        ),
        (
            &["--ram", "64M", "--server", "/bin/true"],
            &["/bin/true is not Redis 7"],
        ),
        // Nobody has this address, so the server cannot listen there.
        (
            &["--ram", "64M", "--plaintext", "--listen", "192.0.2.1"],
            &["the server ended by itself", "192.0.2.1"],
        ),
    ] {
        let output = lend(options);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{options:?}: {said}");
        for word in words {
            assert!(said.contains(word), "{options:?}, no {word}: {said}");
        }
    }
    let mut no_path = Command::new(zcache());
    no_path.args(["lend", "--ram", "64M", "--dir", "/nonexistent-zcache/x"]);
    let output = no_path
        .env("PATH", "/nonexistent")
        .output()
        .expect("zcache runs");
    let _ = std::fs::remove_dir_all("/nonexistent-zcache");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("install the package valkey-server or redis-server"),
        "{said}"
    );
}

#[test]
fn two_lenders_do_not_share_a_folder() {
    if plain_only() {
        return;
    }
    let lender = Lender::start(&["--ram", "64M"]);
    let mut second = Command::new(zcache());
    second
        .args(["lend", "--ram", "64M", "--dir"])
        .arg(lender.folder());
    let output = second.output().expect("zcache runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert!(said.contains("belongs to another zcache lend"), "{said}");
    assert!(lender.server().is_some());
}

#[test]
fn what_is_printed_is_what_a_server_takes() {
    if plain_only() {
        return;
    }
    let files = TempDir::new("lend-printed");
    let mut print = Command::new(zcache());
    print
        .args([
            "lend",
            "--ram",
            "64M",
            "--listen",
            "127.0.0.1:7399",
            "--durability",
            "wait",
            "--print",
            "--dir",
        ])
        .arg(files.file("lent"));
    let printed = tool("zcache", &mut print);
    assert!(printed.contains("appendfsync everysec"), "{printed}");
    let path = files.file("server.conf");
    std::fs::write(&path, printed).expect("a configuration");
    let mut server = Command::new("redis-server")
        .arg(&path)
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server");
    let is_up = eventually(BOUND, || TcpStream::connect("127.0.0.1:7399").is_ok());
    tree::signal(server.id(), "TERM");
    let _ = server.wait();
    assert!(is_up, "the server does not start from what is printed");
}
