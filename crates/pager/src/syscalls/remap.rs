//! `mremap` of several mappings at once, which Linux allows since 6.17 where the
//! length stays and the target is fixed. It refuses that for memory that a
//! userfaultfd watches, as ours does: the thread moves one mapping after another
//! then, in Linux's order, and an error ends it half way, as it does alone.

use std::ops::Range;
use std::sync::OnceLock;

use zcache_sys::memory;

use super::Watched;
use super::mapping::{Plan, whole_pages};
use crate::budget::PAGE_BYTES;
use crate::process::care_error::CareError;
use crate::process::inject::Held;

const MAYMOVE: u64 = libc::MREMAP_MAYMOVE as u64;
const FIXED: u64 = libc::MREMAP_FIXED as u64;

/// Shared memory of System V moves alone: the name of its mappings begins so.
const SYSTEM_V: &str = "/SYSV";

/// The mappings that a call moves.
#[derive(Default)]
pub(super) struct Parts {
    /// Their pages, as far as they belong to its range.
    ranges: Vec<Range<u64>>,
    /// Behind them is one that Linux does not move together with others.
    refused: bool,
}

/// Whether this kernel moves several mappings at once.
fn moves_several() -> bool {
    static KNOWN: OnceLock<bool> = OnceLock::new();
    *KNOWN.get_or_init(memory::moves_several_mappings)
}

impl Watched<'_> {
    /// The mappings that a call is to move, if they are several or end before its range and
    /// Linux would do that if nobody watched them. The call has the turn at its space.
    pub(super) fn mappings_to_move(&self, number: i64) -> Option<Parts> {
        let [old, old_len, new_len, flags, new, _] = self.arguments();
        let pages = |len: u64| len.checked_next_multiple_of(PAGE_BYTES);
        let moves = flags & MAYMOVE != 0 && flags & FIXED != 0 && pages(old_len) == pages(new_len);
        if number != libc::SYS_mremap || !moves || !moves_several() {
            return None;
        }
        let (from, to) = (whole_pages(old, old_len), whole_pages(new, new_len));
        let apart = from.end <= to.start || to.end <= from.start;
        if from.is_empty() || to.is_empty() || !apart {
            return None;
        }
        let mappings = self.space.hands().mappings(false).ok()?;
        let mut parts = Parts::default();
        for mapping in mappings {
            let start = (mapping.range.start >> 12).max(from.start);
            let end = (mapping.range.end >> 12).min(from.end);
            if start >= end {
                continue;
            }
            if mapping.name.starts_with(SYSTEM_V) {
                parts.refused = true;
                break;
            }
            parts.ranges.push(start..end);
        }
        let first = parts.ranges.first()?;
        // Nor does Linux begin in a hole; behind the mappings there may be one.
        (first.start == from.start && *first != from).then_some(parts)
    }

    /// Has the thread move these mappings, one after another.
    pub(super) async fn move_mappings(self, number: i64, parts: Parts) {
        let [old, _, _, flags, new, last] = self.arguments();
        // Faults in all of it wait.
        let whole = self
            .pager()
            .before_call(&self.space, self.thread(), number, self.arguments());
        let call_of = |part: &Range<u64>| {
            let (start, len) = (part.start << 12, (part.end - part.start) << 12);
            [start, len, len, flags, start - old + new, last]
        };
        self.rewrite(number, call_of(&parts.ranges[0]));
        let Some(mut result) = self.make().await else {
            self.pager().behind_call(&self.space, &whole, None);
            self.space.core().end_call(&self.space);
            return;
        };
        self.restore();
        let first = Plan::of_move(call_of(&parts.ranges[0]));
        self.pager().behind_call(&self.space, &first, Some(result));
        let mut held = Held::default();
        let mut rest = parts.ranges[1..].iter();
        while result >= 0
            && let Some(part) = rest.next()
        {
            let mut arguments = call_of(part);
            arguments[5] = self.pager().secret;
            let (moved, stopped) = self.try_inject("mremap", number, arguments).await;
            held = held.or(stopped);
            let moved = match moved {
                Ok(address) => address.cast_signed(),
                Err(CareError::Call { errno, .. }) => -i64::from(errno),
                Err(_) => {
                    // It was killed over it.
                    self.pager().behind_call(&self.space, &whole, None);
                    break;
                }
            };
            let plan = Plan::of_move(call_of(part));
            self.pager().behind_call(&self.space, &plan, Some(moved));
            if moved < 0 {
                result = moved;
                self.answer(moved);
            }
        }
        if parts.refused && result >= 0 {
            self.answer(-i64::from(libc::EFAULT));
        }
        self.space.core().end_call(&self.space);
        self.give_back_servant(&mut held).await;
        self.resume_by(held);
    }
}
