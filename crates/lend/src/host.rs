//! What this machine has left, and whether its programs wait for memory.
//! Sources: `proc_meminfo(5)`, the kernel's `psi.rst`.

use std::fs;

use crate::cgroup::Groups;

/// One look at the machine.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Sight {
    /// What could be used without swapping.
    pub(crate) available_bytes: u64,
    /// Of the last 10 s, the part in which somebody waited for memory, in percent.
    pub(crate) stalled_percent: f64,
}

/// The machine, or the part of it that limits leave.
pub(crate) struct Host {
    groups: Groups,
}

impl Host {
    pub(crate) fn new() -> Host {
        Host {
            groups: Groups::of_this_process(),
        }
    }

    pub(crate) fn look(&self) -> Sight {
        let machine = meminfo("MemAvailable");
        let group = self.groups.available_bytes();
        let everywhere = || fs::read_to_string("/proc/pressure/memory").ok();
        let pressure = self.groups.pressure().or_else(everywhere);
        Sight {
            // Who cannot look lends on.
            available_bytes: [machine, group]
                .into_iter()
                .flatten()
                .min()
                .unwrap_or(u64::MAX),
            stalled_percent: stalled(&pressure.unwrap_or_default()).unwrap_or(0.0),
        }
    }

    /// All that there is.
    pub(crate) fn total_bytes(&self) -> u64 {
        let sizes = [meminfo("MemTotal"), self.groups.limit_bytes()];
        sizes.into_iter().flatten().min().unwrap_or(0)
    }
}

fn meminfo(name: &str) -> Option<u64> {
    field(&fs::read_to_string("/proc/meminfo").ok()?, name)
}

/// A field of /proc/meminfo, in bytes.
fn field(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

/// The short average of stalls of some task.
fn stalled(text: &str) -> Option<f64> {
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    some.split(' ')
        .find_map(|word| word.strip_prefix("avg10="))?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_in_their_units() {
        let text = "MemTotal:       24683520 kB\nMemFree:  1 kB\nMemAvailable:   23465984 kB\n";
        assert_eq!(field(text, "MemAvailable"), Some(23_465_984 << 10));
        assert_eq!(field(text, "Mem"), None);
        let text = "some avg10=12.50 avg60=1.00 avg300=0.00 total=437\nfull avg10=3.00 avg60=0.00 avg300=0.00 total=1\n";
        assert_eq!(stalled(text), Some(12.5));
        assert_eq!(stalled(""), None);
    }

    #[test]
    fn this_machine_is_seen() {
        let host = Host::new();
        let available = host.look().available_bytes;
        assert!(
            available > 1 << 20 && available <= host.total_bytes(),
            "{available}"
        );
    }
}
