//! Differences that are expected, each with its reason: tests/conformance/expected.txt.
//!
//! An entry is a line of four fields and a reason, indented below it:
//!
//! ```text
//! program | test | alone | under zcache
//!     Why.
//! ```
//!
//! In a field `*` stands for any text. The reason `As above.` is that of the entry before. `#` begins a comment.

use super::results::Verdict;

/// One expected difference.
struct Entry {
    program: String,
    test: String,
    alone: String,
    under: String,
    reason: String,
    /// It occurred, or could not be told.
    met: bool,
}

/// The reason of an entry that has that of the entry before.
const SAME: &str = "As above.";

/// The whole list.
pub(super) struct Expected(Vec<Entry>);

impl Expected {
    /// Reads the list.
    ///
    /// # Errors
    /// A line is none of the form, or an entry has no reason.
    pub(super) fn parse(text: &str) -> Result<Expected, String> {
        let mut entries: Vec<Entry> = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            if line.starts_with(' ') {
                let entry = entries
                    .last_mut()
                    .ok_or(format!("line {number}: a reason before the first entry"))?;
                if !entry.reason.is_empty() {
                    entry.reason.push(' ');
                }
                entry.reason.push_str(line.trim());
                continue;
            }
            let fields: Vec<&str> = line.split(" | ").map(str::trim).collect();
            let [program, test, alone, under] = fields[..] else {
                return Err(format!("line {number}: four fields are wanted: {line}"));
            };
            entries.push(Entry {
                program: program.to_owned(),
                test: test.to_owned(),
                alone: alone.to_owned(),
                under: under.to_owned(),
                reason: String::new(),
                met: false,
            });
        }
        for at in 1..entries.len() {
            if entries[at].reason == SAME {
                entries[at].reason = entries[at - 1].reason.clone();
            }
        }
        match entries.iter().find(|entry| entry.reason.is_empty()) {
            Some(entry) => Err(format!("{} has no reason", entry.text())),
            None => Ok(Expected(entries)),
        }
    }

    /// Why this difference is expected; nothing if it is not.
    pub(super) fn reason(
        &mut self,
        program: &str,
        test: &str,
        alone: Verdict,
        under: Verdict,
    ) -> Option<String> {
        let entry = self.0.iter_mut().find(|entry| {
            matches(&entry.program, program)
                && matches(&entry.test, test)
                && matches(&entry.alone, &alone.to_string())
                && matches(&entry.under, &under.to_string())
        })?;
        entry.met = true;
        Some(entry.reason.clone())
    }

    /// Takes note that this test does not say whether an expected difference occurs.
    pub(super) fn excuse(&mut self, program: &str, test: &str) {
        for entry in &mut self.0 {
            entry.met |= matches(&entry.program, program) && matches(&entry.test, test);
        }
    }

    /// What was expected of these programs and did not occur.
    pub(super) fn unmet(&self, programs: &[String]) -> Vec<String> {
        let is_of = |entry: &&Entry| {
            let mut programs = programs.iter();
            programs.any(|program| matches(&entry.program, program))
        };
        let unmet = self.0.iter().filter(|entry| !entry.met).filter(is_of);
        unmet.map(Entry::text).collect()
    }
}

impl Entry {
    fn text(&self) -> String {
        format!(
            "{} | {} | {} | {}",
            self.program, self.test, self.alone, self.under
        )
    }
}

/// Whether a text is of a pattern, in which `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => text.strip_prefix(before).is_some_and(|rest| {
            rest.char_indices()
                .map(|(at, _)| at)
                .chain([rest.len()])
                .any(|at| matches(after, &rest[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, text) in [
            ("*", ""),
            ("*", "all"),
            ("zeropage on *", "zeropage on anon"),
            ("* on *", "move on shmem"),
            ("exact", "exact"),
            ("a*b*c", "abbc"),
        ] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("", "all"),
            ("zeropage on *", "a zeropage on anon"),
            ("* on", "move on shmem"),
            ("exact", "exactly"),
            ("a*b*c", "acb"),
        ] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn reasons_may_be_long_and_must_be_there() {
        let mut list = Expected::parse(
            "# a comment\n\nmm/* | * | ok | signal *\n    First\n    and second.\nfutex/wait | * | * | *\n    Third.\nfutex/requeue | * | * | *\n    As above.\n",
        )
        .unwrap();
        let reason = list.reason("mm/cow", "leak", Verdict::Ok, Verdict::Signal(7));
        assert_eq!(reason.as_deref(), Some("First and second."));
        assert_eq!(
            list.reason("mm/cow", "leak", Verdict::Ok, Verdict::Hung),
            None
        );
        let reason = list.reason("futex/requeue", "many", Verdict::Ok, Verdict::Hung);
        assert_eq!(reason.as_deref(), Some("Third."));
        assert_eq!(
            list.unmet(&["mm/cow".into(), "futex/wait".into()]),
            ["futex/wait | * | * | *"]
        );
        assert_eq!(list.unmet(&["mm/cow".into()]), [""; 0]);

        for wrong in [
            "mm/cow | leak | ok | not ok\n",
            "mm/cow | leak | ok\n    Why.\n",
            "    Why.\n",
        ] {
            assert!(Expected::parse(wrong).is_err(), "{wrong}");
        }
    }
}
