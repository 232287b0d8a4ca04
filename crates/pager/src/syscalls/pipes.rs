//! `vmsplice`: a pipe has the program's pages themselves, and who reads it sees what was
//! written to them since. When they have been read nobody tells, so the pages that came
//! last stay in RAM.

use std::ops::Range;

use zcache_sys::process::read_memory;

use super::Watched;
use crate::budget::PAGE_BYTES;
use crate::space::page_table::Vpn;

const VECTORS_MAX: u64 = 1024;
const VECTOR_BYTES: usize = 16;
/// This part of the budget may stay for pipes, in each space.
const PART: u64 = 16;

impl Watched<'_> {
    /// Sees a call through by which a pipe gets pages, or from which memory is filled.
    pub(super) async fn splice_pages(self, a: [u64; 6]) {
        let most = self.pager().budget.ram_bytes() / PAGE_BYTES / PART;
        let buffers = self.buffers(a[1], a[2]).await;
        let pages = pages_of(&buffers, most);
        self.hold_pages(&pages).await;
        let result = self.make().await;
        let moved = result.and_then(|result| u64::try_from(result).ok());
        let taken = pages_of(&first_bytes(&buffers, moved.unwrap_or(0)), most).len();
        {
            let mut core = self.space.core();
            core.spliced.extend(&pages[..taken]);
            let over = (core.spliced.len() as u64).saturating_sub(most) as usize;
            let mut free: Vec<Vpn> = core.spliced.drain(..over).collect();
            free.extend(&pages[taken..]);
            for page in free {
                core.unpin(page, self.pager().next_stamp());
            }
        }
        if result.is_some() {
            self.resume();
        }
    }

    async fn buffers(&self, at: u64, count: u64) -> Vec<Range<u64>> {
        let thread = self.thread();
        let read = self.tracer.elsewhere(move |_| {
            let mut bytes = vec![0u8; count.min(VECTORS_MAX) as usize * VECTOR_BYTES];
            // Where it cannot be read the kernel cannot either.
            let got = read_memory(thread, at, &mut bytes).unwrap_or(0);
            bytes.truncate(got);
            bytes
        });
        let bytes = read.await;
        let word = |part: &[u8]| u64::from_ne_bytes(std::array::from_fn(|i| part[i]));
        let buffers = bytes.chunks_exact(VECTOR_BYTES).map(|vector| {
            let start = word(&vector[..8]);
            start..start.saturating_add(word(&vector[8..]))
        });
        buffers.collect()
    }
}

/// The pages in which these bytes lie, `most` of them.
fn pages_of(buffers: &[Range<u64>], most: u64) -> Vec<Vpn> {
    let pages = buffers
        .iter()
        .filter(|buffer| !buffer.is_empty())
        .flat_map(|buffer| buffer.start >> 12..((buffer.end - 1) >> 12) + 1);
    pages.take(most as usize).map(Vpn).collect()
}

/// The first bytes of all, so many of them.
fn first_bytes(buffers: &[Range<u64>], mut left: u64) -> Vec<Range<u64>> {
    let mut first = Vec::new();
    for buffer in buffers {
        let length = left.min(buffer.end - buffer.start);
        first.push(buffer.start..buffer.start + length);
        left -= length;
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_lie_in_pages() {
        let buffers = [0x1fff..0x2001, 0x5000..0x5000, 0x7000..0x8000];
        let numbers = |buffers: &[Range<u64>], most| {
            let pages = pages_of(buffers, most);
            pages.iter().map(|page| page.0).collect::<Vec<_>>()
        };
        assert_eq!(numbers(&buffers, 9), [1, 2, 7]);
        assert_eq!(numbers(&buffers, 2), [1, 2]);
        assert_eq!(numbers(&first_bytes(&buffers, 1), 9), [1]);
        assert_eq!(numbers(&first_bytes(&buffers, 3), 9), [1, 2, 7]);
        assert!(numbers(&first_bytes(&buffers, 0), 9).is_empty());
    }
}
