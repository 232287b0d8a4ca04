//! What a result has to say about the machine it comes from.
//!
//! Not on the data path. Facts that cannot be read are said to be unknown, never guessed.

use std::fmt::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::files;
use crate::size::MIB;

/// The machine and the version measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// CPU model and number of CPUs.
    pub(crate) cpu: String,
    /// RAM in bytes.
    pub(crate) ram_bytes: u64,
    /// Kernel release.
    pub(crate) kernel: String,
    /// Setting of transparent huge pages.
    pub(crate) huge_pages: String,
    /// Swap read-ahead: a power of two of pages.
    pub(crate) page_cluster: String,
    /// Commit measured, with a mark when files differ from it.
    pub(crate) commit: String,
}

impl Machine {
    /// Writes the lines that a report begins with.
    pub(crate) fn describe(&self, text: &mut String) -> std::fmt::Result {
        writeln!(
            text,
            "- machine: {}, {} MiB RAM; kernel {}",
            self.cpu,
            self.ram_bytes / MIB,
            self.kernel
        )?;
        writeln!(text, "- commit: {}", self.commit)
    }

    /// Reads the facts.
    pub(crate) fn read() -> Machine {
        let proc = |path: &str| files::read(Path::new(path)).unwrap_or_else(|_| "unknown".into());
        let cpu_info = proc("/proc/cpuinfo");
        let model = cpu_info
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
            .map_or("unknown CPU", |(_, model)| model);
        let cpus = std::thread::available_parallelism().map_or(0, usize::from);
        let ram_kib = files::read_field(Path::new("/proc/meminfo"), "MemTotal:").unwrap_or(0);
        Machine {
            cpu: format!("{model}, {cpus} CPUs"),
            ram_bytes: ram_kib << 10,
            kernel: proc("/proc/sys/kernel/osrelease"),
            huge_pages: chosen(&proc("/sys/kernel/mm/transparent_hugepage/enabled")),
            page_cluster: proc("/proc/sys/vm/page-cluster"),
            commit: commit(),
        }
    }
}

/// The word in brackets of a sysfs choice such as `always [madvise] never`.
fn chosen(choices: &str) -> String {
    let inside = choices
        .split_once('[')
        .and_then(|(_, rest)| rest.split_once(']'));
    inside.map_or(choices, |(word, _)| word).to_owned()
}

fn commit() -> String {
    let directory = env!("CARGO_MANIFEST_DIR");
    let git = [
        "-C",
        directory,
        "describe",
        "--always",
        "--dirty",
        "--abbrev=12",
    ];
    files::command("git", &git).unwrap_or_else(|_| "unknown".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chosen_word() {
        assert_eq!(chosen("always [madvise] never"), "madvise");
        assert_eq!(chosen("unknown"), "unknown");
    }
}
