//! Bytes of files: read from the cache or the source, written to the source.
//!
//! - A read is answered short only at the end of the file: the kernel takes a
//!   short answer for the end, so a read that fails halfway fails whole.
//! - A change is answered after what was kept of its bytes is gone, also when
//!   it failed, for part of it may have been done.
//! - A read gives back what is fresh of it; it is kept after the answer was sent:
//!   who asked does not wait for the codec.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use rustix::fs::{Advice, FallocateFlags, OFlags};
use rustix::io::{Errno, ReadWriteFlags};
use zcache::{PAGE_SIZE, Page};

use super::holes::Sought;
use super::{Done, Filesystem};
use crate::cache::{Touched, Version, Watched};
use crate::handles::OpenFile;
use crate::notices::Outdated;
use crate::rights::{Asker, SetIds};
use crate::source;
use crate::wire::abi::{WRITE_FROM_CACHE, WRITE_KILL_PRIVILEGES};
use crate::wire::{Answer, Fields, Header};

/// `RWF_DONTCACHE` of Linux 6.14: what a read brings into the page cache leaves
/// it with the read.
const DONT_CACHE: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);

/// From here on a read is faster past the source's page cache than through it.
const LONG_READ_BYTES: usize = 64 << 10;

/// The most that is copied at once, so that the answer does not take forever.
const COPY_BYTES_MAX: u64 = 1 << 30;

/// What READ asks for.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    offset: u64,
    size: usize,
}

/// The pages that a READ is answered with.
pub(crate) struct Answered {
    /// Bytes of the answer; they are the first of the pages.
    pub(crate) len: usize,
    /// What was read from the source, if anything was that may be kept.
    pub(crate) fresh: Option<Fresh>,
}

/// Pages that have just been read from the source.
pub(crate) struct Fresh {
    file: Arc<OpenFile>,
    version: Version,
    pages: Vec<FreshPage>,
}

impl Fresh {
    pub(crate) fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    /// Copies the pages to where they outlast their answer.
    pub(crate) fn move_to(&mut self, pages: &[Page], room: &mut [Page]) {
        for (page, to) in self.pages.iter_mut().zip(room.iter_mut()) {
            *to = pages[page.at];
        }
        for (number, page) in self.pages.iter_mut().enumerate() {
            page.at = number;
        }
    }
}

/// One of them.
#[derive(Clone, Copy, Debug)]
struct FreshPage {
    index: u32,
    /// Which of the pages at hand it is.
    at: usize,
    /// How many bytes of it exist.
    len: usize,
}

impl Filesystem {
    /// Reads what a READ asks for into `pages`. Afterwards what is fresh of it
    /// is to be kept.
    pub(crate) fn read(
        &self,
        mut fields: Fields<'_>,
        pages: &mut [Page],
        lens: &mut [Option<usize>],
    ) -> Result<Answered, Errno> {
        let file = self.files.get(fields.u64()?)?;
        let (offset, size) = (fields.u64()?, fields.u32()? as usize);
        if size > pages.len() * PAGE_SIZE {
            return Err(Errno::INVAL);
        }
        let wanted = Wanted { offset, size };
        let Some(first) = first_page(&file, wanted) else {
            let bytes = &mut pages.as_flattened_mut()[..size];
            let len = self.read_source(&file, bytes, offset)?;
            return Ok(Answered { len, fresh: None });
        };
        let version = file.inode.coherence().version();
        let count = size.div_ceil(PAGE_SIZE);
        let (pages, lens) = (&mut pages[..count], &mut lens[..count]);
        self.cache.get(&version, first, pages, lens);
        let missed = self.read_missed(&file, first, pages, lens)?;
        let len = bytes_before_end(lens, size);
        let fresh = (!missed.is_empty()).then_some(Fresh {
            file,
            version,
            pages: missed,
        });
        Ok(Answered { len, fresh })
    }

