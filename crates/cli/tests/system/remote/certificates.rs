//! Certificates that a test makes: who signs, a server's, a client's, and one that has expired.

use crate::support::{TempDir, tool};
use std::path::PathBuf;
use std::process::Command;

/// Files of one authority.
pub(super) struct Certificates {
    files: TempDir,
}

impl Certificates {
    /// The server's certificate is good until so many days from now, or was until so many days ago.
    pub(super) fn new(days: i64) -> Certificates {
        let files = TempDir::new("certificates");
        let made = Certificates { files };
        made.openssl(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=authority \
             -keyout ca.key -out ca.crt -addext keyUsage=critical,keyCertSign",
        );
        made.sign("server", days);
        made.sign("client", 30);
        made
    }

    fn sign(&self, name: &str, days: i64) {
        std::fs::write(
            self.files.file("extensions"),
            "subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth,clientAuth\n",
        )
        .expect("a file of extensions");
        self.openssl(&format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr"
        ));
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days {days} -extfile extensions -out {name}.crt"
        ));
    }

    fn openssl(&self, words: &str) {
        tool(
            "openssl",
            Command::new("openssl")
                .args(words.split_whitespace())
                .current_dir(self.files.path()),
        );
    }

    pub(super) fn ca(&self) -> PathBuf {
        self.files.file("ca.crt")
    }

    pub(super) fn server(&self) -> PathBuf {
        self.files.file("server.crt")
    }

    pub(super) fn key(&self) -> PathBuf {
        self.files.file("server.key")
    }

    pub(super) fn client(&self) -> (PathBuf, PathBuf) {
        (self.files.file("client.crt"), self.files.file("client.key"))
    }
}
