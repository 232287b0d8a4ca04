//! A server that a test starts: valkey-server if the machine has it, else redis-server.

use super::certificates::Certificates;
use super::client::{Client, Reply};
use crate::support::{TempDir, eventually};
use std::ffi::OsString;
use std::fs::File;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

/// Ports that no outgoing connection is given.
const PORT_MIN: u16 = 21_000;
const PORT_MAX: u16 = 32_000;

/// A server that is not there after this is not coming.
const START: Duration = Duration::from_secs(30);

/// A port that nobody listens at.
pub(super) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let begin = (std::process::id() % 10_000) as u16;
        let port = PORT_MIN + (begin + number) % (PORT_MAX - PORT_MIN);
        if TcpListener::bind(("0.0.0.0", port)).is_ok() {
            return port;
        }
    }
}

/// The name of the server's program, which the test says once.
fn program() -> &'static str {
    static PROGRAM: OnceLock<&str> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        for name in ["valkey-server", "redis-server"] {
            if let Ok(output) = Command::new(name).arg("--version").output() {
                let version = String::from_utf8_lossy(&output.stdout);
                eprintln!("servers: {}", version.trim());
                return name;
            }
        }
        panic!("neither valkey-server nor redis-server is here; the Debian package redis-server has one (tests/packages.txt)");
    })
}

/// How a server is started.
#[derive(Clone)]
pub(super) struct Setup {
    options: Vec<OsString>,
    namespace: Option<String>,
    host: String,
    answers_plainly: bool,
}

impl Setup {
    /// One that evicts nothing and writes no files.
    pub(super) fn new() -> Setup {
        Setup {
            options: Vec::new(),
            namespace: None,
            host: "127.0.0.1".to_owned(),
            answers_plainly: true,
        }
        .option("maxmemory-policy", "noeviction")
        .option("save", "")
    }

    /// A line of its configuration; the last of a name counts.
    pub(super) fn option(mut self, name: &str, value: impl Into<OsString>) -> Setup {
        self.options.push(format!("--{name}").into());
        self.options.push(value.into());
        self
    }

    /// With a user who has these rights, in the words of an access list.
    pub(super) fn user(mut self, rights: &str) -> Setup {
        self.options.push("--user".into());
        self.options.extend(rights.split(' ').map(OsString::from));
        self
    }

    /// In this network namespace, at this address.
    pub(super) fn within(mut self, namespace: &str, host: &str) -> Setup {
        self.namespace = Some(namespace.to_owned());
        self.host = host.to_owned();
        self
    }

    /// It answers by TLS, and to nobody without.
    pub(super) fn by_tls(mut self, certificates: &Certificates) -> Setup {
        self.answers_plainly = false;
        self.option("tls-cert-file", certificates.server())
            .option("tls-key-file", certificates.key())
            .option("tls-ca-cert-file", certificates.ca())
    }

    /// Starts it.
    pub(super) fn start(self) -> Server {
        let mut server = Server {
            files: TempDir::new("server"),
            child: None,
            setup: self,
            port: free_port(),
        };
        server.spawn();
        server.wait_until_there();
        server
    }
}

/// A server under way, ended with the test.
pub(super) struct Server {
    files: TempDir,
    child: Option<Child>,
    setup: Setup,
    pub(super) port: u16,
}

impl Server {
    /// A server by itself with the settings that zcache wants.
    pub(super) fn start() -> Server {
        Setup::new().start()
    }

    /// What `--remote` takes.
    pub(super) fn url(&self) -> String {
        let scheme = match self.setup.answers_plainly {
            true => "redis",
            false => "rediss",
        };
        format!("{scheme}://{}:{}", self.setup.host, self.port)
    }

    /// The value of a line of its configuration.
    pub(super) fn option(&self, name: &str) -> String {
        let options = &self.setup.options;
        let at = options
            .iter()
            .position(|word| *word == *format!("--{name}"));
        let value = at.and_then(|at| options.get(at + 1));
        value
            .map(|value| value.to_string_lossy().into_owned())
            .unwrap_or_default()
    }

