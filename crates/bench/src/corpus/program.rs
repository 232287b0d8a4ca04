//! One program of the corpus: prepared, started, awaited, stopped while its pages are read, ended.
//!
//! Of the processes that it starts, the one with the most anonymous memory is taken. Waits have a bound:
//! a program that does not get to its moment is an error that names it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use zcache_measure::{Source, Target, sample};

use super::manifest::Entry;
use crate::host::{HostError, Interrupt};

/// The longest that a program may take to its moment.
const TIME_MAX: Duration = Duration::from_secs(180);
/// How often a program is looked at.
const POLL: Duration = Duration::from_millis(5);
/// C headers that are taken as input, together in bytes.
const HEADERS_BYTES: u64 = 10 << 20;
/// The largest of them: generated tables say little about other text.
const HEADER_BYTES_MAX: u64 = 200 << 10;

/// Where a program's standard error goes, in its folder.
const ERRORS: &str = "errors";

/// A program and what it does.
pub(super) struct Program {
    pub(super) name: &'static str,
    pub(super) version: &'static [&'static str],
    pub(super) work: &'static str,
    /// Its command line; `{folder}` is where its files are.
    pub(super) line: &'static [&'static str],
    pub(super) prepare: Work,
    pub(super) moment: Moment,
}

/// What a program needs before and after its start.
pub(super) enum Work {
    /// A file of this name and content.
    Source(&'static str, &'static str),
    /// The same, and the names of C headers on its standard input.
    Headers(&'static str, &'static str),
    /// A large C++ file.
    Cxx,
    /// A large Rust file.
    Rust,
    /// Lines of C headers, sent through its socket.
    Redis,
    /// Lines of C headers as statements on its standard input.
    Sqlite,
}

/// When the pages are taken.
#[derive(Clone, Copy)]
pub(super) enum Moment {
    /// When it says "ready".
    Ready,
    /// When its largest process holds so many bytes.
    Holds(u64),
    /// When it has answered all that it was sent.
    Fed,
}

/// A started program; its whole process group is ended with it.
struct Live {
    child: Child,
    lines: Receiver<String>,
    folder: PathBuf,
}

