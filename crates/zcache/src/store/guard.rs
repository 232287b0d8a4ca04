//! One shard, locked, and the check that its equations hold when it is let go.
//!
//! Stage on the data path: around every operation on a shard.
//!
//! In builds with debug assertions, whoever lets a shard go walks all of it, if
//! as many operations have passed since the last walk as it has entries: so a
//! walk costs each operation a constant. A store that is dropped is walked whole,
//! and the equations of its statistics are checked too. An equation that does
//! not hold is a bug, and a panic that names it.
//!
//! Does not: walk while a test chooses the schedule, other than at the end.

use std::ops::{Deref, DerefMut};

use super::part::Part;
use crate::sync::MutexGuard;

/// Whether shards are walked when they are let go.
const WALKS: bool = cfg!(debug_assertions) && !cfg!(feature = "schedules");

/// A shard that this thread has locked.
pub(in crate::store) struct Locked<'a>(MutexGuard<'a, Part>);

impl<'a> Locked<'a> {
    pub(in crate::store) fn new(part: MutexGuard<'a, Part>) -> Locked<'a> {
        Locked(part)
    }
}

impl Deref for Locked<'_> {
    type Target = Part;

    fn deref(&self) -> &Part {
        &self.0
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut Part {
        &mut self.0
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        if WALKS && !std::thread::panicking() {
            self.0.walk_in_turn();
        }
    }
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use crate::testing;
    use crate::{Store, StoreConfig};
    use zcache_core::{Frames, Run};

    /// A store of one shard whose tables are damaged.
    fn damaged() -> Store {
        let store = Store::open(StoreConfig {
            shards: 1,
            ..StoreConfig::default()
        })
        .unwrap();
        for number in 0..20 {
            store.insert(&testing::page(number)).unwrap();
        }
        {
            let mut part = crate::sync::lock(&store.shards[0]);
            for frame in 0..8 {
                let frame = zcache_core::FrameId(frame);
                if part.frames.bytes(frame, Run::FRAME).iter().any(|b| *b != 0) {
                    part.frames.bytes_mut(frame, Run::FRAME)[8..4000].fill(0);
                }
            }
        }
        store
    }

    #[test]
    #[should_panic(expected = "equation of the shard")]
    fn a_store_that_is_dropped_is_walked() {
        drop(damaged());
    }

    #[test]
    fn a_shard_is_walked_once_as_many_operations_have_passed_as_it_has_entries() {
        let store = damaged();
        let walked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            (0..crate::store::part::WALK_EVERY_MIN).for_each(|_| drop(store.part(0)));
        }));
        assert!(walked.is_err());
        std::mem::forget(store);
    }
}
