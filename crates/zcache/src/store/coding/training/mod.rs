//! When a dictionary is trained, on what, and whether it is taken.
//!
//! Stage on the data path: beside the codec; a background thread of the client
//! drives it by [`Store::train`]. A scope rests, collects pages as they are
//! stored, trains, and rests again. The first round is small: 4 KiB from the
//! first pages that come. The second draws pages from many more. Later ones
//! follow when pages shrink less than they did, and each time four times as
//! many pages have come.
//!
//! - `turn`: whose turn it is
//! - `samples`: the pages that are collected
//!
//! - One scope at a time has a round. What that takes (pages collected, the
//!   trainer's memory, what comes of it) is counted in the store's RAM before it
//!   is taken, and is at most a sixteenth of the limit that the store was opened
//!   with, and at most 5 MiB.
//! - A pool has no scope before as many pages came to it as a first round
//!   collects: so a round that begins can soon end.
//! - A dictionary is taken only if pages that did not train it shrink by 1% more
//!   than with what there was.
//!
//! Does not: start threads.

mod samples;
mod turn;

use crate::sync::Arc;
use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use super::dictionaries::Scope;
use crate::codec::{self, DICTIONARY_BYTES_MAX, Dictionary, Encoder};
use crate::frames::Charge;
use crate::page::{PAGE_SIZE, Page};
use crate::store::Store;

use samples::Samples;
pub(in crate::store) use turn::Turns;
use turn::{Done, Due, Round};

/// Stores with less RAM than this train nothing: a round takes some 2.5 MiB.
const POOL_BYTES_MIN: u64 = 48 << 20;
/// Pages collected are this part of the limit, within these bounds.
const SAMPLES_PART: u64 = 64;
const SAMPLES_MIN: u64 = 32;
const SAMPLES_MAX: u64 = 512;
/// Pages of the first round, and the length of its dictionary.
const FIRST_SAMPLES_MAX: u64 = 256;
const FIRST_DICTIONARY_BYTES: usize = 4096;
/// A dictionary is at most this part of the limit.
const DICTIONARY_PART: u64 = 8192;
/// Later rounds draw each page collected from so many.
const DRAWN_FROM: u64 = 8;
/// A dictionary is taken if it leaves at most this part of the bytes.
const WORTH_PERCENT: u64 = 99;

/// What a call of [`Store::train`] did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trained {
    /// Nothing was due.
    Nothing,
    /// Pages are being collected.
    Collecting,
    /// A dictionary was trained and is used from now on.
    Adopted,
    /// A dictionary was trained and found not worth it, or none could be had.
    Discarded,
    /// Too few pages came of those that were to be collected, so what there was
    /// was given back.
    GaveUp,
}

/// What a store's training came to.
#[derive(Default)]
pub(in crate::store) struct Trainings {
    pub(in crate::store) count: AtomicU64,
    pub(in crate::store) time_ns: AtomicU64,
}

/// What a round collects and what may come of it.
struct Plan {
    samples: usize,
    /// Pages that these are drawn from.
    drawn_from: u64,
    dictionary_bytes_max: usize,
}

impl Plan {
    /// For a store that was opened with this limit, and a scope that has had so
    /// many rounds.
    fn of(pool_bytes: u64, rounds: u64) -> Plan {
        let samples = pool_bytes / SAMPLES_PART / PAGE_SIZE as u64;
        let samples = samples.clamp(SAMPLES_MIN, SAMPLES_MAX);
        let dictionary = (pool_bytes / DICTIONARY_PART) as usize;
        match rounds {
            0 => {
                let samples = samples.min(FIRST_SAMPLES_MAX);
                Plan {
                    samples: samples as usize,
                    drawn_from: samples,
                    dictionary_bytes_max: FIRST_DICTIONARY_BYTES,
                }
            }
            _ => Plan {
                samples: samples as usize,
                drawn_from: samples * DRAWN_FROM,
                dictionary_bytes_max: dictionary
                    .clamp(FIRST_DICTIONARY_BYTES, DICTIONARY_BYTES_MAX),
            },
        }
    }

    /// RAM of the round: pages collected, the trainer's own, and what comes of it.
    fn ram_bytes(&self) -> u64 {
        let pages = (self.samples * PAGE_SIZE) as u64;
        let len = self.dictionary_bytes_max;
        let result =
            codec::dictionary_bytes_max(len) + codec::tables_bytes_max(len, Encoder::LEVEL_FRESH);
        pages + codec::training_bytes(self.samples) + result
    }
}

