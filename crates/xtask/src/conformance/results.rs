//! What a test program says about each of its tests.
//!
//! Three forms are read: TAP, as most of the kernel's selftests write it (`ok 3 name # SKIP why`); the lines of its
//! userfaultfd tests (`Testing name... done`); and the metrics and failures of stress-ng. What a program says in another form
//! is judged by its end alone.
//!
//! Runs are matched by names, and by TAP's numbers where a test's name depends on what became of it.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;

/// The name under which a program's own end stands among its tests.
pub(super) const END: &str = "(end)";

/// Whether all processes of a program had ended when it had.
const ALL_ENDED: &str = "(all ended)";

/// What became of one test.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    Ok,
    NotOk,
    Skip,
    /// Failed as the test's author expected.
    XFail,
    /// The program exited with this status.
    Exit(i32),
    /// The program died by this signal.
    Signal(i32),
    /// The program did not end in time.
    Hung,
    /// The program said nothing about it.
    Missing,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Ok => f.write_str("ok"),
            Verdict::NotOk => f.write_str("not ok"),
            Verdict::Skip => f.write_str("skip"),
            Verdict::XFail => f.write_str("xfail"),
            Verdict::Exit(status) => write!(f, "exit {status}"),
            Verdict::Signal(number) => write!(f, "signal {number}"),
            Verdict::Hung => f.write_str("hung"),
            Verdict::Missing => f.write_str("missing"),
        }
    }
}

/// One test of a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Test {
    /// Different from those of the other tests.
    pub(super) name: String,
    pub(super) verdict: Verdict,
    /// What the program calls it.
    said: String,
    /// The number that TAP gives it.
    number: Option<u32>,
}

/// The tests of one run in their order; the last are [`ALL_ENDED`] and [`END`].
#[derive(Default, Debug)]
pub(super) struct Results {
    pub(super) tests: Vec<Test>,
    occurrences: HashMap<String, usize>,
}

impl Results {
    /// Reads what a program said, and adds how it ended and whether it left processes behind.
    pub(super) fn read(said: &str, end: Verdict, left: bool) -> Results {
        let mut results = Results::default();
        // Tests of one program often share their names and differ in what runs them.
        let mut scenario = "";
        for line in said.lines() {
            if let Some(text) = line.strip_prefix("# [RUN] ") {
                scenario = text.trim();
            } else if let Some((name, verdict, number)) = tap(line) {
                let name = match (scenario, name) {
                    ("", name) => name.to_owned(),
                    (scenario, "") => scenario.to_owned(),
                    (scenario, name) => format!("{scenario}: {name}"),
                };
                results.add(&name, verdict, number);
            } else if let Some((name, verdict)) = userfaultfd(line).or_else(|| stress(line)) {
                results.add(&name, verdict, None);
            }
        }
        let ended = if left { Verdict::NotOk } else { Verdict::Ok };
        results.add(ALL_ENDED, ended, None);
        results.add(END, end, None);
        results
    }

    /// What became of each test of this run in `other`, and what `other` has beside these.
    pub(super) fn matched<'a>(&self, other: &'a Results) -> (Vec<Verdict>, Vec<&'a Test>) {
        // The surest first: no test is found twice.
        let mut found: Vec<Option<usize>> = vec![None; self.tests.len()];
        let mut taken = vec![false; other.tests.len()];
        match_by(self, other, (&mut found, &mut taken), |test| {
            Some((test.number?, test.said.as_str()))
        });
        match_by(self, other, (&mut found, &mut taken), |test| {
            Some(test.name.as_str())
        });
        match_by(self, other, (&mut found, &mut taken), |test| test.number);
        let verdict =
            |at: &Option<usize>| at.map_or(Verdict::Missing, |at| other.tests[at].verdict);
        let left = other.tests.iter().zip(taken);
        (
            found.iter().map(verdict).collect(),
            left.filter_map(|(test, taken)| (!taken).then_some(test))
                .collect(),
        )
    }

    /// Whether the program ended as in the other run, and left as much running.
    pub(super) fn ended_as(&self, other: &Results) -> bool {
        let ends = |results: &Results| {
            let tests = results.tests.iter();
            let ends = tests.filter(|test| [END, ALL_ENDED].contains(&test.name.as_str()));
            ends.map(|test| test.verdict).collect::<Vec<_>>()
        };
        ends(self) == ends(other)
    }

    fn add(&mut self, name: &str, verdict: Verdict, number: Option<u32>) {
        // All of a program may be skipped without a name.
        let name = match without_addresses(name) {
            name if name.is_empty() => "(unnamed)".to_owned(),
            name => name,
        };
        let count = self.occurrences.entry(name.clone()).or_default();
        *count += 1;
        let said = name;
        let name = match *count {
            1 => said.clone(),
            count => format!("{said} ({count})"),
        };
        self.tests.push(Test {
            name,
            verdict,
            said,
            number,
        });
    }
}

