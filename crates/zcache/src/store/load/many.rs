//! Many pages back at once: those in RAM one after the other, those in the tier
//! by as few reads as their places allow, all in flight together.
//!
//! Does not: look up pages by key; see `run`.

use zcache_core::{Kind as PoolKind, TierRange};

use super::{Seen, unpack, unread};
use crate::error::{LoadError, PageName};
use crate::lend;
use crate::page::{Handle, Page};
use crate::store::Store;
use crate::store::coding::tags::Tags;
use crate::store::counts::add;
use crate::store::reclaim::swap::Swap;
use crate::tier::{SECTOR_SIZE, TierError, TierRead};

/// Sectors between two wanted ones that are read along rather than skipped: a
/// second transfer costs more than these bytes.
const GAP_SECTORS: u64 = 2;

/// The longest single read, so that long runs still go in parallel.
const READ_SECTORS_MAX: u64 = 32;

/// A page to be read from the tier.
pub(super) struct Wanted {
    index: usize,
    tags: Tags,
    at: TierRange,
    /// The first and the end of its sectors, counted from the start of the tier.
    first: u64,
    end: u64,
}

/// What came of a page that was read with others.
#[derive(Clone, Copy)]
enum Done {
    Right,
    /// The bytes are not its own.
    Wrong,
    Unread(TierError),
}

/// One read that covers the pages `wanted[from..to]`.
struct Span {
    first: u64,
    end: u64,
    from: usize,
    to: usize,
}

impl Store {
    /// Gives back many pages and keeps them. Reads of the tier that lie close
    /// together are merged and all run at once. The outcome of `handles[n]` is
    /// in `out[n]` and `results[n]`.
    ///
    /// # Panics
    /// When the three slices differ in length.
    pub fn load_many(
        &self,
        handles: &[Handle],
        out: &mut [Page],
        results: &mut [Result<(), LoadError>],
    ) {
        assert_eq!(handles.len(), out.len(), "a page for each handle");
        assert_eq!(handles.len(), results.len(), "a result for each handle");
        let mut wanted = Vec::new();
        let mut copy = lend::room();
        for (index, handle) in handles.iter().enumerate() {
            let name = PageName::Handle(*handle);
            results[index] = match (self.look(name, copy.page_mut()), &self.swap) {
                (Seen::Copied { tags, len }, _) => {
                    self.finish(name, &tags, &copy.bytes()[..len], &mut out[index])
                }
                (Seen::Same { word }, _) => {
                    out[index].as_chunks_mut::<8>().0.fill(word.to_le_bytes());
                    Ok(())
                }
                (Seen::InTier { tags, at }, Some(swap)) => {
                    wanted.push(swap.wanted(index, tags, at));
                    Ok(())
                }
                (Seen::Damaged, _) => Err(self.lose(LoadError::Corrupt { page: name })),
                (Seen::Gone | Seen::InTier { .. }, _) => Err(LoadError::Gone),
            };
        }
        drop(copy);
        if let Some(swap) = &self.swap
            && !wanted.is_empty()
        {
            let name = |index: usize| PageName::Handle(handles[index]);
            self.read_wanted(swap, wanted, &name, out, results, |done| done);
        }
        let results = results.iter().map(|result| result.map(|()| true));
        self.counts.asked(results);
    }

    /// Reads pages from the tier. The outcome of the page that has the name
    /// `name(n)` is in `out[n]` and `results[n]`.
    pub(super) fn read_wanted<T>(
        &self,
        swap: &Swap,
        mut wanted: Vec<Wanted>,
        name: &dyn Fn(usize) -> PageName,
        out: &mut [Page],
        results: &mut [T],
        outcome: impl Fn(Result<(), LoadError>) -> T,
    ) {
        wanted.sort_unstable_by_key(|wanted| wanted.first);
        let sectors = swap.block_buffers.sectors().into();
        let spans = spans(&wanted, READ_SECTORS_MAX.min(sectors));
        let mut rest = &spans[..];
        while !rest.is_empty() {
            let (batch, later) = rest.split_at(fitting(rest, sectors));
            rest = later;
            let pages = &wanted[batch[0].from..batch[batch.len() - 1].to];
            let done = self.read_batch(swap, batch, &wanted, name, out);
            for (page, done) in pages.iter().zip(done) {
                let (name, out) = (name(page.index), &mut out[page.index]);
                let done = match done {
                    Done::Right => Ok(()),
                    // A page that is elsewhere too is not worth a second wait.
                    Done::Unread(error) if is_elsewhere(name) && self.is_at(name, page.at) => {
                        let (offset_bytes, ..) = swap.sectors_of(page.at);
                        Err(unread(name, offset_bytes, error))
                    }
                    // Whatever else did not work goes the slow way, which looks the
                    // page up again and tells a move from an error.
                    Done::Unread(_) | Done::Wrong => self.fetch(name, out),
                };
                results[page.index] = outcome(done);
            }
        }
    }