impl Store {
    /// RAM in bytes that the next [`Store::train`] takes and counts, until the
    /// round that it begins ends; zero for a step that takes none. `None` when
    /// nothing is due. Meant for the thread that calls [`Store::train`], to make
    /// room first; where several threads do, another may do what was due.
    ///
    /// Costs a lock that is held for a moment only.
    #[must_use]
    pub fn training_due_bytes(&self) -> Option<u64> {
        if !self.trains() {
            return None;
        }
        Some(match self.turns.due(self.counts.attempts.load(Relaxed))? {
            Due::Collect(scope) => self.plan(&scope).ram_bytes(),
            // What it takes was counted when collecting began.
            Due::Train | Due::GiveUp => 0,
        })
    }

    /// Does what is due next for dictionaries of Zstandard: begins to collect
    /// pages as they are stored, or trains on those collected, which takes some
    /// 20 ms of CPU time. Meant for a thread of low priority that calls it every
    /// few milliseconds; several may.
    ///
    /// Pages of handles, or of one pool, are collected at a time: at most a
    /// sixteenth of the limit that the store was opened with is taken, and 5 MiB
    /// at most. Handles are due with their first page, a pool once some 256 pages
    /// came to it. When of 64 pages that come to the store fewer than one is of
    /// those collected, what there is is given back and others have their turn.
    pub fn train(&self) -> Trained {
        if !self.trains() {
            return Trained::Nothing;
        }
        self.retire_dictionaries();
        let begin = |scope: &Scope| self.samples_for(scope);
        match self.turns.go_on(self.counts.attempts.load(Relaxed), begin) {
            Done::Nothing => Trained::Nothing,
            Done::Collecting => Trained::Collecting,
            Done::GaveUp => Trained::GaveUp,
            Done::Collected(round) => self.train_round(round),
        }
    }

    /// Pages of a pool after which it gets a scope: as many as its first round
    /// collects. `None` when no dictionary will be trained.
    pub(in crate::store) fn puts_before_scope(&self) -> Option<u32> {
        self.trains()
            .then(|| Plan::of(self.pool_bytes_first, 0).samples as u32)
    }

    fn trains(&self) -> bool {
        self.dictionaries.enabled && self.pool_bytes_first >= POOL_BYTES_MIN
    }

    fn plan(&self, scope: &Scope) -> Plan {
        Plan::of(self.pool_bytes_first, scope.pace.rounds())
    }

    fn samples_for(&self, scope: &Scope) -> Samples {
        let plan = self.plan(scope);
        let charge = Charge::new(&self.dictionaries.budget, plan.ram_bytes());
        Samples::new(plan.samples, plan.drawn_from, charge)
    }

    fn train_round(&self, mut round: Round<'_>) -> Trained {
        let start = Instant::now();
        let samples = round.samples.take();
        let adopted = self.dictionaries.has_free_slot()
            && samples.is_some_and(|samples| self.try_dictionary(&round.scope, samples));
        let took = start.elapsed().as_nanos() as u64;
        self.trainings.count.fetch_add(1, Relaxed);
        self.trainings.time_ns.fetch_add(took, Relaxed);
        match adopted {
            true => Trained::Adopted,
            false => Trained::Discarded,
        }
    }

    /// Trains on the pages and takes the dictionary if it is worth it.
    fn try_dictionary(&self, scope: &Arc<Scope>, mut samples: Samples) -> bool {
        let (train, judges) = samples.divide();
        let trained = Dictionary::train(train, self.plan(scope).dictionary_bytes_max);
        let encoder = trained
            .and_then(|dictionary| Encoder::new(Arc::new(dictionary), Encoder::LEVEL_FRESH).ok());
        let Some(encoder) = encoder else {
            return false;
        };
        let after: u64 = judges.iter().map(|page| len_with(&encoder, page)).sum();
        let before: u64 = match scope.current() {
            Some(current) => judges
                .iter()
                .map(|page| len_with(&current.encoder, page))
                .sum(),
            None => judges.iter().map(len_without).sum(),
        };
        drop(samples);
        after * 100 <= before * WORTH_PERCENT && self.adopt(scope, encoder).is_ok()
    }
}

fn len_with(encoder: &Encoder, page: &Page) -> u64 {
    codec::encode_with(encoder, page, |zpage| zpage.bytes.len() as u64)
}

fn len_without(page: &Page) -> u64 {
    codec::encode(Dictionary::CODEC, page, |zpage| zpage.bytes.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_takes_a_sixteenth_of_the_limit_and_5_mib_at_most() {
        for pool_bytes in (26..50).map(|shift| (3u64 << shift) / 4) {
            for rounds in 0..3 {
                let bytes = Plan::of(pool_bytes, rounds).ram_bytes();
                assert!(
                    pool_bytes < POOL_BYTES_MIN || bytes <= pool_bytes / 16,
                    "{bytes} of {pool_bytes}"
                );
                assert!(bytes <= 5 << 20, "{bytes} of {pool_bytes}");
            }
        }
    }
}
