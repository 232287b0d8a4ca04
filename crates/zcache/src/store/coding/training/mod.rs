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
use crate::codec::{self, Codec, DICTIONARY_BYTES_MAX, Dictionary, Encoder, ZSTD_LEVEL};
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
/// RAM of a dictionary with the tables of level 1, for each of its bytes: 3 to 4.
const TABLES_FACTOR: u64 = 4;

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
        Some(match self.turns.due(self.traffic().0)? {
            Due::Collect(scope) => self.round_bytes(&scope),
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
        match self.turns.go_on(self.traffic().0, begin) {
            Done::Nothing => Trained::Nothing,
            Done::Collecting => Trained::Collecting,
            Done::GaveUp => Trained::GaveUp,
            Done::Collected(round) => self.train_round(round),
        }
    }

    /// Pages of a pool after which it gets a scope: as many as its first round
    /// collects. `None` when no dictionary will be trained.
    pub(in crate::store) fn puts_before_scope(&self) -> Option<u32> {
        self.trains().then(|| self.samples_wanted(0) as u32)
    }

    fn trains(&self) -> bool {
        self.dictionaries.enabled && self.pool_bytes_first >= POOL_BYTES_MIN
    }

    fn samples_wanted(&self, rounds: u64) -> u64 {
        let part = self.pool_bytes_first / SAMPLES_PART / PAGE_SIZE as u64;
        let wanted = part.clamp(SAMPLES_MIN, SAMPLES_MAX);
        match rounds {
            0 => wanted.min(FIRST_SAMPLES_MAX),
            _ => wanted,
        }
    }

    fn dictionary_bytes_max(&self, rounds: u64) -> usize {
        let part = (self.pool_bytes_first / DICTIONARY_PART) as usize;
        match rounds {
            0 => FIRST_DICTIONARY_BYTES,
            _ => part.clamp(FIRST_DICTIONARY_BYTES, DICTIONARY_BYTES_MAX),
        }
    }

    /// RAM of a round: pages collected, the trainer's own, and what comes of it.
    fn round_bytes(&self, scope: &Scope) -> u64 {
        let rounds = scope.pace.rounds();
        let samples = self.samples_wanted(rounds);
        let result = self.dictionary_bytes_max(rounds) as u64 * TABLES_FACTOR;
        samples * PAGE_SIZE as u64 + codec::training_bytes(samples as usize) + result
    }

    fn samples_for(&self, scope: &Scope) -> Samples {
        let rounds = scope.pace.rounds();
        let wanted = self.samples_wanted(rounds);
        let drawn_from = match rounds {
            0 => 1,
            _ => DRAWN_FROM,
        };
        let charge = Charge::new(&self.dictionaries.budget, self.round_bytes(scope));
        Samples::new(wanted as usize, wanted * drawn_from, charge)
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
        let trained = Dictionary::train(train, self.dictionary_bytes_max(scope.pace.rounds()));
        let encoder =
            trained.and_then(|dictionary| Encoder::new(Arc::new(dictionary), ZSTD_LEVEL).ok());
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
    codec::encode(Codec::Zstd, page, |zpage| zpage.bytes.len() as u64)
}