    fn spawn(&mut self) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.files.file("log"))
            .expect("a file for the server's log");
        // Whatever becomes of the test, the server ends with it.
        let mut words: Vec<OsString> = vec!["setpriv".into(), "--pdeathsig=KILL".into()];
        if let Some(namespace) = &self.setup.namespace {
            let entered = format!("--net=/run/netns/{namespace}");
            words.extend(["nsenter".into(), entered.into(), "--".into()]);
        }
        words.push(program().into());
        let port = self.port.to_string();
        let which = match self.setup.answers_plainly {
            true => "--port",
            false => "--tls-port",
        };
        for word in [which, &port, "--bind", &self.setup.host, "--dir"] {
            words.push(word.into());
        }
        words.push(self.files.path().into());
        if !self.setup.answers_plainly {
            words.extend(["--port".into(), "0".into()]);
        }
        words.extend(["--protected-mode".into(), "no".into()]);
        words.extend(self.setup.options.iter().cloned());
        let child = Command::new(&words[0])
            .args(&words[1..])
            .stdin(Stdio::null())
            .stderr(log.try_clone().expect("the log once more"))
            .stdout(log)
            .spawn()
            .expect("setpriv is in the Debian package util-linux");
        self.child = Some(child);
    }

    fn wait_until_there(&self) {
        let port = self.port;
        let answers = eventually(START, || {
            if !self.setup.answers_plainly {
                return self.client().is_some();
            }
            let reply = self.client().and_then(|mut client| client.ask(&[b"PING"]));
            reply.is_some_and(|reply| !reply.text().starts_with("LOADING"))
        });
        assert!(answers, "no server at port {port}: {}", self.log());
    }

    /// What it wrote.
    pub(super) fn log(&self) -> String {
        std::fs::read_to_string(self.files.file("log")).unwrap_or_default()
    }

    fn client(&self) -> Option<Client> {
        Client::connect(&self.setup.host, self.port)
    }

    /// Its answer; `None` when it does not answer.
    pub(super) fn try_ask(&self, words: &[&str]) -> Option<Reply> {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        self.client()?.ask(&words)
    }

    /// Its answer.
    #[track_caller]
    pub(super) fn ask(&self, words: &[&str]) -> Reply {
        let reply = self.try_ask(words);
        let reply = reply.unwrap_or_else(|| panic!("no answer to {words:?}: {}", self.log()));
        assert!(
            !matches!(reply, Reply::Refused(_)),
            "{words:?} was refused: {reply:?}"
        );
        reply
    }

    /// How many keys it has.
    #[track_caller]
    pub(super) fn keys(&self) -> usize {
        self.ask(&["DBSIZE"]).text().parse().expect("a number")
    }

    /// The names of its keys.
    pub(super) fn key_names(&self) -> Vec<String> {
        match self.ask(&["KEYS", "*"]) {
            Reply::List(names) => names.iter().map(Reply::text).collect(),
            other => panic!("no list of keys: {other:?}"),
        }
    }

    /// What a run or a mount that was killed has left ends with its lease.
    #[track_caller]
    pub(super) fn assert_all_keys_end(&self) {
        let names = self.key_names();
        assert!(names.len() > 100, "{} keys", names.len());
        for name in names {
            let left: i64 = self.ask(&["TTL", &name]).text().parse().expect("a number");
            assert!((1..=300).contains(&left), "{name} stays for {left} s");
        }
    }

    /// All of its values, one after the other.
    pub(super) fn values(&self) -> Vec<u8> {
        let mut all = Vec::new();
        for name in self.key_names() {
            if let Reply::Bytes(value) = self.ask(&["GET", &name]) {
                all.extend_from_slice(&value);
            }
        }
        all
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// `kill -9`.
    pub(super) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again where it was, and does not wait for it.
    pub(super) fn restart(&mut self) {
        self.kill();
        self.spawn();
    }

    /// Starts it again and waits until it answers.
    pub(super) fn come_back(&mut self) {
        self.restart();
        self.wait_until_there();
    }

    /// Stops or goes on, as SIGSTOP and SIGCONT have it.
    pub(super) fn signal(&self, name: &str) {
        crate::support::tree::signal(self.pid(), name);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
