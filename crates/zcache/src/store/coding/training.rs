//! When a dictionary is trained, on what, and whether it is taken.
//!
//! Stage on the data path: beside the codec; a background thread of the client
//! drives it by [`Store::train`]. A scope rests, collects pages as they are
//! stored, trains, and rests again. The first round is small: 4 KiB from the
//! first pages that come. The second draws pages from many more. Later ones
//! follow when pages shrink less than they did, and each time four times as
//! many pages have come.
//!
//! - A dictionary is taken only if pages that did not train it shrink by 1% more
//!   than with what there was.
//! - Pages collected, the trainer's memory and the dictionaries are counted in
//!   the store's RAM; each is bounded by a part of the limit that the store was
//!   opened with.
//!
//! Does not: start threads.

use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use crate::sync::{Arc, Mutex};
use std::time::Instant;

use super::dictionaries::{Charge, Scope};
use crate::codec::{self, DICTIONARY_BYTES_MAX, Dictionary, Encoder};
use crate::page::{PAGE_SIZE, Page};
use crate::store::{Store, lock};

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
/// Of the pages collected, one in so many does not train but judges.
const JUDGES_ONE_IN: usize = 4;
/// A dictionary is taken if it leaves at most this part of the bytes.
const WORTH_PERCENT: u64 = 99;
/// RAM of a dictionary with the tables of level 1, for each of its bytes: 3 to 4.
const TABLES_FACTOR: u64 = 4;
/// Pages after which the mean length is looked at.
const WINDOW_PAGES: u64 = 8192;
/// The mean length beyond its usual, in percent, from which a new dictionary is
/// tried.
const DRIFT_PERCENT: f64 = 110.0;
/// Without drift, the next round comes after so many times the pages.
const ROUNDS_FACTOR: u64 = 4;

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
}

/// Pages that are collected.
struct Samples {
    pages: Vec<Page>,
    wanted: usize,
    /// Pages that were offered.
    offered: u64,
    /// Collecting ends after so many.
    offered_last: u64,
    random: u64,
    // Held for its drop.
    _charge: Charge,
}

/// What a scope is at.
enum Stage {
    Resting {
        /// The next round begins when so many pages have come.
        until_pages: u64,
        /// Pages and bytes when the window began.
        window: (u64, u64),
        /// The usual mean length, once a window was measured.
        usual: Option<f64>,
    },
    Collecting(Samples),
    Training,
}

/// A scope's training.
pub(in crate::store) struct Training {
    stage: Mutex<Stage>,
    is_collecting: AtomicBool,
    /// Pages that came and their lengths.
    pages: AtomicU64,
    bytes: AtomicU64,
    /// Rounds that ended.
    rounds: AtomicU64,
}

impl Default for Training {
    fn default() -> Training {
        Training {
            stage: Mutex::new(Stage::Resting {
                until_pages: 1,
                window: (0, 0),
                usual: None,
            }),
            is_collecting: AtomicBool::new(false),
            pages: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            rounds: AtomicU64::new(0),
        }
    }
}

impl Training {
    /// Notes a page that is not same-filled and how long its zpage is. Never
    /// waits.
    pub(in crate::store) fn offer(&self, page: &Page, len: usize) {
        self.pages.fetch_add(1, Relaxed);
        self.bytes.fetch_add(len as u64, Relaxed);
        if self.is_collecting.load(Relaxed)
            && let Ok(mut stage) = self.stage.try_lock()
            && let Stage::Collecting(samples) = &mut *stage
        {
            samples.offer(page);
        }
    }

    /// Whether the next step is due.
    fn is_due(&self) -> Option<Due> {
        let mut stage = lock(&self.stage);
        match &mut *stage {
            Stage::Training => None,
            Stage::Collecting(samples) => {
                (samples.offered >= samples.offered_last).then_some(Due::Train)
            }
            Stage::Resting {
                until_pages,
                window,
                usual,
            } => {
                let now = (self.pages.load(Relaxed), self.bytes.load(Relaxed));
                if drifted(now, window, usual) {
                    // It stays due until it is done.
                    *until_pages = 0;
                }
                (now.0 >= *until_pages).then_some(Due::Collect)
            }
        }
    }