/// Finds for each test of `own` that has none yet the one of `other` that has the same key.
fn match_by<'a, K: Eq + Hash>(
    own: &'a Results,
    other: &'a Results,
    (found, taken): (&mut [Option<usize>], &mut [bool]),
    key: impl Fn(&'a Test) -> Option<K>,
) {
    let mut places = HashMap::new();
    for (at, test) in other.tests.iter().enumerate() {
        if let (false, Some(key)) = (taken[at], key(test)) {
            places.entry(key).or_insert(at);
        }
    }
    for (test, found) in own.tests.iter().zip(found) {
        if found.is_some() {
            continue;
        }
        *found = key(test).and_then(|key| places.remove(&key));
        if let Some(at) = *found {
            taken[at] = true;
        }
    }
}

/// `ok 3 name`, `not ok 4 - name # directive`.
fn tap(line: &str) -> Option<(&str, Verdict, Option<u32>)> {
    // What the test itself says may stand before it, without an end of line.
    let (passed, rest) = match line.split_once("not ok") {
        Some((before, rest)) if !before.starts_with('#') => (false, rest),
        _ => (true, line.strip_prefix("ok")?),
    };
    if !rest.is_empty() && !rest.starts_with(' ') {
        return None;
    }
    let (name, directive) = match rest.split_once("# ") {
        Some((name, directive)) => (name.trim(), directive.to_ascii_lowercase()),
        None => (rest.trim(), String::new()),
    };
    let first = name.split(' ').next().unwrap_or("");
    let number = first.parse().ok();
    let name = match number {
        Some(_) => name[first.len()..].trim_start(),
        None => name,
    };
    let name = name.strip_prefix("- ").unwrap_or(name);
    let verdict = if directive.starts_with("skip") {
        Verdict::Skip
    } else if directive.starts_with("xfail") || directive.starts_with("todo") {
        Verdict::XFail
    } else if passed {
        Verdict::Ok
    } else {
        Verdict::NotOk
    };
    Some((name, verdict, number))
}

/// `Testing name... done`. What fails there says why and ends the program.
fn userfaultfd(line: &str) -> Option<(String, Verdict)> {
    let (name, said) = line.strip_prefix("Testing ")?.split_once("... ")?;
    let verdict = if said.starts_with("done") {
        Verdict::Ok
    } else if said.starts_with("skipped") {
        Verdict::Skip
    } else {
        Verdict::NotOk
    };
    Some((name.to_owned(), verdict))
}

/// `stress-ng: fail:  [123] vm: what` and a row of its table: `stress-ng: metrc: [123] vm 87840 1.00 …`.
fn stress(line: &str) -> Option<(String, Verdict)> {
    let (kind, rest) = line.strip_prefix("stress-ng: ")?.split_once(':')?;
    let (_, text) = rest.split_once("] ")?;
    let mut words = text.split_whitespace();
    let name = words.next()?;
    match kind {
        "fail" => Some(("verified".to_owned(), Verdict::NotOk)),
        "metrc" => {
            let done: u64 = words.next()?.parse().ok()?;
            let verdict = if done > 0 {
                Verdict::Ok
            } else {
                Verdict::NotOk
            };
            Some((format!("{name} did something"), verdict))
        }
        _ => None,
    }
}

