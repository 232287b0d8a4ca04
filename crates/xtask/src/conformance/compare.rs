//! Comparing a program's runs alone with its run under zcache, test by test.
//!
//! What the two runs alone disagree about says nothing about zcache and does not count.

use super::expected::Expected;
use super::results::{Results, Test, Verdict};

/// A test that was not the same in all runs, or was so although a difference was expected.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Difference {
    pub(super) test: String,
    pub(super) alone: Verdict,
    pub(super) under: Verdict,
    /// Why it was expected, where it was.
    pub(super) reason: Option<String>,
}

/// What came of comparing one program's runs.
#[derive(Default, PartialEq, Eq, Debug)]
pub(super) struct Comparison {
    /// Tests that ended alike in all runs.
    pub(super) agreed: usize,
    /// Tests that the runs alone disagree about.
    pub(super) flaky: Vec<String>,
    pub(super) differences: Vec<Difference>,
}

impl Comparison {
    /// Differences that nobody expected.
    pub(super) fn unexpected(&self) -> impl Iterator<Item = &Difference> {
        self.differences
            .iter()
            .filter(|difference| difference.reason.is_none())
    }

    fn differ(
        &mut self,
        program: &str,
        (test, alone, under): (&str, Verdict, Verdict),
        expected: &mut Expected,
    ) {
        self.differences.push(Difference {
            test: test.to_owned(),
            alone,
            under,
            reason: expected.reason(program, test, alone, under),
        });
    }

    /// How many differences were expected.
    pub(super) fn expected_count(&self) -> usize {
        self.differences.len() - self.unexpected().count()
    }
}

/// Compares the runs of the program of this name. What was expected and occurred is noted in `expected`.
pub(super) fn compare(
    program: &str,
    alone: [&Results; 2],
    under: &Results,
    expected: &mut Expected,
) -> Comparison {
    let mut comparison = Comparison::default();
    let (seconds, only_second) = alone[0].matched(alone[1]);
    let (unders, only_under) = alone[0].matched(under);
    for ((test, second), under) in alone[0].tests.iter().zip(seconds).zip(unders) {
        if test.verdict != second {
            expected.excuse(program, &test.name);
            comparison.flaky.push(test.name.clone());
        } else if test.verdict == under {
            comparison.agreed += 1;
        } else {
            let difference = (test.name.as_str(), test.verdict, under);
            comparison.differ(program, difference, expected);
        }
    }
    let is_of = |tests: &[&Test], test: &Test| tests.iter().any(|other| other.name == test.name);
    for test in &only_second {
        expected.excuse(program, &test.name);
        comparison.flaky.push(test.name.clone());
    }
    for test in only_under {
        if !is_of(&only_second, test) {
            let difference = (test.name.as_str(), Verdict::Missing, test.verdict);
            comparison.differ(program, difference, expected);
        }
    }
    comparison
}

#[cfg(test)]
mod tests {
    use super::super::results::END;
    use super::*;

    const PASSED: &str = "ok 1 first\nok 2 second\nok 3 third";

    fn compared(alone: [&str; 2], under: (&str, Verdict), list: &str) -> (Comparison, Expected) {
        let mut expected = Expected::parse(list).unwrap();
        let exit = Verdict::Exit(0);
        let [first, second] = alone.map(|said| Results::read(said, exit, false));
        let under = Results::read(under.0, under.1, false);
        let comparison = compare("mm/cow", [&first, &second], &under, &mut expected);
        (comparison, expected)
    }

    fn unmet(expected: &Expected) -> usize {
        expected.unmet(&["mm/cow".to_owned()]).len()
    }

    #[test]
    fn runs_that_are_alike_agree() {
        let (comparison, _) = compared([PASSED, PASSED], (PASSED, Verdict::Exit(0)), "");
        assert_eq!(comparison.agreed, 5);
        assert_eq!(comparison.differences, []);
    }

    #[test]
    fn every_sort_of_difference_counts() {
        let failed = PASSED.replace("ok 2", "not ok 2");
        let skipped = PASSED.replace("second", "second # SKIP");
        let lost = PASSED.replace("ok 2 second\n", "");
        let more = format!("{PASSED}\nok 4 fourth");
        for under in [
            (failed.as_str(), Verdict::Exit(0)),
            (skipped.as_str(), Verdict::Exit(0)),
            (lost.as_str(), Verdict::Exit(0)),
            (more.as_str(), Verdict::Exit(0)),
            (PASSED, Verdict::Exit(1)),
            (PASSED, Verdict::Signal(9)),
            (PASSED, Verdict::Hung),
        ] {
            let (comparison, _) = compared([PASSED, PASSED], under, "");
            assert_eq!(comparison.unexpected().count(), 1, "{under:?}");
        }
        // A test that fails alone and passes under zcache differs too.
        let (comparison, _) = compared([&failed, &failed], (PASSED, Verdict::Exit(0)), "");
        assert_eq!(comparison.unexpected().count(), 1);
    }

    #[test]
    fn what_is_flaky_alone_does_not_count() {
        let failed = PASSED.replace("ok 2", "not ok 2");
        for under in [PASSED, failed.as_str()] {
            let (comparison, _) = compared([PASSED, &failed], (under, Verdict::Exit(0)), "");
            assert_eq!(comparison.flaky, ["second"]);
            assert_eq!(comparison.differences, []);
            assert_eq!(comparison.agreed, 4);
        }
    }

    #[test]
    fn what_is_expected_must_be_as_it_was_expected() {
        let list = "mm/cow | sec* | ok | not ok\n    It is known.\n";
        let failed = PASSED.replace("ok 2", "not ok 2");
        let (comparison, expected) = compared([PASSED, PASSED], (&failed, Verdict::Exit(0)), list);
        assert_eq!(comparison.unexpected().count(), 0);
        assert_eq!(comparison.expected_count(), 1);
        assert_eq!(
            comparison.differences[0].reason.as_deref(),
            Some("It is known.")
        );
        assert_eq!(unmet(&expected), 0);

        // In another way, or in another test.
        let skipped = PASSED.replace("second", "second # SKIP");
        let other = PASSED.replace("ok 3", "not ok 3");
        for under in [&skipped, &other] {
            let (comparison, expected) =
                compared([PASSED, PASSED], (under, Verdict::Exit(0)), list);
            assert_eq!(comparison.unexpected().count(), 1);
            assert_eq!(unmet(&expected), 1);
        }
    }

    #[test]
    fn an_expected_difference_of_a_flaky_test_is_not_missed() {
        let list = "mm/cow | second | ok | not ok\n    It is known.\n";
        let failed = PASSED.replace("ok 2", "not ok 2");
        let (_, expected) = compared([PASSED, &failed], (PASSED, Verdict::Exit(0)), list);
        assert_eq!(unmet(&expected), 0);
    }

    #[test]
    fn the_end_is_a_test_too() {
        let list = "mm/cow | (end) | exit 0 | hung\n    It is known.\n";
        let (comparison, _) = compared([PASSED, PASSED], (PASSED, Verdict::Hung), list);
        assert_eq!(comparison.differences[0].test, END);
        assert_eq!(comparison.unexpected().count(), 0);
    }
}
