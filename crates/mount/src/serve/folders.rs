//! Folders: opened, listed, synced.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{MutexGuard, PoisonError};

use rustix::fs::{FileType, OFlags, RawDir, RawDirEntry, SeekFrom};
use rustix::io::Errno;

use super::{Done, Filesystem};
use crate::handles::OpenFolder;
use crate::rights::Asker;
use crate::source;
use crate::wire::{Answer, DirectoryAnswer, Entry, Fields, Header, Name};

/// Bytes of names that are asked of the source at once.
const NAMES_BYTES: usize = 8 << 10;

/// Which names are listed.
#[derive(Clone, Copy, Debug)]
struct Listing {
    node: u64,
    device: u64,
    offset: u64,
}

impl Filesystem {
    pub(super) fn open_folder(&self, header: &Header, answer: &mut Answer) -> Done {
        let (_, place) = self.place(header.node)?;
        let open = || source::open_again(&place, OFlags::RDONLY | OFlags::DIRECTORY);
        let fd = self.rights.acting_as(Asker::of(header), open)?;
        let device = source::look(&fd)?.stat.st_dev;
        let fd = fd.into();
        answer.open(self.folders.add(OpenFolder { fd, device }), 0);
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
        header: &Header,
        mut fields: Fields<'_>,
        answer: &mut Answer,
        plus: bool,
    ) -> Done {
        let (handle, offset, size) = (fields.u64()?, fields.u64()?, fields.u32()?);
        let folder = self.folders.get(handle)?;
        // The position in a folder is its descriptor's, so one reads at a time.
        let fd = lock(&folder);
        let listing = Listing {
            node: header.node,
            device: folder.device,
            offset,
        };
        let mut directory = DirectoryAnswer::new(answer, size as usize, plus);
        let asker = Asker::of(header);
        match self.list(&fd, &listing, &mut directory, Some(asker)) {
            Err(error @ (Errno::ACCESS | Errno::PERM)) => {
                let list = || self.list(&fd, &listing, &mut directory, None);
                self.rights.as_himself(asker, list).map_err(|_| error)
            }
            result => result,
        }
    }

    /// Fills an answer with the names of a folder; with no `asker` as who we are already.
    fn list(
        &self,
        fd: &OwnedFd,
        listing: &Listing,
        directory: &mut DirectoryAnswer<'_>,
        asker: Option<Asker>,
    ) -> Done {
        rustix::fs::seek(fd, SeekFrom::Start(listing.offset))?;
        let mut names = [MaybeUninit::uninit(); NAMES_BYTES];
        let mut source_names = RawDir::new(fd, &mut names);
        while let Some(found) = source_names.next() {
            let found = match found {
                Ok(found) => found,
                // What came before is told first; the next request fails.
                Err(_) if !directory.is_empty() => break,
                Err(error) => return Err(error),
            };
            let mut name = name_of(&found);
            name.ino = self.inodes.numbers.shown(listing.device, name.ino);
            if !directory.has_room(name.name) {
                break;
            }
            let known = (directory.is_plus() && !matches!(name.name, b"." | b".."))
                .then(|| self.known(asker, listing.node, fd.as_fd(), &found))
                .flatten();
            directory.push(&name, known.as_ref());
        }
        Ok(())
    }

    /// The inode behind a name; `None` when it is gone by now or cannot be
    /// looked at, which the kernel finds out by looking it up.
    fn known(
        &self,
        asker: Option<Asker>,
        node: u64,
        folder: BorrowedFd<'_>,
        found: &RawDirEntry<'_>,
    ) -> Option<Entry> {
        let open = || self.inodes.open_name(folder, found.file_name());
        let fd = match asker {
            Some(asker) => self.rights.or_as(asker, open),
            None => open(),
        };
        let fd = fd.ok()?;
        let look = source::look(&fd).ok()?;
        self.enter(node, fd, &look).ok().map(|(_, entry)| entry)
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

fn lock(folder: &OpenFolder) -> MutexGuard<'_, OwnedFd> {
    folder.fd.lock().unwrap_or_else(PoisonError::into_inner)
}