    /// Whether a page is still at this place in the tier.
    fn is_at(&self, name: PageName, at: TierRange) -> bool {
        let mut copy = lend::room();
        matches!(self.look(name, copy.page_mut()), Seen::InTier { at: now, .. } if now == at)
    }

    /// Reads the spans into one buffer and says what came of each of their pages.
    fn read_batch(
        &self,
        swap: &Swap,
        spans: &[Span],
        wanted: &[Wanted],
        name: &dyn Fn(usize) -> PageName,
        out: &mut [Page],
    ) -> Vec<Done> {
        let count = spans[spans.len() - 1].to - spans[0].from;
        let mut buffer = match swap.block_buffers.lend() {
            Ok(buffer) => buffer,
            Err(error) => return vec![Done::Unread(TierError::from(&error)); count],
        };
        let mut done = Vec::with_capacity(count);
        let mut reads = Vec::with_capacity(spans.len());
        let mut room = buffer.bytes_mut();
        for span in spans {
            let (bytes, later) = room.split_at_mut((span.end - span.first) as usize * SECTOR_SIZE);
            room = later;
            reads.push(TierRead {
                offset_bytes: span.first * SECTOR_SIZE as u64,
                bytes,
                result: Err(TierError::IO),
            });
        }
        swap.read(&mut reads);
        add(&self.counts.swapin_reads, reads.len() as u64);
        for (span, read) in spans.iter().zip(&reads) {
            for page in &wanted[span.from..span.to] {
                let skip = page.at.offset_bytes as usize % SECTOR_SIZE;
                let start = (page.first - span.first) as usize * SECTOR_SIZE + skip;
                let bytes = &read.bytes[start..start + page.at.len_bytes as usize];
                let (name, out) = (name(page.index), &mut out[page.index]);
                done.push(match read.result {
                    Err(error) => Done::Unread(error),
                    Ok(()) => match unpack(name, &page.tags, None, bytes, out) {
                        Ok(()) => Done::Right,
                        Err(_) => Done::Wrong,
                    },
                });
            }
        }
        let good = done
            .iter()
            .filter(|done| matches!(done, Done::Right))
            .count();
        add(&self.counts.swapin_pages, good as u64);
        done
    }
}

/// Whether a page may go at any time, since whoever put it has it elsewhere.
fn is_elsewhere(name: PageName) -> bool {
    matches!(name, PageName::Key(key) if key.pool.kind() == PoolKind::Ephemeral)
}

impl Swap {
    /// A page that lies there.
    pub(super) fn wanted(&self, index: usize, tags: Tags, at: TierRange) -> Wanted {
        let (offset_bytes, sectors, _) = self.sectors_of(at);
        let first = offset_bytes / SECTOR_SIZE as u64;
        Wanted {
            index,
            tags,
            at,
            first,
            end: first + sectors as u64,
        }
    }
}

/// Merges pages, sorted by their first sector, into reads of at most this many
/// sectors.
fn spans(wanted: &[Wanted], sectors_max: u64) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    for (index, page) in wanted.iter().enumerate() {
        match spans.last_mut() {
            Some(span)
                if page.first <= span.end + GAP_SECTORS
                    && page.end.max(span.end) - span.first <= sectors_max =>
            {
                span.end = span.end.max(page.end);
                span.to = index + 1;
            }
            _ => spans.push(Span {
                first: page.first,
                end: page.end,
                from: index,
                to: index + 1,
            }),
        }
    }
    spans
}

/// How many of the spans, at least one, fit into this many sectors.
fn fitting(spans: &[Span], sectors: u64) -> usize {
    let mut total = 0;
    let count = spans
        .iter()
        .take_while(|span| {
            total += span.end - span.first;
            total <= sectors
        })
        .count();
    count.max(1)
}
