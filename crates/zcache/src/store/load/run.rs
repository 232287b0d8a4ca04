//! Neighbouring pages of one object at once: looked up and copied under one lock,
//! then verified and decoded without it.
//!
//! Pages that lie in the tier are read together, as `many` does it.

use zcache_core::{Found, Key, TierRange};

use crate::error::{LoadError, PageName};
use crate::lend::{Lender, Working};
use crate::page::{PAGE_SIZE, Page};
use crate::store::Store;
use crate::store::coding::tags::Tags;
use crate::store::part::Part;
use crate::store::seed::RUN_PAGES;
use crate::store::tmem::hit;

/// Room for the zpages of one lookup: those of a whole run where they shrink to
/// a third.
const COPY_BYTES: usize = RUN_PAGES as usize * PAGE_SIZE / 3;

/// A zpage that was copied.
struct Copied {
    ahead: usize,
    tags: Tags,
    start: usize,
    end: usize,
}

/// What a lookup took.
#[derive(Default)]
struct Taken {
    bytes: Vec<u8>,
    copied: Vec<Copied>,
    in_tier: Vec<(usize, Tags, TierRange)>,
    /// To be looked at by themselves, where the lock is not held.
    damaged: Vec<usize>,
    /// Pages that were asked of the tier.
    asked: usize,
}

/// How far a lookup goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum To {
    Ram,
    Tier,
}

static TAKEN: Lender<Taken> = Lender::new();

impl Store {
    /// Gives back the pages of an object at `first` and the indices after it,
    /// and keeps them. `out[n]` and `results[n]` are those of the index `n`
    /// above the first: false is a miss.
    ///
    /// Results are as those of [`get`](Store::get) for each key, but that the tier is
    /// asked once for a page of an ephemeral pool. Says how many were asked of the tier.
    ///
    /// # Panics
    /// When `out` and `results` differ in length.
    pub fn get_run(
        &self,
        first: &Key,
        out: &mut [Page],
        results: &mut [Result<bool, LoadError>],
    ) -> usize {
        self.get_run_to(To::Tier, first, out, results)
    }

    /// The same, but pages that are in the tier alone are misses.
    ///
    /// # Panics
    /// When `out` and `results` differ in length.
    pub fn get_run_from_ram(
        &self,
        first: &Key,
        out: &mut [Page],
        results: &mut [Result<bool, LoadError>],
    ) {
        self.get_run_to(To::Ram, first, out, results);
    }

    fn get_run_to(
        &self,
        to: To,
        first: &Key,
        out: &mut [Page],
        results: &mut [Result<bool, LoadError>],
    ) -> usize {
        assert_eq!(out.len(), results.len(), "a result for each page");
        results.fill(Ok(false));
        let mut taken = TAKEN.lend(Taken::default);
        let (mut at, mut asked) = (0, 0);
        while at < out.len() {
            let Some(key) = later(first, at) else {
                break;
            };
            // A shard has the pages of a whole run.
            let run = (RUN_PAGES - key.index % RUN_PAGES) as usize;
            let end = out.len().min(at + run);
            let (out, results) = (&mut out[at..end], &mut results[at..end]);
            at += self.take_run(to, &key, out, results, &mut taken);
            asked += taken.asked;
        }
        self.counts.asked(results.iter().copied());
        asked
    }

    /// Gives back pages of one shard, and says how many.
    fn take_run(
        &self,
        to: To,
        first: &Key,
        out: &mut [Page],
        results: &mut [Result<bool, LoadError>],
        taken: &mut Taken,
    ) -> usize {
        taken.clear();
        let looked = self.look_run(first, out, results, taken);
        for Copied {
            ahead,
            tags,
            start,
            end,
        } in taken.copied.drain(..)
        {
            let name = later(first, ahead).map(PageName::Key);
            let name = name.expect("it was found");
            let bytes = &taken.bytes[start..end];
            let unpacked = self.finish(name, &tags, bytes, &mut out[ahead]);
            results[ahead] = unpacked.map(|()| true);
        }
        let name = |ahead| {
            later(first, ahead)
                .map(PageName::Key)
                .expect("it was found")
        };
        if let Some(swap) = &self.swap
            && to == To::Tier
            && !taken.in_tier.is_empty()
        {
            taken.asked = taken.in_tier.len();
            let wanted = taken.in_tier.drain(..);
            let wanted = wanted.map(|(ahead, tags, at)| swap.wanted(ahead, tags, at));
            self.read_wanted(swap, wanted.collect(), &name, out, results, hit);
        }
        for ahead in taken.damaged.drain(..) {
            results[ahead] = hit(self.fetch(name(ahead), &mut out[ahead]));
        }
        looked
    }

    /// Copies what is there until there is no more room, and says how far it
    /// came.
    fn look_run(
        &self,
        first: &Key,
        out: &mut [Page],
        results: &mut [Result<bool, LoadError>],
        taken: &mut Taken,
    ) -> usize {
        let Taken {
            bytes,
            copied,
            in_tier,
            damaged,
            ..
        } = taken;
        let mut looked = out.len();
        let mut part = self.part(self.shard_of_key(first));
        let Part { core, frames, .. } = &mut *part;
        core.get_run(frames, first, out.len() as u32, |ahead, found| {
            let ahead = ahead as usize;
            match found {
                Found::Same { word } => {
                    out[ahead].as_chunks_mut::<8>().0.fill(word.to_le_bytes());
                    results[ahead] = Ok(true);
                }
                Found::InTier {
                    at,
                    codec,
                    checksum,
                } => in_tier.push((ahead, Tags::new(codec, checksum, &self.dictionaries), at)),
                Found::Damaged => damaged.push(ahead),
                Found::InRam {
                    bytes: zpage,
                    codec,
                    checksum,
                } => {
                    let start = bytes.len();
                    bytes.extend_from_slice(zpage);
                    copied.push(Copied {
                        ahead,
                        tags: Tags::new(codec, checksum, &self.dictionaries),
                        start,
                        end: bytes.len(),
                    });
                    if bytes.len() + PAGE_SIZE > COPY_BYTES {
                        looked = ahead + 1;
                        return false;
                    }
                }
            }
            true
        });
        looked
    }
}

impl Working for Taken {
    fn bytes(&self) -> u64 {
        let lists = self.copied.capacity() * size_of::<Copied>()
            + self.in_tier.capacity() * size_of::<(usize, Tags, TierRange)>()
            + self.damaged.capacity() * size_of::<usize>();
        (self.bytes.capacity() + lists) as u64
    }
}

impl Taken {
    /// Empties it, with room for as much as a lookup can take.
    fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.reserve_exact(COPY_BYTES);
        self.copied.clear();
        self.in_tier.clear();
        self.damaged.clear();
        self.asked = 0;
    }
}

/// The key so many indices later, if there is one.
fn later(first: &Key, ahead: usize) -> Option<Key> {
    let index = first.index.checked_add(u32::try_from(ahead).ok()?)?;
    Some(Key { index, ..*first })
}
