//! Folders: opened, listed, synced.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{MutexGuard, PoisonError};

use rustix::fs::{FileType, OFlags, RawDir, RawDirEntry, SeekFrom};
use rustix::io::Errno;

use super::holes::lifetimes;
use super::{Done, Filesystem};
use crate::handles::OpenFolder;
use crate::source;
use crate::wire::{Answer, DirectoryAnswer, Entry, Fields, Header, Lifetimes, Name};

/// Bytes of names that are asked of the source at once.
const NAMES_BYTES: usize = 8 << 10;

impl Filesystem {
    pub(super) fn open_folder(&self, header: &Header, answer: &mut Answer) -> Done {
        let (_, place) = self.place(header.node)?;
        let fd = source::open_again(&place, OFlags::RDONLY | OFlags::DIRECTORY)?;
        answer.open(self.folders.add(OpenFolder(fd.into())), 0);
        Ok(())
    }

    pub(super) fn release_folder(&self, mut fields: Fields<'_>) -> Done {
        let folder = self.folders.remove(fields.u64()?);
        folder.map(drop).ok_or(Errno::BADF)
    }

    pub(super) fn sync_folder(&self, mut fields: Fields<'_>) -> Done {
        let folder = self.folders.get(fields.u64()?)?;
        let fd = lock(&folder).try_clone();
        // Syncing takes long, and others may list meanwhile.
        rustix::fs::fsync(fd.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?)
    }

    pub(super) fn read_folder(
        &self,
        mut fields: Fields<'_>,
        answer: &mut Answer,
        plus: bool,
    ) -> Done {
        let (handle, offset, size) = (fields.u64()?, fields.u64()?, fields.u32()?);
        let folder = self.folders.get(handle)?;
        // The position in a folder is its descriptor's, so one reads at a time.
        let fd = lock(&folder);
        rustix::fs::seek(&*fd, SeekFrom::Start(offset))?;
        let mut names = [MaybeUninit::uninit(); NAMES_BYTES];
        let mut source_names = RawDir::new(&*fd, &mut names);
        let mut directory = DirectoryAnswer::new(answer, size as usize, plus);
        while let Some(found) = source_names.next() {
            let found = match found {
                Ok(found) => found,
                // What came before is told first; the next request fails.
                Err(_) if !directory.is_empty() => break,
                Err(error) => return Err(error),
            };
            let name = name_of(&found);
            if !directory.has_room(name.name) {
                break;
            }
            let known = (plus && !matches!(name.name, b"." | b".."))
                .then(|| self.known(fd.as_fd(), &found))
                .flatten();
            directory.push(
                &name,
                known.as_ref().map(|(lifetimes, entry)| (*lifetimes, entry)),
            );
        }
        Ok(())
    }

    /// The inode behind a name; `None` when it is gone by now or cannot be
    /// looked at, which the kernel finds out by looking it up.
    fn known(&self, folder: BorrowedFd<'_>, found: &RawDirEntry<'_>) -> Option<(Lifetimes, Entry)> {
        let fd = self.inodes.open_name(folder, found.file_name()).ok()?;
        let look = source::look(&fd).ok()?;
        let (inode, entry) = self.enter(fd, &look).ok()?;
        Some((lifetimes(&inode, &look.stat), entry))
    }
}

fn name_of<'a>(found: &'a RawDirEntry<'_>) -> Name<'a> {
    let kind = match found.file_type() {
        FileType::Unknown => 0,
        kind => kind.as_raw_mode() >> 12,
    };
    Name {
        ino: found.ino(),
        next: found.next_entry_cookie(),
        kind,
        name: found.file_name().to_bytes(),
    }
}

fn lock(folder: &OpenFolder) -> MutexGuard<'_, std::os::fd::OwnedFd> {
    folder.0.lock().unwrap_or_else(PoisonError::into_inner)
}