    /// Reads the pages that are not there, by as few reads as may be, and says
    /// which they were.
    fn read_missed(
        &self,
        file: &OpenFile,
        first: u32,
        pages: &mut [Page],
        lens: &mut [Option<usize>],
    ) -> Result<Vec<FreshPage>, Errno> {
        let mut missed = Vec::new();
        let mut at = 0;
        while at < pages.len() {
            if lens[at].is_some() {
                at += 1;
                continue;
            }
            let run = lens[at..].iter().take_while(|len| len.is_none());
            let end = at + run.count();
            let offset = (u64::from(first) + at as u64) * PAGE_SIZE as u64;
            let start = Instant::now();
            let got = self.read_source(file, pages[at..end].as_flattened_mut(), offset)?;
            if let Some(worth) = &self.cache.worth {
                worth.learn_of_source(pages.len(), end - at, start.elapsed());
            }
            for (number, slot) in lens[at..end].iter_mut().enumerate() {
                let len = got.saturating_sub(number * PAGE_SIZE).min(PAGE_SIZE);
                *slot = Some(len);
                if len > 0 {
                    let at = at + number;
                    let index = first + at as u32;
                    missed.push(FreshPage { index, at, len });
                }
            }
            at = end;
        }
        Ok(missed)
    }

    /// Leaves of the fresh pages those that are to be kept, and remembers the
    /// others.
    pub(crate) fn choose(&self, fresh: &mut Fresh) {
        let Fresh { version, pages, .. } = fresh;
        pages.retain(|page| self.cache.wants(version, page.index));
    }

    /// Keeps the pages that were chosen.
    pub(crate) fn keep(&self, fresh: &Fresh, pages: &mut [Page]) {
        let coherence = fresh.file.inode.coherence();
        for FreshPage { index, at, len } in &fresh.pages {
            let page = &mut pages[*at];
            self.cache
                .keep(coherence, &fresh.version, *index, page, *len);
        }
    }

