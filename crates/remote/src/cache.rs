//! Whole segments that were fetched because their blocks are read one after the
//! other: they went out together.
//!
//! Stage on the data path: asked before a node is. A segment's bytes never
//! change and its number is never used again, so nothing here is ever outdated.
//!
//! - `segments <= CACHE_SEGMENTS_MAX`; `recent <= RECENT`.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::segment::{SEGMENT_BYTES_MAX, SegmentId};

/// Segments that are kept.
const CACHE_SEGMENTS_MAX: usize = 16;

/// Single reads among which a second of the same segment is soon.
const RECENT: usize = 8;

/// The most RAM of it.
pub(crate) const CACHE_BYTES_MAX: u64 = (CACHE_SEGMENTS_MAX * SEGMENT_BYTES_MAX) as u64;

#[derive(Debug, Default)]
pub(crate) struct Cache {
    segments: VecDeque<(SegmentId, Arc<Vec<u8>>)>,
    recent: VecDeque<SegmentId>,
}

impl Cache {
    pub(crate) fn get(&self, id: SegmentId) -> Option<Arc<Vec<u8>>> {
        let found = self.segments.iter().find(|(at, _)| *at == id);
        found.map(|(_, bytes)| Arc::clone(bytes))
    }

    /// Notes a single read; whether one of the same segment was soon before.
    pub(crate) fn note(&mut self, id: SegmentId) -> bool {
        let again = self.recent.contains(&id);
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(id);
        again
    }

    pub(crate) fn put(&mut self, id: SegmentId, bytes: Arc<Vec<u8>>) {
        if self.get(id).is_some() {
            return;
        }
        if self.segments.len() == CACHE_SEGMENTS_MAX {
            self.segments.pop_front();
        }
        self.segments.push_back((id, bytes));
    }

    /// Other bytes than those written: they are of no use.
    pub(crate) fn remove(&mut self, id: SegmentId) {
        self.segments.retain(|(at, _)| *at != id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_and_notices_a_second_read() {
        let mut cache = Cache::default();
        for n in 0..100 {
            assert!(!cache.note(SegmentId(n)));
            cache.put(SegmentId(n), Arc::default());
        }
        assert_eq!(
            (cache.segments.len(), cache.recent.len()),
            (CACHE_SEGMENTS_MAX, RECENT)
        );
        assert!(cache.note(SegmentId(99)) && !cache.note(SegmentId(50)));
        assert!(cache.get(SegmentId(99)).is_some() && cache.get(SegmentId(1)).is_none());
    }
}
