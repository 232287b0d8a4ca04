//! Minimum, median and maximum of the runs of one contender on one cell.

use super::contender::Contender;
use super::record::{Cell, Record};

/// Three order statistics.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// The spread of some values; none without values.
    pub(crate) fn of(mut values: Vec<f64>) -> Option<Spread> {
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            1 => values[middle],
            _ => (values[middle - 1] + values[middle]) / 2.0,
        };
        Some(Spread { min, median, max })
    }
}

/// The runs of one cell.
pub(super) struct CellRuns<'a> {
    runs: Vec<&'a Record>,
}

impl<'a> CellRuns<'a> {
    /// Picks the runs of a cell.
    pub(super) fn of(cell: Cell, records: &'a [Record]) -> Self {
        CellRuns {
            runs: records
                .iter()
                .filter(|record| record.cell == cell)
                .collect(),
        }
    }

    /// All runs of a contender.
    pub(super) fn by(&self, contender: Contender) -> impl Iterator<Item = &'a Record> {
        self.runs
            .iter()
            .copied()
            .filter(move |record| record.contender == contender)
    }

    /// The spread of a measure over the runs of a contender that ended well.
    pub(super) fn spread(
        &self,
        contender: Contender,
        measure: impl Fn(&Record) -> f64,
    ) -> Option<Spread> {
        let good = self.by(contender).filter(|record| record.speed().is_some());
        Spread::of(good.map(measure).collect())
    }

    /// The spread of `measure(contender) / measure(peer)`, formed within each repeat in which both
    /// ended well and the peer's measure is not 0.
    pub(super) fn ratio(
        &self,
        contender: Contender,
        peer: Contender,
        measure: impl Fn(&Record) -> f64,
    ) -> Option<Spread> {
        let good = |who| {
            self.by(who)
                .filter(|record: &&Record| record.speed().is_some())
        };
        let ratios = good(contender).filter_map(|mine| {
            let theirs = good(peer).find(|record| record.repeat == mine.repeat)?;
            let divisor = measure(theirs);
            (divisor > 0.0).then(|| measure(mine) / divisor)
        });
        Spread::of(ratios.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(Spread::of(vec![]), None);
        let odd = Spread::of(vec![3.0, 1.0, 2.0]);
        assert_eq!(
            odd,
            Some(Spread {
                min: 1.0,
                median: 2.0,
                max: 3.0
            })
        );
        assert_eq!(
            Spread::of(vec![4.0, 1.0]).map(|spread| spread.median),
            Some(2.5)
        );
    }
}
