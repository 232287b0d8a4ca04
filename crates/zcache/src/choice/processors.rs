//! How long the processors that this process may use had nothing to do, as the
//! kernel counts it in `/proc/stat` (proc_stat(5)).

use std::fs;
use std::time::Duration;

/// Length of a tick of `/proc/stat`, which is the same on all of Linux.
const TICK_MS: u64 = 10;

/// See the module's description.
#[derive(Debug)]
pub(super) struct Processors(Vec<usize>);

impl Processors {
    pub(super) fn of_this_process() -> Processors {
        Processors(zcache_sys::process::cpus())
    }

    pub(super) fn count(&self) -> f64 {
        self.0.len().max(1) as f64
    }

    /// Idle time of all of them since the machine began; none where it cannot
    /// be read, as if they never were.
    pub(super) fn idle(&self) -> Duration {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        let ticks = stat.lines().filter_map(|line| self.idle_ticks(line));
        Duration::from_millis(ticks.sum::<u64>() * TICK_MS)
    }

    fn idle_ticks(&self, line: &str) -> Option<u64> {
        // The line of all processors together has no number.
        let (number, rest) = line.strip_prefix("cpu")?.split_once(' ')?;
        let number = number.parse().ok()?;
        self.0.contains(&number).then_some(())?;
        let fields = rest.split_ascii_whitespace();
        // user, nice and system come first; idle and iowait follow.
        let mut idle = fields.skip(3).map_while(|field| field.parse::<u64>().ok());
        Some(idle.next()? + idle.next().unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_is_that_of_the_processors_given() {
        let processors = Processors(vec![1, 12]);
        let ticks = |line: &str| processors.idle_ticks(line);
        assert_eq!(ticks("cpu  9 9 9 100 5 0 0"), None);
        assert_eq!(ticks("cpu0 9 9 9 100 5 0 0"), None);
        assert_eq!(ticks("cpu1 9 9 9 100 5 0 0"), Some(105));
        assert_eq!(ticks("cpu12 9 9 9 7"), Some(7));
        assert_eq!(ticks("intr 1 2 3"), None);
        assert_eq!(ticks("cpu1"), None);
        assert_eq!(processors.count(), 2.0);
    }

    #[test]
    fn idle_time_grows_no_faster_than_time() {
        let processors = Processors::of_this_process();
        let (at, before) = (std::time::Instant::now(), processors.idle());
        std::thread::sleep(Duration::from_millis(100));
        let (most, idle) = (at.elapsed(), processors.idle() - before);
        let slack = Duration::from_millis(TICK_MS * 4 * processors.0.len() as u64);
        assert!(idle <= most * processors.0.len() as u32 + slack, "{idle:?}");
    }
}