impl Drop for Live {
    fn drop(&mut self) {
        // Processes that have ended already are what is wanted.
        let _ = killpg(
            Pid::from_raw(self.child.id().cast_signed()),
            Signal::SIGKILL,
        );
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Program {
    /// Runs the program to its moment and writes its pages into the corpus's folder.
    pub(super) fn sample(
        &self,
        corpus: &Path,
        pages: u64,
        seed: u64,
        interrupt: &Interrupt,
    ) -> Result<Entry, HostError> {
        let mut live = self.start(corpus)?;
        let pid = self.wait(&mut live, interrupt).inspect_err(|_| {
            if let Ok(said) = fs::read_to_string(live.folder.join(ERRORS)) {
                eprint!("{said}");
            }
        })?;
        // So that the pages are those of one moment; it is ours and ends here.
        let stopped = Pid::from_raw(pid);
        kill(stopped, Signal::SIGSTOP).map_err(|errno| self.failed(errno.desc()))?;
        let failed = |error: zcache_measure::MeasureError| self.failed(&error.to_string());
        let source = Source::open(&Target::Process(pid)).map_err(failed)?;
        let copy = sample(&source, pages, seed, |_| ());
        drop(live);
        let file = format!("{}.pages", self.name);
        let path = corpus.join(&file);
        fs::write(&path, copy.pages.as_flattened()).map_err(HostError::file(&path))?;
        Ok(Entry {
            name: self.name.into(),
            version: self.version()?,
            work: self.work.into(),
            moment: self.moment.to_string(),
            file,
            pages: copy.pages.len() as u64,
            resident_pages: source.pages(),
        })
    }

    /// The process whose pages are to be taken, at the moment for it.
    fn wait(&self, live: &mut Live, interrupt: &Interrupt) -> Result<i32, HostError> {
        let deadline = Instant::now() + TIME_MAX;
        self.feed(live)?;
        loop {
            if interrupt.came() {
                return Err(HostError::Interrupted);
            }
            if let Some(pid) = self.at_moment(live)? {
                return Ok(pid);
            }
            if Instant::now() > deadline {
                return Err(self.failed("it did not get to its moment in time"));
            }
            std::thread::sleep(POLL);
        }
    }

    fn failed(&self, detail: &str) -> HostError {
        HostError::Command {
            line: self.line.join(" "),
            detail: format!("{detail} (the packages are in tests/packages.txt)"),
        }
    }

    fn version(&self) -> Result<String, HostError> {
        let output = Command::new(self.version[0])
            .args(&self.version[1..])
            .stdin(Stdio::null())
            .output()
            .map_err(|error| self.failed(&error.to_string()))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let first = text.lines().next().unwrap_or("unknown");
        // Some add the build's date, its hash and host.
        let words = first
            .split_whitespace()
            .filter(|word| !word.starts_with('('));
        let words: Vec<&str> = words
            .map(|word| word.trim_end_matches(')'))
            .take(3)
            .collect();
        Ok(words.join(" "))
    }

    fn start(&self, corpus: &Path) -> Result<Live, HostError> {
        let folder = corpus.join(format!("{}.work", self.name));
        fs::create_dir(&folder).map_err(HostError::file(&folder))?;
        let folder = folder.canonicalize().map_err(HostError::file(&folder))?;
        let file = |name: &str, content: &str| {
            let path = folder.join(name);
            fs::write(&path, content).map_err(HostError::file(&path))
        };
        match &self.prepare {
            Work::Source(name, content) | Work::Headers(name, content) => file(name, content)?,
            Work::Cxx => file("many.cc", &cxx())?,
            Work::Rust => file("many.rs", &rust())?,
            Work::Redis | Work::Sqlite => {}
        }
        let text = folder.display().to_string();
        let words: Vec<String> = self
            .line
            .iter()
            .map(|word| word.replace("{folder}", &text))
            .collect();
        let errors = folder.join(ERRORS);
        let errors = File::create(&errors).map_err(HostError::file(&errors))?;
        let mut child = Command::new(&words[0])
            .args(&words[1..])
            .env("GOCACHE", folder.join("cache"))
            .env("TMPDIR", &folder)
            .current_dir(&folder)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .map_err(|error| self.failed(&error.to_string()))?;
        let (sender, lines) = channel();
        let stdout = child.stdout.take();
        std::thread::spawn(move || {
            // Ends with the program, whose end closes the pipe.
            let Some(stdout) = stdout else { return };
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Live {
            child,
            lines,
            folder,
        })
    }

    /// Gives a program its input.
    fn feed(&self, live: &mut Live) -> Result<(), HostError> {
        let failed = |error: std::io::Error| self.failed(&format!("its input: {error}"));
        let input = live
            .child
            .stdin
            .as_mut()
            .ok_or_else(|| self.failed("it has no input"))?;
        match &self.prepare {
            Work::Headers(..) => {
                let names: Vec<String> = headers()?
                    .iter()
                    .map(|path| path.display().to_string())
                    .collect();
                writeln!(input, "{}\n", names.join("\n")).map_err(failed)?;
            }
            Work::Sqlite => input.write_all(statements()?.as_bytes()).map_err(failed)?,
            Work::Redis => {
                let socket = live.folder.join("redis");
                let start = Instant::now();
                while !socket.exists() && start.elapsed() < TIME_MAX {
                    std::thread::sleep(POLL);
                }
                store_lines(&socket).map_err(failed)?;
            }
            _ => {}
        }
        input.flush().map_err(failed)
    }

    /// The process whose pages are to be taken, when it is time.
    fn at_moment(&self, live: &mut Live) -> Result<Option<i32>, HostError> {
        let ended = live
            .child
            .try_wait()
            .map_err(|error| self.failed(&error.to_string()))?;
        if let Some(status) = ended {
            return Err(self.failed(&format!("it ended too early: {status}")));
        }
        let arrived = match self.moment {
            Moment::Fed | Moment::Holds(_) => true,
            Moment::Ready => live.lines.try_iter().any(|line| line == "ready"),
        };
        if !arrived {
            return Ok(None);
        }
        let group = live.child.id().cast_signed();
        let largest = group_members(group).into_iter().max();
        let Some((bytes, pid)) = largest else {
            return Ok(None);
        };
        match self.moment {
            Moment::Holds(least) if bytes < least => Ok(None),
            _ => Ok(Some(pid)),
        }
    }
}

impl std::fmt::Display for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Moment::Ready | Moment::Fed => write!(f, "when done"),
            Moment::Holds(bytes) => write!(f, "at {} MiB", bytes >> 20),
        }
    }
}

/// The processes of a group with their anonymous memory in bytes.
fn group_members(group: i32) -> Vec<(u64, i32)> {
    let Ok(folder) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = folder.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let member = |pid: i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, rest) = stat.rsplit_once(')')?;
        let of: i32 = rest.split_whitespace().nth(2)?.parse().ok()?;
        let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
        let mut fields = statm
            .split_whitespace()
            .skip(1)
            .map_while(|field| field.parse::<u64>().ok());
        let (resident, shared) = (fields.next()?, fields.next()?);
        (of == group).then_some((resident.saturating_sub(shared) << 12, pid))
    };
    pids.filter_map(member).collect()
}