    fn begin(&self, samples: Samples) {
        *lock(&self.stage) = Stage::Collecting(samples);
        self.is_collecting.store(true, Relaxed);
    }

    /// The pages collected, if that is over.
    fn take(&self) -> Option<Samples> {
        let mut stage = lock(&self.stage);
        match std::mem::replace(&mut *stage, Stage::Training) {
            Stage::Collecting(samples) => {
                self.is_collecting.store(false, Relaxed);
                Some(samples)
            }
            other => {
                *stage = other;
                None
            }
        }
    }

    /// Begins anew to learn how long pages usually are, since another codec
    /// makes them from now on.
    pub(in crate::store) fn forget_usual(&self) {
        if let Stage::Resting { window, usual, .. } = &mut *lock(&self.stage) {
            *window = (self.pages.load(Relaxed), self.bytes.load(Relaxed));
            *usual = None;
        }
    }

    fn rest(&self) {
        let now = (self.pages.load(Relaxed), self.bytes.load(Relaxed));
        let first = self.rounds.fetch_add(1, Relaxed) == 0;
        let until_pages = match first {
            true => now.0,
            false => now.0.saturating_mul(ROUNDS_FACTOR),
        };
        *lock(&self.stage) = Stage::Resting {
            until_pages,
            window: now,
            usual: None,
        };
    }
}

enum Due {
    Collect,
    Train,
}

/// Whether pages of the window that ends now were longer than usual. Begins the
/// next window.
fn drifted(now: (u64, u64), window: &mut (u64, u64), usual: &mut Option<f64>) -> bool {
    let pages = now.0 - window.0;
    if pages < WINDOW_PAGES {
        return false;
    }
    let mean = now.1.saturating_sub(window.1) as f64 / pages as f64;
    *window = now;
    let before = *usual.get_or_insert(mean);
    mean * 100.0 > before * DRIFT_PERCENT
}

impl Samples {
    fn new(wanted: usize, offered_last: u64, charge: Charge) -> Samples {
        Samples {
            pages: Vec::with_capacity(wanted),
            wanted,
            offered: 0,
            offered_last,
            random: 0x9e37_79b9_7f4a_7c15,
            _charge: charge,
        }
    }

    /// Keeps each page offered so far with the same chance (algorithm R; Vitter,
    /// "Random Sampling with a Reservoir", 1985).
    fn offer(&mut self, page: &Page) {
        self.offered += 1;
        if self.pages.len() < self.wanted {
            self.pages.push(*page);
            return;
        }
        // Xorshift (Marsaglia, 2003).
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let at = (self.random % self.offered) as usize;
        if let Some(place) = self.pages.get_mut(at) {
            *place = *page;
        }
    }

    /// Moves those that judge behind those that train; returns how many train.
    fn divide(&mut self) -> usize {
        let train = self.pages.len() - self.pages.len() / JUDGES_ONE_IN;
        // Neighbours are alike, so those that judge come from everywhere.
        for (judge, from) in (train..self.pages.len()).zip((0..train).step_by(3)) {
            self.pages.swap(judge, from);
        }
        train
    }
}

impl Store {
    /// RAM in bytes that the next [`Store::train`] takes and counts; `None` when
    /// nothing is due. Costs some loads.
    #[must_use]
    pub fn training_due_bytes(&self) -> Option<u64> {
        if !self.trains() {
            return None;
        }
        let scopes = self.dictionaries.scopes();
        scopes
            .iter()
            .find_map(|scope| match scope.training.is_due()? {
                Due::Collect => Some(self.round_bytes(scope)),
                // What it takes was counted when collecting began.
                Due::Train => Some(0),
            })
    }

