//! Stores through mappings into holes: data at once, but unknown to the source
//! until the kernel writes them back.
//!
//! Stage: before the source is asked what of a file is data, or how much room it
//! takes.
//!
//! - Only a file that is open for reading and writing can have such stores: the
//!   kernel writes them back when a mapping goes. And only pages over holes tell
//!   anything that the source does not know.
//! - The kernel drops the pages that it is told of, and writes them back before.
//!   Who tells it waits for those writes, which other workers carry out.

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rustix::fs::{OFlags, SeekFrom, Stat};
use rustix::io::Errno;

use super::{Filesystem, LIFETIMES};
use crate::inodes::Inode;
use crate::source::{self, Look};
use crate::wire::Answer;

/// Holes that are written back one by one; what lies behind them is one range.
const HOLES_MAX: usize = 64;

/// Times that a hole which is looked for may turn out to be data.
const SEEKS_MAX: usize = 1 << 16;

/// What of a file is looked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sought {
    Data,
    Hole,
}

impl Filesystem {
    /// Where the next data or the next hole begins (lseek(2)).
    pub(super) fn seek_written(
        &self,
        inode: &Inode,
        fd: &OwnedFd,
        offset: u64,
        sought: Sought,
    ) -> Result<u64, Errno> {
        let storers = self.storers(inode);
        if storers.is_empty() {
            return seek(fd, offset, sought);
        }
        for _ in 0..SEEKS_MAX {
            let hole = seek(fd, offset, Sought::Hole)?;
            let Some(end) = end_of_hole(fd, hole)? else {
                break;
            };
            if sought == Sought::Data && hole > offset {
                break;
            }
            self.write_back(&storers, hole, end);
            if seek(fd, offset, Sought::Hole)? == hole && end_of_hole(fd, hole)? == Some(end) {
                break;
            }
        }
        seek(fd, offset, sought)
    }

    /// Looks at a file once all stores into its holes are in the source. The
    /// kernel does not take the attributes of such an answer, so what it does not
    /// know yet is answered without.
    pub(super) fn look_written(&self, inode: &Inode, place: &OwnedFd) -> Result<Look, Errno> {
        let look = source::look(place)?;
        if !inode.is_told(&look.stat) || !has_holes(&look.stat) {
            return Ok(look);
        }
        let storers = self.storers(inode);
        if storers.is_empty() {
            return Ok(look);
        }
        let Ok(fd) = source::open_again(place, OFlags::RDONLY | OFlags::NONBLOCK) else {
            return Ok(look);
        };
        let mut offset = 0;
        for number in 0..=HOLES_MAX {
            let Ok(hole) = seek(&fd, offset, Sought::Hole) else {
                break;
            };
            let Ok(Some(end)) = end_of_hole(&fd, hole) else {
                break;
            };
            let end = if number == HOLES_MAX { u64::MAX } else { end };
            self.write_back(&storers, hole, end);
            offset = end;
        }
        source::look(place)
    }

    /// Has the kernel write back all that was stored into a file.
    pub(super) fn write_stores_back(&self, inode: &Inode) {
        self.write_back(&self.storers(inode), 0, u64::MAX);
    }

    /// Has the kernel write back what was stored between two places.
    fn write_back(&self, storers: &[u64], from: u64, to: u64) {
        let (from, len) = (from as i64, to.saturating_sub(from).min(i64::MAX as u64));
        for node in storers {
            self.send(&Answer::outdated_range(*node, from, len as i64));
        }
    }

    /// Inodes of a file, on whichever path, that there may be such stores of.
    fn storers(&self, inode: &Inode) -> Vec<u64> {
        let others = self.inodes.others_of_file(inode);
        let all = std::iter::once(inode).chain(others.iter().map(|other| &**other));
        all.filter(|one| may_have_stores(one))
            .map(|one| one.node)
            .collect()
    }

    /// Notes which attributes the kernel is told of, and says how long it may
    /// believe them: not at all where a store through a mapping could change them,
    /// or another path.
    pub(super) fn told(&self, inode: &Inode, stat: &Stat) -> Duration {
        inode.tell(stat);
        match may_have_stores(inode) && has_holes(stat) {
            true => Duration::ZERO,
            false => self.lifetime(inode, LIFETIMES.attributes),
        }
    }
}

fn may_have_stores(inode: &Inode) -> bool {
    inode.mappers.load(Relaxed) > 0
}

/// Whether there may be any: compressed files look the same.
fn has_holes(stat: &Stat) -> bool {
    stat.st_blocks.saturating_mul(512) < stat.st_size
}

fn seek(fd: &OwnedFd, offset: u64, sought: Sought) -> Result<u64, Errno> {
    let to = match sought {
        Sought::Data => SeekFrom::Data(offset),
        Sought::Hole => SeekFrom::Hole(offset),
    };
    rustix::fs::seek(fd, to)
}

/// Where a hole ends; `None` where it begins behind the file's last byte.
fn end_of_hole(fd: &OwnedFd, hole: u64) -> Result<Option<u64>, Errno> {
    match seek(fd, hole, Sought::Data) {
        Ok(end) => Ok((end > hole).then_some(end)),
        Err(Errno::NXIO) => {
            let size = source::look(fd)?.stat.st_size.cast_unsigned();
            Ok((size > hole).then_some(size))
        }
        Err(error) => Err(error),
    }
}
