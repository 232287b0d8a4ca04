//! What a whole run found, for people: a line for each program, then each difference.

use std::time::Duration;

use super::compare::{Comparison, Difference};
use super::run::Paged;

/// Lines for one program at most; the rest is in its log.
const DIFFERENCES_SHOWN: usize = 12;

/// What became of one program.
pub(super) struct Row {
    pub(super) name: String,
    pub(super) comparison: Comparison,
    pub(super) alone: Duration,
    pub(super) under: Duration,
    pub(super) paged: Paged,
    /// It ended well under zcache, yet not as much was paged as its plan wants.
    pub(super) unpaged: bool,
}

impl Row {
    fn is_bad(&self) -> bool {
        self.unpaged || self.comparison.unexpected().count() > 0
    }
}

/// The heading of the lines.
pub(super) fn heading() -> String {
    format!(
        "{:<46} {:>6} {:>8} {:>7} {:>5}  {:>8} {:>8} {:>8}  {:>6} {:>6}",
        "program",
        "agreed",
        "expected",
        "DIFFERS",
        "flaky",
        "evicted",
        "loaded",
        "written",
        "alone",
        "under"
    )
}

/// The line of one program; times are in seconds.
pub(super) fn line(row: &Row) -> String {
    format!(
        "{:<46} {:>6} {:>8} {:>7} {:>5}  {:>8} {:>8} {:>8}  {:>6.1} {:>6.1}",
        row.name,
        row.comparison.agreed,
        row.comparison.expected_count(),
        row.comparison.unexpected().count(),
        row.comparison.flaky.len(),
        row.paged.evicted,
        row.paged.loaded,
        row.paged.written,
        row.alone.as_secs_f64(),
        row.under.as_secs_f64()
    )
}

/// What is behind the numbers: flaky tests, differences, and expected ones that did not occur.
pub(super) fn details(rows: &[Row], unmet: &[String]) -> String {
    let mut text = String::new();
    for row in rows {
        for test in &row.comparison.flaky {
            text += &format!("flaky alone: {}: {test}\n", row.name);
        }
    }
    for row in rows {
        text += &reasons(row);
    }
    for entry in unmet {
        text += &format!("expected, and did not occur: {entry}\n");
    }
    for row in rows.iter().filter(|row| row.unpaged) {
        text += &format!("DIFFERS: {}: nothing was paged\n", row.name);
    }
    for row in rows {
        let unexpected = row.comparison.unexpected();
        text += &some(
            unexpected.map(|difference| format!("DIFFERS: {}\n", described(row, difference))),
        );
    }
    text
}

/// A line for each reason why tests of a program were expected to differ.
fn reasons(row: &Row) -> String {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    let differences = row.comparison.differences.iter();
    for reason in differences.filter_map(|difference| difference.reason.as_deref()) {
        match counts.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, count)) => *count += 1,
            None => counts.push((reason, 1)),
        }
    }
    let lines = counts.iter().map(|(reason, count)| {
        format!(
            "differs as expected: {}: {count} tests: {reason}\n",
            row.name
        )
    });
    lines.collect()
}

fn described(row: &Row, difference: &Difference) -> String {
    format!(
        "{}: {}: {} alone, {} under zcache",
        row.name, difference.test, difference.alone, difference.under
    )
}

fn some(lines: impl Iterator<Item = String>) -> String {
    let lines: Vec<String> = lines.collect();
    let mut text: String = lines.iter().take(DIFFERENCES_SHOWN).cloned().collect();
    if lines.len() > DIFFERENCES_SHOWN {
        text += &format!("  and {} more\n", lines.len() - DIFFERENCES_SHOWN);
    }
    text
}

/// The last line; an error if anything differs that nobody expected.
pub(super) fn judge(rows: &[Row]) -> Result<String, String> {
    let sum = |count: fn(&Row) -> usize| rows.iter().map(count).sum::<usize>();
    let summary = format!(
        "{} programs: {} tests agreed, {} differ as expected, {} DIFFER, {} flaky",
        rows.len(),
        sum(|row| row.comparison.agreed),
        sum(|row| row.comparison.expected_count()),
        sum(|row| row.comparison.unexpected().count()),
        sum(|row| row.comparison.flaky.len()),
    );
    let bad = rows.iter().filter(|row| row.is_bad()).count();
    if bad == 0 {
        Ok(summary)
    } else {
        Err(format!("{summary}; {bad} programs differ"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::results::Verdict;
    use super::*;

    fn row(reasons: &[Option<&str>]) -> Row {
        let differences = reasons.iter().map(|reason| Difference {
            test: "leak".into(),
            alone: Verdict::Ok,
            under: Verdict::NotOk,
            reason: reason.map(str::to_owned),
        });
        Row {
            name: "mm/cow".into(),
            comparison: Comparison {
                agreed: 3,
                flaky: vec!["swap".into()],
                differences: differences.collect(),
            },
            alone: Duration::ZERO,
            under: Duration::ZERO,
            paged: Paged::default(),
            unpaged: false,
        }
    }

    #[test]
    fn only_the_unexpected_fails() {
        assert!(judge(&[row(&[])]).is_ok());
        assert!(judge(&[row(&[Some("It is known.")])]).is_ok());
        let error = judge(&[row(&[]), row(&[Some("It is known."), None])]).unwrap_err();
        assert!(error.contains("1 DIFFER,"), "{error}");
        assert!(error.contains("1 programs differ"), "{error}");
    }

    #[test]
    fn a_run_that_did_not_page_fails() {
        let mut row = row(&[]);
        row.unpaged = true;
        assert!(judge(&[row]).is_err());
    }

    #[test]
    fn everything_is_told() {
        let rows = [row(&[Some("It is known."), None])];
        let text = details(&rows, &["mm/cow | fork | ok | hung".into()]);
        for line in [
            "flaky alone: mm/cow: swap\n",
            "differs as expected: mm/cow: 1 tests: It is known.\n",
            "expected, and did not occur: mm/cow | fork | ok | hung\n",
            "DIFFERS: mm/cow: leak: ok alone, not ok under zcache\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
        let many = details(&[row(&[None; 20])], &[]);
        assert!(many.contains("  and 8 more\n"), "{many}");
    }
}
