//! How large a budget has to be, and what of it is set apart.
//!
//! Not on the data path: it turns the budget's equation around for those who
//! want to know the `--ram` before a run (`zcache measure`).

use crate::budget::PAGE_BYTES;
use crate::config::RAM_BYTES_MIN;

/// zcache's own memory beside the store: its processes, stacks, codecs and the
/// tables of an ordinary tree. A system test runs programs in the budgets that
/// follow from it.
const OWN_BYTES: u64 = 5 << 20;

/// Rounds of the equation, whose right side grows by at most a tenth of what
/// the left side does.
const ROUNDS: u32 = 12;

/// What a run has to hold without a swap file.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Need {
    /// Anonymous pages of the tree.
    pub pages: u64,
    /// RAM that one of them takes in the store, with its part of the tables.
    pub stored_bytes_a_page: f64,
    /// The part of the pages that shall stay resident, from 0 to 1.
    pub resident_part: f64,
    /// What cannot be paged: private pages of files.
    pub unpageable_bytes: u64,
}

impl Need {
    /// The least `--ram` that holds this, rounded up to whole MiB.
    #[must_use]
    pub fn ram_bytes(&self) -> u64 {
        let mut ram_bytes = RAM_BYTES_MIN;
        for _ in 0..ROUNDS {
            ram_bytes = self.takes_bytes(ram_bytes);
        }
        ram_bytes.next_multiple_of(1 << 20).max(RAM_BYTES_MIN)
    }

    /// What is used in a budget of `ram_bytes`.
    fn takes_bytes(&self, ram_bytes: u64) -> u64 {
        let fixed = OWN_BYTES + self.unpageable_bytes;
        let apart = reserve_bytes(ram_bytes) + low_bytes(ram_bytes) / 2 * 3;
        let wanted = (self.pages as f64 * self.resident_part.clamp(0.0, 1.0)) as u64;
        let least = resident_bytes_least(ram_bytes.saturating_sub(fixed)) / PAGE_BYTES;
        let resident = wanted.max(least).min(self.pages);
        let stored = (self.pages - resident) as f64 * self.stored_bytes_a_page;
        fixed + apart + resident * PAGE_BYTES + stored as u64
    }
}

/// Of what can be paged, the part that the store never takes.
pub(crate) fn resident_bytes_least(pageable_bytes: u64) -> u64 {
    (pageable_bytes / 16).clamp(1 << 20, 16 << 20)
}

/// What eviction itself may need while it runs.
pub(crate) fn reserve_bytes(ram_bytes: u64) -> u64 {
    (ram_bytes / 64).clamp(768 << 10, 2 << 20)
}

/// The room below which eviction begins.
pub(crate) fn low_bytes(ram_bytes: u64) -> u64 {
    (ram_bytes / 200).clamp(128 << 10, 4 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn need(pages: u64, stored_bytes_a_page: f64, resident_part: f64) -> Need {
        Need {
            pages,
            stored_bytes_a_page,
            resident_part,
            unpageable_bytes: 0,
        }
    }

    #[test]
    fn the_answer_holds_what_was_asked_and_a_mebibyte_less_does_not() {
        for pages in [10_000, 100_000, 3_000_000] {
            for bytes in [100.0, 1000.0, 2500.0, 4200.0] {
                for part in [0.0, 0.3, 1.0] {
                    let need = need(pages, bytes, part);
                    let ram = need.ram_bytes();
                    assert!(need.takes_bytes(ram) <= ram, "{need:?}");
                    let less = ram - (2 << 20);
                    let fits = need.takes_bytes(less) <= less;
                    assert!(!fits || ram == RAM_BYTES_MIN, "{need:?}");
                }
            }
        }
    }

    #[test]
    fn a_program_that_is_nothing_needs_the_least_budget() {
        assert_eq!(need(0, 4096.0, 0.5).ram_bytes(), RAM_BYTES_MIN);
    }
}