/// Addresses differ from run to run.
fn without_addresses(name: &str) -> String {
    let mut parts = name.split("0x");
    let mut text = parts.next().unwrap_or("").to_owned();
    for part in parts {
        text.push_str("0x");
        text.push_str(part.trim_start_matches(|c: char| c.is_ascii_hexdigit()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(said: &str) -> Vec<(String, Verdict)> {
        let results = Results::read(said, Verdict::Exit(0), false);
        let tests = results.tests.into_iter();
        let mut tests: Vec<_> = tests.map(|test| (test.name, test.verdict)).collect();
        assert_eq!(tests.pop(), Some((END.to_owned(), Verdict::Exit(0))));
        assert_eq!(tests.pop(), Some((ALL_ENDED.to_owned(), Verdict::Ok)));
        tests
    }

    fn one(line: &str) -> (String, Verdict) {
        let mut tests = read(line);
        assert_eq!(tests.len(), 1, "{line}: {tests:?}");
        tests.remove(0)
    }

    /// What became of the tests of one run in another, and the names that are left.
    fn matched(said: &str, other: &str) -> (Vec<Verdict>, Vec<String>) {
        let end = Verdict::Exit(0);
        let said = Results::read(said, end, false);
        let other = Results::read(other, end, true);
        let (mut verdicts, left) = said.matched(&other);
        assert_eq!(verdicts.pop(), Some(end));
        assert_eq!(verdicts.pop(), Some(Verdict::NotOk));
        (
            verdicts,
            left.iter().map(|test| test.name.clone()).collect(),
        )
    }

    #[test]
    fn tap_lines_say_what_became_of_a_test() {
        let cases = [
            ("ok 1 mmap() at base", "mmap() at base", Verdict::Ok),
            ("ok - a name", "a name", Verdict::Ok),
            (
                "not ok 52 global.user_notification",
                "global.user_notification",
                Verdict::NotOk,
            ),
            ("not ok 3 - name # exit=1", "name", Verdict::NotOk),
            (
                "ok 7 leak # SKIP gup_test not available",
                "leak",
                Verdict::Skip,
            ),
            ("ok 7 leak # skip no swap", "leak", Verdict::Skip),
            (
                "Diff too high: 3332459..not ok 1 ITIMER_VIRTUAL",
                "ITIMER_VIRTUAL",
                Verdict::NotOk,
            ),
            ("not ok 2 known # TODO", "known", Verdict::XFail),
            ("ok 2 known # XFAIL", "known", Verdict::XFail),
            ("ok 1 # SKIP not as root", "(unnamed)", Verdict::Skip),
            ("ok 5 at 0x7f76423bb000-0x7fff", "at 0x-0x", Verdict::Ok),
        ];
        for (line, name, verdict) in cases {
            assert_eq!(one(line), (name.to_owned(), verdict), "{line}");
        }
    }

    #[test]
    fn other_lines_are_no_tests() {
        for line in [
            "TAP version 13",
            "1..9",
            "# ok 1 nested",
            "# not ok 1 nested",
            "okay",
            "# Totals: pass:2 fail:0",
            "Testing consistency with 8 threads for 30 seconds: [OK]",
            "stress-ng: info:  [12642] dispatching hogs: 1 vm",
            "stress-ng: metrc: [12642] stressor       bogo ops real time",
            "stress-ng: metrc: [12642]                           (secs)",
        ] {
            assert_eq!(read(line), [], "{line}");
        }
    }

    #[test]
    fn names_that_occur_again_are_told_apart() {
        let said =
            "ok 1 leak\n# [RUN] with swapped out page\nok 2 leak\nnot ok 3 leak\nok 4 leak\n";
        let names: Vec<String> = read(said).into_iter().map(|(name, _)| name).collect();
        assert_eq!(
            names,
            [
                "leak",
                "with swapped out page: leak",
                "with swapped out page: leak (2)",
                "with swapped out page: leak (3)"
            ]
        );
    }

    #[test]
    fn userfaultfd_tests_are_read() {
        let tests = read(
            "Testing zeropage on anon... done\n\
             Testing zeropage on hugetlb... skipped [reason: memory allocation failed]\n\
             Testing register-ioctls on anon... ERROR: unexpected uffdio_register.ioctls",
        );
        let verdicts: Vec<Verdict> = tests.iter().map(|(_, verdict)| *verdict).collect();
        assert_eq!(verdicts, [Verdict::Ok, Verdict::Skip, Verdict::NotOk]);
        assert_eq!(tests[2].0, "register-ioctls on anon");
    }

    #[test]
    fn stressors_are_read() {
        let metrics = "stress-ng: metrc: [12642] vm                87840      1.00      0.77";
        assert_eq!(one(metrics), ("vm did something".to_owned(), Verdict::Ok));
        let idle = metrics.replace("87840", "    0");
        assert_eq!(one(&idle), ("vm did something".to_owned(), Verdict::NotOk));
        let failure = "stress-ng: fail:  [12643] vm: detected 1 bit errors";
        assert_eq!(one(failure), ("verified".to_owned(), Verdict::NotOk));
    }

    #[test]
    fn what_is_not_said_is_missing() {
        let (verdicts, left) = matched("ok 1 first\nok 2 second", "not ok 1 second");
        assert_eq!(verdicts, [Verdict::Missing, Verdict::NotOk]);
        assert_eq!(left, [""; 0]);
        let (verdicts, left) = matched("ok first", "ok second");
        assert_eq!(verdicts, [Verdict::Missing]);
        assert_eq!(left, ["second"]);
    }

    #[test]
    fn a_number_finds_a_test_whose_name_says_what_became_of_it() {
        let (verdicts, left) = matched(
            "ok 1 page not modified\nok 2 page not modified\nok 3 third",
            "ok 1 page not modified\nnot ok 2 write() failed\nok 3 third\nok 4 fourth",
        );
        assert_eq!(verdicts, [Verdict::Ok, Verdict::NotOk, Verdict::Ok]);
        assert_eq!(left, ["fourth"]);
        let (verdicts, left) = matched(
            "ok 1 not modified\nok 2 not modified\nok 3 not modified",
            "ok 1 not modified\nok 2 # SKIP no THP\nok 3 not modified",
        );
        assert_eq!(verdicts, [Verdict::Ok, Verdict::Skip, Verdict::Ok]);
        assert_eq!(left, [""; 0]);
        let (verdicts, left) = matched(
            "# [RUN] with THP\nok 7 no leak",
            "# [RUN] with THP\nok 7 # SKIP no THP",
        );
        assert_eq!(verdicts, [Verdict::Skip]);
        assert_eq!(left, [""; 0]);
    }
}
