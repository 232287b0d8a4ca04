//! Changes of ours: what everything that changes a file goes through.
//!
//! - What was kept of the bytes is gone before the change is answered, also when
//!   it failed, for part of it may have been done.
//! - Looks at the file before and after tell our changes from those beside us.

use std::os::fd::AsFd;

use rustix::io::Errno;

use super::Filesystem;
use crate::cache::{Touched, Watched};
use crate::inodes::Inode;
use crate::notices::Outdated;
use crate::source;

impl Filesystem {
    /// Makes a change of a file; `fd` is any descriptor of it.
    pub(super) fn changing<T>(
        &self,
        inode: &Inode,
        fd: impl AsFd,
        touched: Touched,
        change: impl FnOnce() -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let coherence = match touched {
            Touched::Attributes => match inode.coherence_if_any() {
                Some(coherence) => coherence,
                None => return change(),
            },
            // A first open may come meanwhile and has to hear of the change.
            Touched::Pages(..) | Touched::All => inode.coherence(),
        };
        let watched = self.watched(inode);
        let look = || match watched {
            Watched::Yes => source::look(&fd).ok(),
            Watched::No => None,
        };
        if let Some(object) = coherence.begin_change(look().as_ref()) {
            self.cache.flush(object);
            self.outdated(inode, Outdated::Contents);
        }
        let result = change();
        let object = coherence.end_change(look().as_ref(), watched, touched);
        if let Some(object) = object {
            self.cache.flush_touched(object, touched);
        }
        let what = match touched {
            Touched::Attributes => Outdated::Attributes,
            Touched::Pages(..) | Touched::All => Outdated::Contents,
        };
        self.outdated_elsewhere(inode, what);
        result
    }
}
