//! TLS with certificates of a test's own.

use std::process::{Command, Stdio};

use zcache_remote::{Durability, Endpoint, RemoteConfig, RemoteTier, Tls};

use crate::load::{read_all, write};
use crate::server::{Folder, Server};

fn openssl(folder: &Folder, command: &str) {
    let mut openssl = Command::new("openssl");
    openssl.args(command.split(' ')).current_dir(&folder.0);
    let done = openssl.stdin(Stdio::null()).output().expect("openssl runs");
    assert!(
        done.status.success(),
        "{command}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
}

/// An authority, and certificates of a server and a client that it signed.
fn certificates(server_days: &str) -> Folder {
    let folder = Folder::new();
    std::fs::write(
        folder.0.join("san"),
        "subjectAltName=IP:127.0.0.1,DNS:localhost\n",
    )
    .unwrap();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(
        &folder,
        &format!("req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN=ca"),
    );
    for (name, days) in [("server", server_days), ("client", "2")] {
        openssl(
            &folder,
            &format!("req {key} -keyout {name}.key -out {name}.csr -subj /CN={name}"),
        );
        openssl(
            &folder,
            &format!(
                "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days {days} -extfile san -out {name}.pem"
            ),
        );
    }
    folder
}

fn start(folder: Folder) -> Server {
    let more = [
        "--tls-cert-file",
        "server.pem",
        "--tls-key-file",
        "server.key",
        "--tls-ca-cert-file",
        "ca.pem",
        "--tls-auth-clients",
        "yes",
    ];
    Server::start_with(folder, &more, &["--port", "0", "--tls-port", "PORT"])
}

fn config(server: &Server, with_client: bool) -> RemoteConfig {
    let url = format!("rediss://127.0.0.1:{}", server.port);
    let mut config = RemoteConfig::new(vec![Endpoint::parse(&url).unwrap()], Durability::Disk);
    let file = |name: &str| server.folder().join(name);
    let (cert, key) = (file("client.pem"), file("client.key"));
    let client = with_client.then_some((cert.as_path(), key.as_path()));
    let ca = file("ca.pem");
    config.tls = Tls::read(
        Some(&ca),
        client.map(|pair| pair.0),
        client.map(|pair| pair.1),
    )
    .unwrap();
    config.posts = false;
    config
}

#[test]
fn both_sides_show_certificates() {
    let server = start(certificates("2"));
    let tier = RemoteTier::open(config(&server, true)).unwrap();
    assert!(write(&tier, 0..200).iter().all(Result::is_ok));
    assert_eq!(read_all(&tier, 0..200), (200, 0));
    drop(tier);
    assert_eq!(server.keys(), Vec::<String>::new());
    let text = RemoteTier::open(config(&server, false))
        .unwrap_err()
        .to_string();
    assert!(text.to_lowercase().contains("certificate"), "{text}");
    let mut stranger = config(&server, true);
    stranger.tls = Tls::default();
    let text = RemoteTier::open(stranger).unwrap_err().to_string();
    assert!(text.contains("--remote-ca"), "{text}");
}

#[test]
fn an_expired_certificate_is_refused() {
    let server = start(certificates("-1"));
    let text = RemoteTier::open(config(&server, true))
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("xpired") && text.contains("renew the certificate"),
        "{text}"
    );
}
