//! Which fault handlers listen to which address space.
//!
//! A fault wakes every handler that polls its space. Waking one on another,
//! idle processor costs an interrupt between processors, several microseconds
//! that the fault waits for, and then two handlers ask for one message. So a
//! space whose faults all come from one thread is polled by one handler only:
//! that on the processor where the thread runs, its *home*. A fault of another
//! thread opens the space to all handlers again.
//!
//! - Every space that is published is polled by at least one handler at any
//!   time: a new home listens before the others stop.
//!
//! Does not: read messages.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use zcache_sys::fd::Epoll;
use zcache_sys::procfs::stat;

use crate::space::Space;
use crate::sync::Mutex;

/// Faults in a row by one thread that make it the only one.
const STREAK: u32 = 64;

/// How often the processor of such a thread is looked up at most, since it may
/// be moved to another.
const LOOK_PERIOD: Duration = Duration::from_millis(1);

/// In place of a handler's index: all of them listen.
const ALL: usize = usize::MAX;

/// Where a space's messages go.
#[derive(Debug)]
pub(crate) struct Home {
    last_thread: AtomicU32,
    /// Faults in a row of `last_thread`.
    streak: AtomicU32,
    /// Index of the handler that listens, or [`ALL`].
    handler: AtomicUsize,
    /// When the thread's processor was looked up last. Held while the set of
    /// listeners changes.
    looked: Mutex<Option<Instant>>,
}

impl Home {
    pub(crate) fn new() -> Home {
        Home {
            last_thread: AtomicU32::new(0),
            streak: AtomicU32::new(0),
            handler: AtomicUsize::new(ALL),
            looked: Mutex::new(None),
        }
    }

    /// Notes a fault of `thread`; returns whether it has been the only one for
    /// long enough. Handlers that note at once may lose a count, which only
    /// delays the answer.
    fn note(&self, thread: u32) -> bool {
        if self.last_thread.swap(thread, Relaxed) != thread {
            self.streak.store(0, Relaxed);
            return false;
        }
        let streak = self.streak.load(Relaxed);
        if streak < STREAK {
            self.streak.store(streak + 1, Relaxed);
        }
        streak >= STREAK
    }
}

/// The handlers' posts: what each polls, and on which processor it runs.
#[derive(Debug)]
pub(crate) struct Posts {
    epolls: Vec<Epoll>,
    cpus: Vec<usize>,
}

impl Posts {
    /// One post for each processor of `cpus`.
    pub(crate) fn new(cpus: &[usize]) -> std::io::Result<Posts> {
        let epolls = cpus.iter().map(|_| Epoll::new());
        Ok(Posts {
            epolls: epolls.collect::<Result<_, _>>()?,
            cpus: cpus.to_vec(),
        })
    }

    /// What the handler of this index waits on.
    pub(crate) fn epoll(&self, handler: usize) -> &Epoll {
        &self.epolls[handler]
    }

    /// Has every handler listen to a new space.
    pub(crate) fn add(&self, space: &Space) -> std::io::Result<()> {
        let Some(uffd) = space.uffd() else {
            return Ok(());
        };
        self.epolls
            .iter()
            .try_for_each(|epoll| epoll.add(uffd.as_fd(), space.id.0))
    }

    /// Has no handler listen to a space any more.
    pub(crate) fn remove(&self, space: &Space) {
        let Some(uffd) = space.uffd() else { return };
        for epoll in &self.epolls {
            // The kernel removes what is gone by itself.
            let _ = epoll.remove(uffd.as_fd());
        }
    }

    /// After a fault of `thread` in `space`: has those handlers listen that
    /// should for the next one.
    pub(crate) fn follow(&self, space: &Space, thread: u32) {
        let home = &space.home;
        let alone = home.note(thread);
        if self.epolls.len() < 2 || (!alone && home.handler.load(Relaxed) == ALL) {
            return;
        }
        // Another handler that is at it has seen as much.
        let Ok(mut looked) = home.looked.try_lock() else {
            return;
        };
        let now = Instant::now();
        if alone && looked.is_some_and(|looked| now.duration_since(looked) < LOOK_PERIOD) {
            return;
        }
        *looked = Some(now);
        let wanted = match alone {
            true => stat(thread.cast_signed()).and_then(|stat| {
                let own = |cpu: &usize| *cpu == stat.processor;
                self.cpus.iter().position(own)
            }),
            false => None,
        };
        if let Some(uffd) = space.uffd() {
            self.settle(uffd.as_fd(), space.id.0, home, wanted.unwrap_or(ALL));
        }
    }

    /// Has `wanted` listen alone, or all. Called with `home.looked` locked.
    fn settle(&self, fd: BorrowedFd<'_>, token: u64, home: &Home, wanted: usize) {
        let before = home.handler.swap(wanted, Relaxed);
        if before == wanted {
            return;
        }
        let listens = |who: usize, handler: usize| who == ALL || who == handler;
        let change = |starts: bool| {
            for (handler, epoll) in self.epolls.iter().enumerate() {
                if listens(wanted, handler) == starts && listens(before, handler) != starts {
                    // A space that is being closed is in no set any more.
                    let _ = epoll.modify(fd, token, starts);
                }
            }
        };
        change(true);
        change(false);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_streak_of_one_thread_is_needed_and_another_thread_ends_it() {
        let home = Home::new();
        for _ in 0..=STREAK {
            assert!(!home.note(7));
        }
        assert!(home.note(7));
        assert!(!home.note(8));
        assert!(!home.note(7));
    }

    #[test]
    fn who_does_not_listen_hears_nothing_and_what_waits_is_heard_later() {
        let posts = Posts::new(&[0, 1]).unwrap();
        let (reader, mut writer) = std::io::pipe().unwrap();
        let fd = reader.as_fd();
        let home = Home::new();
        for epoll in &posts.epolls {
            epoll.add(fd, 5).unwrap();
        }
        let heard = || {
            let mut tokens = [Vec::new(), Vec::new()];
            for (handler, tokens) in tokens.iter_mut().enumerate() {
                posts.epolls[handler]
                    .wait(tokens, Some(Duration::ZERO))
                    .unwrap();
            }
            tokens.map(|tokens| tokens == [5])
        };
        posts.settle(fd, 5, &home, 1);
        writer.write_all(b"message").unwrap();
        assert_eq!(heard(), [false, true]);
        posts.settle(fd, 5, &home, 0);
        assert_eq!(heard(), [true, false]);
        posts.settle(fd, 5, &home, ALL);
        assert_eq!(heard(), [true, true]);
    }
}