/// C and C++ headers of the system, in the order of their names.
fn headers() -> Result<Vec<PathBuf>, HostError> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from("/usr/include")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(HostError::file(&folder))? {
            let path = entry.map_err(HostError::file(&folder))?.path();
            match fs::symlink_metadata(&path) {
                Ok(data) if data.is_dir() => folders.push(path),
                Ok(data) if data.is_file() && data.len() <= HEADER_BYTES_MAX => {
                    found.push((path, data.len()));
                }
                _ => {}
            }
        }
    }
    found.sort();
    let mut bytes = 0;
    found.retain(|(_, len)| {
        bytes += len;
        bytes <= HEADERS_BYTES
    });
    Ok(found.into_iter().map(|(path, _)| path).collect())
}

/// Lines of the headers with their file and number; bytes that are not ASCII are left out.
fn lines() -> Result<Vec<(String, usize, String)>, HostError> {
    let mut lines = Vec::new();
    for path in headers()? {
        let file = File::open(&path).map_err(HostError::file(&path))?;
        let name = path.display().to_string();
        for (number, line) in BufReader::new(file).split(b'\n').enumerate() {
            let line = line.map_err(HostError::file(&path))?;
            let text = line.into_iter().filter(|byte| (32..127).contains(byte));
            lines.push((name.clone(), number, text.map(char::from).collect()));
        }
    }
    Ok(lines)
}

fn statements() -> Result<String, HostError> {
    let mut text = String::from(
        "create table line(file text, number integer, text text, length integer);\n\
         create index by_text on line(text); create index by_file on line(file, number);\nbegin;\n",
    );
    for (file, number, line) in lines()? {
        let line = line.replace('\'', "''");
        text += &format!(
            "insert into line values('{file}', {number}, '{line}', {});\n",
            line.len()
        );
    }
    Ok(text + "commit;\n.system echo ready\n")
}

/// Stores each line as a hash and waits for the answer to the last.
fn store_lines(socket: &Path) -> std::io::Result<()> {
    let lines = lines().map_err(|error| std::io::Error::other(error.to_string()))?;
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(TIME_MAX))?;
    let mut answers = BufReader::new(stream.try_clone()?);
    let count = lines.len();
    let reader = std::thread::spawn(move || {
        let mut line = String::new();
        for _ in 0..count {
            line.clear();
            answers.read_line(&mut line)?;
            if !line.starts_with(':') {
                return Err(std::io::Error::other(line));
            }
        }
        Ok(())
    });
    let mut commands = String::new();
    for (file, number, text) in lines {
        let number = number.to_string();
        let key = format!("{file}:{number}");
        let words = [
            "HSET", &key, "file", &file, "number", &number, "text", &text,
        ];
        commands += &format!("*{}\r\n", words.len());
        for word in words {
            commands += &format!("${}\r\n{word}\r\n", word.len());
        }
        if commands.len() > 1 << 16 {
            stream.write_all(commands.as_bytes())?;
            commands.clear();
        }
    }
    stream.write_all(commands.as_bytes())?;
    reader
        .join()
        .unwrap_or_else(|_| Err(std::io::Error::other("the reader of its answers panicked")))
}

/// C++ that instantiates many templates of the standard library.
fn cxx() -> String {
    let mut text = String::from("#include <bits/stdc++.h>\n");
    for n in 0..400 {
        text += &format!(
            "struct S{n} {{ int a; std::string b; double c[{}]; bool operator<(const S{n} &o) const {{ return std::tie(a, b) < std::tie(o.a, o.b); }} }};\n\
             int use{n}(std::vector<S{n}> v) {{ std::map<S{n}, std::set<int>> m; std::sort(v.begin(), v.end());\n\
             for (auto &s : v) m[s].insert(s.a + {n}); std::unordered_map<std::string, S{n}> u; for (auto &s : v) u[s.b] = s;\n\
             std::regex r(\"a{n}+b\"); return int(m.size() + u.size()) + std::regex_match(v[0].b, r); }}\n",
            n % 7 + 1
        );
    }
    text
}

/// Rust with many types, derived traits and uses of the standard library.
fn rust() -> String {
    let mut text = String::from("use std::collections::{BTreeMap, HashMap};\n");
    for n in 0..700 {
        text += &format!(
            "#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]\n\
             pub struct S{n} {{ pub a: u32, pub b: String, pub c: Vec<(u64, Option<String>)>, pub d: [u8; {}] }}\n\
             pub fn use{n}(mut v: Vec<S{n}>) -> (usize, String) {{ v.sort(); let m: HashMap<S{n}, usize> = v.iter().cloned().zip(0..).collect();\n\
             let b: BTreeMap<String, Vec<&S{n}>> = v.iter().fold(BTreeMap::new(), |mut b, s| {{ b.entry(s.b.clone()).or_insert_with(Vec::new).push(s); b }});\n\
             (m.len() + b.len() + {n}, format!(\"{{:?}}\", b)) }}\n",
            n % 9 + 1
        );
    }
    text
}
