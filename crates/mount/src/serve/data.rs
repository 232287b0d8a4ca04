//! Bytes of files: read from the cache or the source, written to the source.
//!
//! - A read is answered short only at the end of the file: the kernel takes a
//!   short answer for the end, so a read that fails halfway fails whole.
//! - A change is answered after what was kept of its bytes is gone, also when
//!   it failed, for part of it may have been done.
//! - Pages are kept after the answer was sent: who asked does not wait for the
//!   codec.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering::Relaxed;

use rustix::fs::{Advice, FallocateFlags, SeekFrom};
use rustix::io::{Errno, ReadWriteFlags};
use zcache::PAGE_SIZE;

use super::attributes::kill_privileges;
use super::{Done, Filesystem, Scratch};
use crate::cache::Version;
use crate::device::Device;
use crate::handles::OpenFile;
use crate::wire::abi::WRITE_KILL_PRIVILEGES;
use crate::wire::{Answer, Fields, Header};

/// `RWF_DONTCACHE` of Linux 6.14: what a read brings into the page cache leaves
/// it with the read.
const DONT_CACHE: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);

/// From here on a read is faster past the source's page cache than through it.
const LONG_READ_BYTES: usize = 64 << 10;

/// What READ asks for.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    offset: u64,
    size: usize,
}

impl Filesystem {
    /// Answers a READ itself, and then keeps what it read.
    pub(crate) fn read(
        &self,
        header: &Header,
        mut fields: Fields<'_>,
        scratch: &mut Scratch,
        device: &Device,
    ) -> std::io::Result<()> {
        let unique = header.unique;
        let parsed = (|| {
            let file = self.files.get(fields.u64()?)?;
            let (offset, size) = (fields.u64()?, fields.u32()? as usize);
            let room = scratch.pages.len() * PAGE_SIZE;
            let size = if size <= room {
                size
            } else {
                return Err(Errno::INVAL);
            };
            Ok((file, Wanted { offset, size }))
        })();
        let (file, wanted) = match parsed {
            Ok(parsed) => parsed,
            Err(error) => return refuse(device, scratch, unique, error),
        };
        let Some(first) = first_page(&file, wanted) else {
            let bytes = &mut scratch.pages.as_flattened_mut()[..wanted.size];
            return match self.read_source(&file, bytes, wanted.offset) {
                Ok(len) => send(device, scratch, unique, len),
                Err(error) => refuse(device, scratch, unique, error),
            };
        };
        let version = file.inode.coherence().version();
        let count = wanted.size.div_ceil(PAGE_SIZE);
        for (number, page) in scratch.pages[..count].iter_mut().enumerate() {
            let last = number + 1 == count;
            scratch.lens[number] = self.cache.get(&version, first + number as u32, last, page);
        }
        let missed = match self.read_missed(&file, first, count, scratch) {
            Ok(missed) => missed,
            Err(error) => return refuse(device, scratch, unique, error),
        };
        send(
            device,
            scratch,
            unique,
            bytes_before_end(&scratch.lens[..count], wanted.size),
        )?;
        self.keep(&file, &version, first, missed, scratch);
        Ok(())
    }

    /// Reads the pages that are not there, by as few reads as may be, and gives
    /// their numbers as ranges.
    fn read_missed(
        &self,
        file: &OpenFile,
        first: u32,
        count: usize,
        scratch: &mut Scratch,
    ) -> Result<Vec<std::ops::Range<usize>>, Errno> {
        let mut missed = Vec::new();
        let mut at = 0;
        while at < count {
            if scratch.lens[at].is_some() {
                at += 1;
                continue;
            }
            let run = scratch.lens[at..count]
                .iter()
                .take_while(|len| len.is_none());
            let end = at + run.count();
            let offset = (u64::from(first) + at as u64) * PAGE_SIZE as u64;
            let bytes = scratch.pages[at..end].as_flattened_mut();
            let got = self.read_source(file, bytes, offset)?;
            for (number, len) in scratch.lens[at..end].iter_mut().enumerate() {
                *len = Some(got.saturating_sub(number * PAGE_SIZE).min(PAGE_SIZE));
            }
            missed.push(at..end);
            at = end;
        }
        Ok(missed)
    }

