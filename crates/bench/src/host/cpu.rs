//! CPU time of a run, from outside.
//!
//! `getrusage` knows only children that somebody waited for, which is each contender's own affair; so
//! the times of all processes in the run's cgroup are read while it runs. A process that starts and
//! ends between two looks is missed; what a process does after the last look, too: at 50 looks a
//! second the error is below 20 ms a process.

use std::collections::HashMap;
use std::path::Path;

use super::files;

/// Linux gives user space its times in ticks of a hundredth of a second on every architecture.
const TICKS_PER_SECOND: f64 = 100.0;

/// Index of the user time among the fields after the command name; the system time follows.
const USER_TIME: usize = 11;

/// The CPU time of all processes seen.
#[derive(Default)]
pub(super) struct CpuTime {
    ticks: HashMap<u32, u64>,
}

impl CpuTime {
    /// Looks at the processes of a cgroup, given its `cgroup.procs`.
    pub(super) fn sample(&mut self, procs: &Path) {
        let Ok(list) = files::read(procs) else { return };
        for pid in list.lines().filter_map(|line| line.parse().ok()) {
            // A process that ended since the list was read keeps its last value.
            if let Ok(stat) = files::read(Path::new(&format!("/proc/{pid}/stat")))
                && let Some(ticks) = ticks(&stat)
            {
                self.ticks.insert(pid, ticks);
            }
        }
    }

    /// User and system time of all of them together, in seconds.
    pub(super) fn seconds(&self) -> f64 {
        self.ticks.values().sum::<u64>() as f64 / TICKS_PER_SECOND
    }
}

/// User plus system time in a line of `/proc/PID/stat`; the name in it may hold spaces and brackets.
fn ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(USER_TIME);
    let user: u64 = times.next()?.parse().ok()?;
    let system: u64 = times.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_any_name() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194304 100 0 0 0 70 30 5 5 20 0 1 0 9 9 9";
        assert_eq!(ticks(stat), Some(100));
        assert_eq!(ticks("42 (a) S 1"), None);
    }
}