    /// Does what is due next for dictionaries: begins to collect
    /// pages as they are stored, or trains on those collected, which takes some
    /// 20 ms of CPU time. Meant for a thread of low priority that calls it every
    /// few milliseconds.
    pub fn train(&self) -> Trained {
        if !self.trains() {
            return Trained::Nothing;
        }
        self.retire_dictionaries();
        for scope in self.dictionaries.scopes() {
            match scope.training.is_due() {
                None => {}
                Some(Due::Collect) => {
                    self.collect(&scope);
                    return Trained::Collecting;
                }
                Some(Due::Train) => return self.train_scope(&scope),
            }
        }
        Trained::Nothing
    }

    fn trains(&self) -> bool {
        self.dictionaries.enabled && self.pool_bytes_first >= POOL_BYTES_MIN
    }

    fn samples_wanted(&self, scope: &Scope) -> u64 {
        let part = self.pool_bytes_first / SAMPLES_PART / PAGE_SIZE as u64;
        let wanted = part.clamp(SAMPLES_MIN, SAMPLES_MAX);
        match scope.training.rounds.load(Relaxed) {
            0 => wanted.min(FIRST_SAMPLES_MAX),
            _ => wanted,
        }
    }

    fn dictionary_bytes_max(&self, scope: &Scope) -> usize {
        let part = (self.pool_bytes_first / DICTIONARY_PART) as usize;
        match scope.training.rounds.load(Relaxed) {
            0 => FIRST_DICTIONARY_BYTES,
            _ => part.clamp(FIRST_DICTIONARY_BYTES, DICTIONARY_BYTES_MAX),
        }
    }

    /// RAM of a round: pages collected, the trainer's own, and what comes of it.
    fn round_bytes(&self, scope: &Scope) -> u64 {
        let samples = self.samples_wanted(scope);
        let result = self.dictionary_bytes_max(scope) as u64 * TABLES_FACTOR;
        samples * PAGE_SIZE as u64 + codec::training_bytes(samples as usize) + result
    }

    fn collect(&self, scope: &Scope) {
        let wanted = self.samples_wanted(scope);
        let drawn_from = match scope.training.rounds.load(Relaxed) {
            0 => 1,
            _ => DRAWN_FROM,
        };
        let charge = Charge::new(&self.dictionaries.budget, self.round_bytes(scope));
        let samples = Samples::new(wanted as usize, wanted * drawn_from, charge);
        scope.training.begin(samples);
    }

    fn train_scope(&self, scope: &Arc<Scope>) -> Trained {
        let Some(samples) = scope.training.take() else {
            return Trained::Nothing;
        };
        let start = Instant::now();
        let adopted = self.dictionaries.has_free_slot() && self.try_dictionary(scope, samples);
        let took = start.elapsed().as_nanos() as u64;
        self.dictionaries.trainings.fetch_add(1, Relaxed);
        self.dictionaries.training_ns.fetch_add(took, Relaxed);
        scope.training.rest();
        match adopted {
            true => Trained::Adopted,
            false => Trained::Discarded,
        }
    }

    /// Trains on the pages and takes the dictionary if it is worth it.
    fn try_dictionary(&self, scope: &Arc<Scope>, mut samples: Samples) -> bool {
        let train = samples.divide();
        let bytes_max = self.dictionary_bytes_max(scope);
        let (train, judges) = samples.pages.split_at(train);
        let trained = Dictionary::train(train, bytes_max);
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
        after * 100 <= before * WORTH_PERCENT && self.dictionaries.adopt(scope, encoder)
    }
}

fn len_with(encoder: &Encoder, page: &Page) -> u64 {
    codec::encode_with(encoder, page, |zpage| zpage.bytes.len() as u64)
}

fn len_without(page: &Page) -> u64 {
    codec::encode(Dictionary::CODEC, page, |zpage| zpage.bytes.len() as u64)
}