    fn keep(
        &self,
        file: &OpenFile,
        version: &Version,
        first: u32,
        missed: Vec<std::ops::Range<usize>>,
        scratch: &mut Scratch,
    ) {
        for number in missed.into_iter().flatten() {
            let len = scratch.lens[number].unwrap_or_default();
            if len > 0 {
                let page = &mut scratch.pages[number];
                let index = first + number as u32;
                let coherence = file.inode.coherence();
                self.cache.offer(coherence, version, index, page, len);
            }
        }
    }

    /// Reads until the bytes are full or the file ends.
    fn read_source(&self, file: &OpenFile, bytes: &mut [u8], offset: u64) -> Result<usize, Errno> {
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

    pub(super) fn write(&self, mut fields: Fields<'_>, answer: &mut Answer) -> Done {
        let file = self.files.get(fields.u64()?)?;
        let (offset, size, flags) = (fields.u64()?, fields.u32()?, fields.u32()?);
        fields.skip(16)?;
        let bytes = fields.bytes(size as usize)?;
        if flags & WRITE_KILL_PRIVILEGES != 0 {
            kill_privileges(&file.fd)?;
        }
        let result = write_all(&file.fd, bytes, offset);
        self.cache
            .changed(file.inode.coherence(), offset, bytes.len() as u64);
        answer.size(result? as u32);
        Ok(())
    }

    pub(super) fn allocate(&self, mut fields: Fields<'_>) -> Done {
        let file = self.files.get(fields.u64()?)?;
        let (offset, len, mode) = (fields.u64()?, fields.u64()?, fields.u32()?);
        let mode = FallocateFlags::from_bits_retain(mode);
        let result = rustix::fs::fallocate(&file.fd, mode, offset, len);
        let moves = FallocateFlags::COLLAPSE_RANGE | FallocateFlags::INSERT_RANGE;
        match mode.intersects(moves) {
            true => self.cache.changed_all(file.inode.coherence()),
            false => self.cache.changed(file.inode.coherence(), offset, len),
        }
        result
    }

    pub(super) fn seek(&self, mut fields: Fields<'_>, answer: &mut Answer) -> Done {
        let file = self.files.get(fields.u64()?)?;
        let (offset, whence) = (fields.u64()?, fields.u32()?);
        let to = match whence {
            3 => SeekFrom::Data(offset),
            4 => SeekFrom::Hole(offset),
            _ => return Err(Errno::INVAL),
        };
        answer.u64(rustix::fs::seek(&file.fd, to)?);
        Ok(())
    }

    pub(super) fn copy_range(&self, mut fields: Fields<'_>, answer: &mut Answer) -> Done {
        let from = self.files.get(fields.u64()?)?;
        let mut from_offset = fields.u64()?;
        let _node = fields.u64()?;
        let to = self.files.get(fields.u64()?)?;
        let (to_offset, len) = (fields.u64()?, fields.u64()?);
        let mut to_end = to_offset;
        let copied = rustix::fs::copy_file_range(
            &from.fd,
            Some(&mut from_offset),
            &to.fd,
            Some(&mut to_end),
            usize::try_from(len).unwrap_or(usize::MAX).min(1 << 30),
        );
        self.cache.changed(to.inode.coherence(), to_offset, len);
        answer.size(copied? as u32);
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

fn write_all(fd: impl AsFd, bytes: &[u8], offset: u64) -> Result<usize, Errno> {
    let mut done = 0;
    while done < bytes.len() {
        match rustix::io::pwrite(&fd, &bytes[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(len) => done += len,
            Err(Errno::INTR) => {}
            // What was written counts; the next write meets the error again.
            Err(_) if done > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

fn send(device: &Device, scratch: &mut Scratch, unique: u64, len: usize) -> std::io::Result<()> {
    scratch.answer.clear();
    let head = scratch.answer.finish(unique, 0, len);
    device.answer(head, &scratch.pages.as_flattened()[..len])
}

fn refuse(
    device: &Device,
    scratch: &mut Scratch,
    unique: u64,
    error: Errno,
) -> std::io::Result<()> {
    device.answer(scratch.answer.finish(unique, error.raw_os_error(), 0), &[])
}
