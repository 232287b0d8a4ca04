//! Room made in advance for pages that cannot be paged: a program that maps a
//! file privately and may write to it gets pages of its own there that no
//! message tells of. A loader that relocates a library touches them within
//! milliseconds, so their room is made when the file is mapped, and kept until
//! the pages are there or the program has let some time pass.
//!
//! Stage on the data path: beside it, between the system call that maps and the
//! ticker, which knows what is really used.

use crate::sync::{Mutex, lock};

/// Ticks for which room is kept: a loader under pressure has come to its pages by then.
const KEPT_TICKS: u32 = 10;

/// Bytes that one address space was granted and has not used.
#[derive(Default)]
pub(crate) struct Advance(Mutex<Granted>);

#[derive(Default)]
struct Granted {
    bytes: u64,
    ticks_left: u32,
    /// What could not be paged at the last tick; `None` before the first, which finds
    /// what a program has from its start and does not use up what was granted.
    used_bytes: Option<u64>,
}

impl Advance {
    /// Keeps room for `bytes` more, up to `most` in all. Returns how much more.
    pub(crate) fn grant(&self, bytes: u64, most: u64) -> u64 {
        let mut granted = lock(&self.0);
        let bytes = bytes.min(most.saturating_sub(granted.bytes));
        granted.bytes += bytes;
        granted.ticks_left = KEPT_TICKS;
        bytes
    }

    /// Takes note, at a tick, of the bytes in use that cannot be paged: what came
    /// to be used is no longer kept. Returns the bytes that still are.
    pub(crate) fn settle(&self, used_bytes: u64) -> u64 {
        let mut granted = lock(&self.0);
        let before = granted.used_bytes.replace(used_bytes);
        let grown = used_bytes.saturating_sub(before.unwrap_or(used_bytes));
        granted.ticks_left = granted.ticks_left.saturating_sub(1);
        granted.bytes = match granted.ticks_left {
            0 => 0,
            _ => granted.bytes.saturating_sub(grown),
        };
        granted.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::{Advance, KEPT_TICKS};

    #[test]
    fn room_is_kept_until_it_is_used() {
        let advance = Advance::default();
        assert_eq!(advance.settle(100), 0);
        assert_eq!(advance.grant(50, 1000), 50);
        assert_eq!(advance.settle(100), 50);
        assert_eq!(advance.settle(120), 30);
        assert_eq!(advance.settle(110), 30);
        assert_eq!(advance.settle(200), 0);
    }

    #[test]
    fn what_a_program_starts_with_uses_up_nothing() {
        let advance = Advance::default();
        assert_eq!(advance.grant(50, 1000), 50);
        assert_eq!(advance.settle(100), 50);
        assert_eq!(advance.settle(150), 0);
    }

    #[test]
    fn room_that_nobody_uses_is_given_back() {
        let advance = Advance::default();
        assert_eq!(advance.grant(50, 1000), 50);
        for _ in 1..KEPT_TICKS {
            assert_eq!(advance.settle(0), 50);
        }
        assert_eq!(advance.settle(0), 0);
    }
}