    /// Reads until the bytes are full or the file ends.
    fn read_source(&self, file: &OpenFile, bytes: &mut [u8], offset: u64) -> Result<usize, Errno> {
        if file.live {
            // What there is now; the next read may wait for more.
            return rustix::io::retry_on_intr(|| rustix::io::pread(&file.fd, &mut *bytes, offset));
        }
        let mut done = read_past_cache(file, bytes, offset)?;
        while done < bytes.len() {
            match self.read_once(&file.fd, &mut bytes[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(len) => done += len,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// One read that leaves no second copy in the page cache, which is not in
    /// our budget.
    fn read_once(&self, fd: &OwnedFd, bytes: &mut [u8], offset: u64) -> Result<usize, Errno> {
        if self.reads_uncached.load(Relaxed) {
            let result = rustix::io::preadv2(fd, &mut [IoSliceMut::new(bytes)], offset, DONT_CACHE);
            if !matches!(result, Err(Errno::OPNOTSUPP | Errno::NOSYS)) {
                return result;
            }
            self.reads_uncached.store(false, Relaxed);
        }
        let len = rustix::io::pread(fd, bytes, offset)?;
        let whole = std::num::NonZeroU64::new(len as u64);
        // Advice: where it is not taken there is nothing to be done.
        let _ = rustix::fs::fadvise(fd, offset, whole, Advice::DontNeed);
        Ok(len)
    }

    pub(super) fn write(
        &self,
        header: &Header,
        mut fields: Fields<'_>,
        answer: &mut Answer,
    ) -> Done {
        let file = self.files.get(fields.u64()?)?;
        let (offset, size, about) = (fields.u64()?, fields.u32()?, fields.u32()?);
        fields.skip(8)?;
        let flags = OFlags::from_bits_retain(fields.u32()?);
        fields.skip(4)?;
        let bytes = fields.bytes(size as usize)?;
        let from_cache = about & WRITE_FROM_CACHE != 0;
        // What was stored through a mapping comes from nobody in particular.
        let asker = match from_cache {
            true => file.opener,
            false => Asker::of(header),
        };
        let by = Writer {
            asker,
            set_ids: SetIds::lost_if(about & WRITE_KILL_PRIVILEGES != 0),
        };
        let written = match flags.contains(OFlags::APPEND) && !from_cache {
            true => self.append(&file, by, bytes, offset)?,
            false => self.write_at(&file, by, bytes, offset)?,
        };
        if let (true, Some(error)) = (from_cache, written.error) {
            // The kernel takes any answer to such a write for all of it.
            return Err(error);
        }
        answer.size(written.len as u32);
        Ok(())
    }

    fn write_at(
        &self,
        file: &OpenFile,
        by: Writer,
        bytes: &[u8],
        offset: u64,
    ) -> Result<Written, Errno> {
        let touched = Touched::range(offset, bytes.len() as u64);
        let again;
        let fd = match file.appends {
            // Linux would append here, wherever the bytes belong.
            true => {
                let open = || source::open_again(&file.fd, OFlags::WRONLY);
                again = self.rights.acting_as(by.asker, open)?;
                &again
            }
            false => &file.fd,
        };
        self.changing(&file.inode, fd, touched, || {
            let written = self.rights.changing_as(by.asker, by.set_ids, fd, || {
                write_all(bytes, |rest, done| {
                    rustix::io::pwrite(fd, rest, offset + done as u64)
                })
            })?;
            file.inode.grew_to(offset + written.len as u64);
            Ok(written)
        })
    }

    /// Writes at the end of the file, wherever that is: the kernel expects it
    /// where it was when it last asked.
    fn append(
        &self,
        file: &OpenFile,
        by: Writer,
        bytes: &[u8],
        expected: u64,
    ) -> Result<Written, Errno> {
        let (mut start, mut end) = (expected, expected);
        let written = self.changing_where(&file.inode, &file.fd, || {
            start = end_of(&file.fd).unwrap_or(expected);
            let written = self.rights.changing_as(by.asker, by.set_ids, &file.fd, || {
                write_all(bytes, |rest, _| append_once(&file.fd, rest))
            });
            end = end_of(&file.fd).unwrap_or(u64::MAX);
            file.inode.grew_to(end);
            let first = start.min(expected);
            (written, Touched::range(first, end.saturating_sub(first)))
        })?;
        if start != expected || end != expected + written.len as u64 {
            self.appended_elsewhere(file);
        }
        Ok(written)
    }

    /// The kernel believes the file to end where it did, and has kept the bytes
    /// there.
    fn appended_elsewhere(&self, file: &OpenFile) {
        let coherence = file.inode.coherence();
        if let Some(object) = coherence.changed_beside() {
            self.cache.flush(object);
        }
        match self.watched(&file.inode) {
            Watched::Yes => self.notices.inode(file.inode.node, Outdated::Contents),
            // Before it reads, it asks for the attributes, which say as much.
            Watched::No => self.notices.contents_later(file.inode.node),
        }
        self.outdated_elsewhere(&file.inode, Outdated::Contents);
    }

    pub(super) fn allocate(&self, header: &Header, mut fields: Fields<'_>) -> Done {
        let file = self.files.get(fields.u64()?)?;
        let (offset, len, mode) = (fields.u64()?, fields.u64()?, fields.u32()?);
        let mode = FallocateFlags::from_bits_retain(mode);
        let moves = FallocateFlags::COLLAPSE_RANGE | FallocateFlags::INSERT_RANGE;
        let touched = match mode.intersects(moves) {
            true => Touched::All,
            false => Touched::range(offset, len),
        };
        self.changing(&file.inode, &file.fd, touched, || {
            let asker = Asker::of(header);
            self.rights
                .changing_as(asker, SetIds::Untold, &file.fd, || {
                    rustix::fs::fallocate(&file.fd, mode, offset, len)
                })?;
            if !mode.contains(FallocateFlags::KEEP_SIZE) {
                file.inode.grew_to(offset.saturating_add(len));
            }
            Ok(())
        })
    }

    pub(super) fn seek(&self, mut fields: Fields<'_>, answer: &mut Answer) -> Done {
        let file = self.files.get(fields.u64()?)?;
        let (offset, whence) = (fields.u64()?, fields.u32()?);
        let sought = match whence {
            3 => Sought::Data,
            4 => Sought::Hole,
            _ => return Err(Errno::INVAL),
        };
        answer.u64(self.seek_written(&file.inode, &file.fd, offset, sought)?);
        Ok(())
    }

    pub(super) fn copy_range(
        &self,
        header: &Header,
        mut fields: Fields<'_>,
        answer: &mut Answer,
    ) -> Done {
        let from = self.files.get(fields.u64()?)?;
        let mut from_offset = fields.u64()?;
        let _node = fields.u64()?;
        let to = self.files.get(fields.u64()?)?;
        let (to_offset, len) = (fields.u64()?, fields.u64()?);
        let mut to_end = to_offset;
        let len = len.min(COPY_BYTES_MAX);
        let touched = Touched::range(to_offset, len);
        let copied = self.changing(&to.inode, &to.fd, touched, || {
            let (asker, untold) = (Asker::of(header), SetIds::Untold);
            let copied = self.rights.changing_as(asker, untold, &to.fd, || {
                let (from_at, to_at) = (Some(&mut from_offset), Some(&mut to_end));
                rustix::fs::copy_file_range(&from.fd, from_at, &to.fd, to_at, len as usize)
            })?;
            to.inode.grew_to(to_offset + copied as u64);
            Ok(copied)
        })?;
        answer.size(copied as u32);
        Ok(())
    }
}

/// Reads what is long and not just written without the source's page cache, and
/// says how far it came; what is left, nothing being wrong, is read otherwise.
fn read_past_cache(file: &OpenFile, bytes: &mut [u8], offset: u64) -> Result<usize, Errno> {
    let long = bytes.len() >= LONG_READ_BYTES;
    let aligned = offset.is_multiple_of(PAGE_SIZE as u64) && bytes.len().is_multiple_of(PAGE_SIZE);
    // What was just written would have to be written out first.
    if !long || !aligned || file.inode.coherence().is_written() {
        return Ok(0);
    }
    let Some(fd) = file.past_cache() else {
        return Ok(0);
    };
    match rustix::io::pread(fd, bytes, offset) {
        // An end within a block is left to a read that need not be aligned.
        Ok(len) => Ok(len / PAGE_SIZE * PAGE_SIZE),
        Err(Errno::INVAL | Errno::INTR | Errno::OPNOTSUPP) => Ok(0),
        Err(error) => Err(error),
    }
}

/// The number of the first page, where pages are to be looked for and kept.
fn first_page(file: &OpenFile, wanted: Wanted) -> Option<u32> {
    let aligned = wanted.offset.is_multiple_of(PAGE_SIZE as u64);
    let end = wanted.offset.checked_add(wanted.size as u64)?;
    // A file's pages beyond 16 TiB have no number in the store.
    let numbered = end <= u64::from(u32::MAX) * PAGE_SIZE as u64;
    (aligned && numbered && !file.direct).then(|| (wanted.offset / PAGE_SIZE as u64) as u32)
}

/// Bytes up to the first page that is not full.
fn bytes_before_end(lens: &[Option<usize>], size: usize) -> usize {
    let mut bytes = 0;
    for len in lens {
        let len = len.unwrap_or_default();
        bytes += len;
        if len < PAGE_SIZE {
            break;
        }
    }
    bytes.min(size)
}

/// Who writes.
#[derive(Clone, Copy, Debug)]
struct Writer {
    asker: Asker,
    set_ids: SetIds,
}

/// What came of a write.
#[derive(Clone, Copy, Debug)]
struct Written {
    len: usize,
    /// Why it was not all.
    error: Option<Errno>,
}

/// Writes until all is written. `write` is given what is left and how much was
/// written before it.
fn write_all(
    bytes: &[u8],
    mut write: impl FnMut(&[u8], usize) -> Result<usize, Errno>,
) -> Result<Written, Errno> {
    let mut len = 0;
    let mut error = None;
    while len < bytes.len() && error.is_none() {
        match write(&bytes[len..], len) {
            Ok(0) => error = Some(Errno::IO),
            Ok(more) => len += more,
            Err(Errno::INTR) => {}
            Err(why) if len == 0 => return Err(why),
            // What was written counts.
            Err(why) => error = Some(why),
        }
    }
    Ok(Written { len, error })
}

/// Where the file ends.
fn end_of(fd: impl AsFd) -> Result<u64, Errno> {
    Ok(source::look(fd)?.stat.st_size.cast_unsigned())
}

fn append_once(fd: impl AsFd, bytes: &[u8]) -> Result<usize, Errno> {
    let slices = [IoSlice::new(bytes)];
    match rustix::io::pwritev2(&fd, &slices, 0, ReadWriteFlags::APPEND) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => rustix::io::pwrite(&fd, bytes, end_of(&fd)?),
        done => done,
    }
}
