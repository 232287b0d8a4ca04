//! Memory that the kernel may drop at any time (`MAP_DROPPABLE`, Linux 6.11): it need not,
//! so it is private memory that children see as zeros, and is paged like all other.

use std::sync::OnceLock;

use zcache_sys::memory;

use super::Watched;
use super::mapping::whole_pages;
use crate::process::inject::Held;

const MAP_TYPE: u64 = 0xf;
const MAP_DROPPABLE: u64 = 8;
/// With these Linux refuses it.
const REFUSED: u64 = (libc::MAP_LOCKED | libc::MAP_GROWSDOWN | libc::MAP_HUGETLB) as u64;
const ADVICE: u64 = libc::MADV_WIPEONFORK as u64;

fn has_droppable() -> bool {
    static KNOWN: OnceLock<bool> = OnceLock::new();
    *KNOWN.get_or_init(memory::has_droppable)
}

impl Watched<'_> {
    /// The arguments by which private memory comes in place of droppable one, if the call
    /// asks for that. A filter of the program's own may know the one and not the other.
    pub(super) fn as_private(&self, number: i64, filtered: bool) -> Option<[u64; 6]> {
        let mut a = self.arguments();
        let asks = number == libc::SYS_mmap
            && a[3] & MAP_TYPE == MAP_DROPPABLE
            && a[3] & libc::MAP_ANONYMOUS as u64 != 0
            && a[3] & REFUSED == 0;
        if !asks || filtered || !has_droppable() {
            return None;
        }
        a[3] = a[3] & !MAP_TYPE | (libc::MAP_PRIVATE | libc::MAP_NORESERVE) as u64;
        Some(a)
    }

    /// Has children see zeros there, as they do where memory may be dropped.
    pub(super) async fn wipe_in_children(&self, start: u64, length: u64) -> Held {
        let arguments = [start, length, ADVICE, 0, 0, self.pager().secret];
        let (result, held) = self.inject("madvise", libc::SYS_madvise, arguments).await;
        if result.is_some() {
            self.space.core().wiped.insert(whole_pages(start, length));
        }
        held
    }
}
