//! How many threads serve a mount: so many as were asked for, and one more for
//! each that is held up.
//!
//! Stage: around the workers. A call into the source may take as long as the
//! source likes (a frozen filesystem, a server that is away), and what a worker
//! tells the kernel may wait for other requests. Whoever asks for something else
//! meanwhile must find a worker.
//!
//! - A worker is *held up* when it is at the same request as when it was looked at
//!   last, a [`crate::budget::PERIOD`] before.
//! - `workers that are not held up >= those asked for`, as long as there are at
//!   most [`EXTRAS_MAX`] more and the requests that are held up take no more than
//!   a [`HELD_PART`]th of the budget. Beyond that requests wait.
//!
//! Does not: start threads; it says how many are wanted.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// Workers beyond those that were asked for.
pub(crate) const EXTRAS_MAX: usize = 128;

/// The part of the budget that requests which are held up may take.
const HELD_PART: u64 = 8;

/// One worker's place.
#[derive(Debug, Default)]
pub(crate) struct Post {
    /// Counts up at the beginning and at the end of each request.
    steps: AtomicU64,
    /// Bytes of the request.
    bytes: AtomicUsize,
    /// Beyond those asked for: it leaves when it is not needed.
    extra: bool,
}

impl Post {
    pub(crate) fn begin(&self, bytes: usize) {
        self.bytes.store(bytes, Relaxed);
        self.steps.fetch_add(1, Relaxed);
    }

    pub(crate) fn end(&self) {
        self.steps.fetch_add(1, Relaxed);
    }
}

#[derive(Debug)]
struct Known {
    post: Arc<Post>,
    /// Steps at the last look.
    steps: u64,
}

impl Known {
    /// Whether it is at the same request as at the last look.
    fn is_held_up(&mut self) -> bool {
        let steps = self.post.steps.load(Relaxed);
        let same = std::mem::replace(&mut self.steps, steps) == steps;
        same && !steps.is_multiple_of(2)
    }
}

/// The workers of one queue of requests.
#[derive(Debug)]
pub(crate) struct Crew {
    /// How many were asked for.
    asked: usize,
    /// How many more there are to be for each that is held up.
    per_held_up: usize,
    ram_bytes: u64,
    known: Mutex<Vec<Known>>,
    /// Extra workers that are not needed.
    surplus: AtomicUsize,
}

impl Crew {
    pub(crate) fn new(asked: usize, per_held_up: usize, ram_bytes: u64) -> Crew {
        Crew {
            asked,
            per_held_up,
            ram_bytes,
            known: Mutex::default(),
            surplus: AtomicUsize::new(0),
        }
    }

    /// The place of one more worker.
    pub(crate) fn join(&self, extra: bool) -> Arc<Post> {
        let post = Arc::new(Post {
            extra,
            ..Post::default()
        });
        let known = Known {
            post: Arc::clone(&post),
            steps: 0,
        };
        self.lock().push(known);
        post
    }

    /// Whether the worker, between two requests, is to leave.
    pub(crate) fn may_leave(&self, post: &Post) -> bool {
        let less = |surplus: usize| surplus.checked_sub(1);
        post.extra && self.surplus.fetch_update(Relaxed, Relaxed, less).is_ok()
    }

    /// Looks at all workers, and says how many more there are to be.
    pub(crate) fn wanted(&self) -> usize {
        let mut known = self.lock();
        // Those that have ended have let go of their place.
        known.retain(|one| Arc::strong_count(&one.post) > 1);
        let (mut held, mut held_bytes) = (0, 0);
        for one in known.iter_mut() {
            if one.is_held_up() {
                held += 1;
                held_bytes += one.post.bytes.load(Relaxed) as u64;
            }
        }
        let enough = self.asked + (held * self.per_held_up).min(EXTRAS_MAX);
        self.surplus
            .store(known.len().saturating_sub(enough), Relaxed);
        match held_bytes > self.ram_bytes / HELD_PART {
            true => 0,
            false => enough.saturating_sub(known.len()),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_held_up_is_replaced_until_it_is_not() {
        let crew = Crew::new(2, 1, 1 << 20);
        let posts = [crew.join(false), crew.join(false)];
        assert_eq!(crew.wanted(), 0);
        posts[0].begin(100);
        assert_eq!(crew.wanted(), 0, "it has just begun");
        assert_eq!(crew.wanted(), 1);
        let extra = crew.join(true);
        assert_eq!(crew.wanted(), 0);
        assert!(!crew.may_leave(&extra));
        posts[0].end();
        assert_eq!(crew.wanted(), 0);
        assert!(!crew.may_leave(&posts[1]), "it was asked for");
        assert!(crew.may_leave(&extra));
        assert!(!crew.may_leave(&extra), "only one was too many");
        drop(extra);
        posts[0].begin(1 << 20);
        assert_eq!((crew.wanted(), crew.wanted()), (0, 0), "too many bytes");
    }

    #[test]
    fn one_that_is_gone_is_replaced() {
        let crew = Crew::new(2, 1, 1 << 20);
        let posts = [crew.join(false), crew.join(false)];
        assert_eq!(crew.wanted(), 0);
        drop(posts);
        assert_eq!(crew.wanted(), 2);
    }
}
