//! What the console of a guest says about how it went.

/// Lines of a kernel that is not well. Messages of the tests begin with `@@` and are not looked at.
const ALARMS: &[&str] = &[
    "BUG:",
    "BUG at",
    "WARNING:",
    "Oops",
    "general protection fault",
    "KASAN",
    "possible circular locking",
    "possible recursive locking",
    "inconsistent lock state",
    "suspicious RCU usage",
    "sleeping function called",
    "blocked for more than",
    "soft lockup",
    "rcu_sched self-detected",
    "Kernel panic",
    "frames are leaked",
    "were left after swapoff",
    DAMAGED,
    "Bad page",
    "bad swap",
    "Bad swap",
    "EXT4-fs error",
    "Unused swap offset",
];

/// What a kernel says whose memory was damaged on purpose.
const DAMAGED: &str = "is damaged in memory";

/// What is said in these words and is no alarm.
const HARMLESS: &[&str] = &["Lock dependency validator"];

/// How a guest ended.
#[derive(Default, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) passed: Vec<String>,
    pub(super) failed: Vec<String>,
    pub(super) alarms: Vec<String>,
    /// Results of measurements.
    pub(super) rows: Vec<String>,
    /// Bits of its memory were flipped.
    pub(super) flipped: bool,
    /// It came to its end.
    pub(super) ended: bool,
}

impl Verdict {
    /// Takes note of one line of the console.
    pub(super) fn read(&mut self, line: &str) {
        if let Some(said) = line.strip_prefix("@@ ") {
            if let Some(name) = said.strip_prefix("pass ") {
                self.passed.push(name.to_owned());
            } else if let Some(what) = said.strip_prefix("fail ") {
                self.failed.push(what.to_owned());
            } else if let Some(row) = said.strip_prefix("row ") {
                self.rows.push(row.to_owned());
            } else if said.starts_with("flip ") {
                self.flipped = true;
            } else if said == "end" {
                self.ended = true;
            }
        } else if ALARMS.iter().any(|alarm| line.contains(alarm))
            && !HARMLESS.iter().any(|harmless| line.contains(harmless))
            && !(self.flipped && line.contains(DAMAGED))
        {
            self.alarms.push(line.to_owned());
        }
    }

    /// Whether all is well, with so many scenarios.
    pub(super) fn judge(&self, scenarios: usize) -> Result<(), String> {
        let mut reasons: Vec<String> = self
            .failed
            .iter()
            .map(|what| format!("failed: {what}"))
            .collect();
        reasons.extend(
            self.alarms
                .iter()
                .map(|line| format!("the kernel says: {line}")),
        );
        if !self.ended {
            reasons.push("the guest did not come to its end".into());
        }
        if self.passed.len() + self.failed.len() != scenarios {
            let ended = self.passed.len() + self.failed.len();
            reasons.push(format!("{ended} of {scenarios} scenarios ended"));
        }
        if reasons.is_empty() {
            Ok(())
        } else {
            Err(reasons.join("\n  "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Verdict;

    fn judged(lines: &[&str], scenarios: usize) -> Result<(), String> {
        let mut verdict = Verdict::default();
        lines.iter().for_each(|line| verdict.read(line));
        verdict.judge(scenarios)
    }

    #[test]
    fn a_guest_that_did_all_is_well() {
        let lines = [
            "@@ begin oom",
            "[   50.9] Out of memory: Killed process 377 (init)",
            "@@ pass oom 20.9",
            "@@ end",
        ];
        assert_eq!(judged(&lines, 1), Ok(()));
    }

    #[test]
    fn every_way_to_fail_is_seen() {
        let pass = "@@ pass oom 20.9";
        assert!(judged(&[pass, "@@ fail swapoff: wrong bytes", "@@ end"], 2).is_err());
        assert!(
            judged(&[pass], 1)
                .unwrap_err()
                .contains("did not come to its end")
        );
        assert!(judged(&[pass, "@@ end"], 2).unwrap_err().contains("1 of 2"));
        let warned = [
            "[ 1.0] WARNING: CPU: 0 PID: 1 at mm/zswap.c:1",
            pass,
            "@@ end",
        ];
        assert!(judged(&warned, 1).unwrap_err().contains("zswap.c:1"));
        let damaged = [
            "[ 1.0] zcache: what is stored is damaged in memory",
            pass,
            "@@ end",
        ];
        assert!(judged(&damaged, 1).is_err());
        let on_purpose = ["@@ flip records", damaged[0], pass, "@@ end"];
        assert_eq!(judged(&on_purpose, 1), Ok(()));
        let leaked = ["[ 1.0] zcache: 3 frames are leaked", pass, "@@ end"];
        assert!(judged(&leaked, 1).is_err());
    }
}
