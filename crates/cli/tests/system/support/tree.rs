//! Looking at processes through /proc, and sending them signals.

use super::tool;
use std::path::PathBuf;
use std::process::Command;

/// What `setpriv` is told for a user who has nothing.
pub(crate) const WITHOUT_RIGHTS: [&str; 6] = [
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "--inh-caps=-all",
    "--bounding-set=-all",
    "--no-new-privs",
];

/// One process as /proc shows it.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) parent: u32,
    /// The kernel's name for it, at most 15 bytes.
    pub(crate) name: String,
    /// One letter, as in ps: R, S, D, T, Z.
    pub(crate) state: char,
}

fn process(pid: u32) -> Option<Process> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (open, close) = (text.find('(')?, text.rfind(')')?);
    let mut rest = text.get(close + 1..)?.split_whitespace();
    Some(Process {
        pid,
        name: text.get(open + 1..close)?.to_string(),
        state: rest.next()?.chars().next()?,
        parent: rest.next()?.parse().ok()?,
    })
}

/// All living descendants of `root`, parents before children; zombies are not among them.
pub(crate) fn descendants(root: u32) -> Vec<Process> {
    let all: Vec<Process> = std::fs::read_dir("/proc")
        .expect("/proc is mounted")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(process)
        .collect();
    let mut members = vec![root];
    let mut found: Vec<Process> = Vec::new();
    let mut at = 0;
    while let Some(&parent) = members.get(at) {
        for child in all.iter().filter(|process| process.parent == parent) {
            members.push(child.pid);
            if child.state != 'Z' {
                found.push(child.clone());
            }
        }
        at += 1;
    }
    found
}

/// The first living descendant of `root` with this name.
pub(crate) fn named(root: u32, name: &str) -> Option<Process> {
    descendants(root)
        .into_iter()
        .find(|process| process.name == name)
}

/// Sends a signal by its name, such as `KILL`; a process that is gone already is no error.
pub(crate) fn signal(pid: u32, name: &str) {
    let _ = Command::new("kill")
        .arg("-s")
        .arg(name)
        .arg(pid.to_string())
        .output();
}

/// The descriptor files (below /proc) of `pid` that are unlinked regular files: where a pager keeps its swap file.
pub(crate) fn unlinked_files(pid: u32) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            std::fs::read_link(path).is_ok_and(|target| {
                let target = target.to_string_lossy().into_owned();
                target.ends_with(" (deleted)")
                    && !target.starts_with("/memfd:")
                    && !target.starts_with("/dev/")
            })
        })
        .filter(|path| std::fs::metadata(path).is_ok_and(|data| data.is_file() && data.len() > 0))
        .collect()
}

/// What every descendant is doing, for a report about a hang.
pub(crate) fn describe(root: u32) -> String {
    let mut text = String::new();
    for process in descendants(root) {
        text += &format!("{process:?}\n");
        let Ok(tasks) = std::fs::read_dir(format!("/proc/{}/task", process.pid)) else {
            continue;
        };
        for task in tasks.flatten().take(12) {
            let read =
                |name: &str| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
            text += &format!(
                "  task {} wchan {} syscall {}  stack {}\n",
                task.file_name().to_string_lossy(),
                read("wchan"),
                read("syscall").trim(),
                read("stack")
                    .lines()
                    .take(6)
                    .collect::<Vec<_>>()
                    .join(" | ")
            );
        }
    }
    text
}

/// Whether the tests run as root; where they must, this fails with the reason.
pub(crate) fn need_root() {
    let id = tool("coreutils", Command::new("id").arg("-u"));
    assert_eq!(
        id.trim(),
        "0",
        "this test needs root: it mounts a filesystem or drops privileges"
    );
}
