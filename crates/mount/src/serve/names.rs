//! Names: looking them up, making, linking, renaming and removing them.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, CWD, FileType, Mode, RenameFlags};
use rustix::io::Errno;

use super::{Done, Filesystem};
use crate::cache::Touched;
use crate::rights::Asker;
use crate::source;
use crate::wire::{Answer, Fields, Header};

impl Filesystem {
    pub(super) fn lookup(
        &self,
        header: &Header,
        mut fields: Fields<'_>,
        answer: &mut Answer,
    ) -> Done {
        let (_, folder) = self.place(header.node)?;
        self.answer_name(header, folder.as_fd(), fields.name()?, answer)
    }

    /// Answers with the inode that a name stands for.
    fn answer_name(
        &self,
        header: &Header,
        folder: BorrowedFd<'_>,
        name: &CStr,
        answer: &mut Answer,
    ) -> Done {
        let open = || self.inodes.open_name(folder, name);
        let fd = self.with_room(|| self.rights.or_as(Asker::of(header), open))?;
        let look = source::look(&fd)?;
        let (_, entry) = self.enter(header.node, fd, &look)?;
        answer.entry(&entry);
        Ok(())
    }

    pub(super) fn read_link(&self, header: &Header, answer: &mut Answer) -> Done {
        let (_, place) = self.place(header.node)?;
        let read = || rustix::fs::readlinkat(&place, c"", Vec::new());
        let target = self.rights.or_as(Asker::of(header), read)?;
        answer.bytes(target.as_bytes());
        Ok(())
    }

    pub(super) fn make_symlink(
        &self,
        header: &Header,
        mut fields: Fields<'_>,
        answer: &mut Answer,
    ) -> Done {
        let (name, target) = (fields.name()?, fields.name()?);
        let (_, folder) = self.place(header.node)?;
        self.rights.acting_as(Asker::of(header), || {
            rustix::fs::symlinkat(target, &folder, name)
        })?;
        self.answer_name(header, folder.as_fd(), name, answer)
    }

    pub(super) fn make_node(
        &self,
        header: &Header,
        mut fields: Fields<'_>,
        answer: &mut Answer,
    ) -> Done {
        let (mode, device, umask) = (fields.u32()?, fields.u32()?, fields.u32()?);
        fields.skip(4)?;
        let name = fields.name()?;
        let (_, folder) = self.place(header.node)?;
        let permissions = masked(folder.as_fd(), mode, umask);
        let kind = FileType::from_raw_mode(mode);
        let (major, minor) = (
            (device >> 8) & 0xfff,
            device & 0xff | (device >> 12) & 0xf_ff00,
        );
        self.rights.acting_as(Asker::of(header), || {
            let device = rustix::fs::makedev(major, minor);
            rustix::fs::mknodat(&folder, name, kind, permissions, device)
        })?;
        self.answer_name(header, folder.as_fd(), name, answer)
    }

    pub(super) fn make_folder(
        &self,
        header: &Header,
        mut fields: Fields<'_>,
        answer: &mut Answer,
    ) -> Done {
        let (mode, umask) = (fields.u32()?, fields.u32()?);
        let name = fields.name()?;
        let (_, folder) = self.place(header.node)?;
        let permissions = masked(folder.as_fd(), mode, umask);
        self.rights.acting_as(Asker::of(header), || {
            rustix::fs::mkdirat(&folder, name, permissions)
        })?;
        self.answer_name(header, folder.as_fd(), name, answer)
    }

    pub(super) fn unlink(&self, header: &Header, mut fields: Fields<'_>, folder: bool) -> Done {
        let name = fields.name()?;
        let flags = match folder {
            true => AtFlags::REMOVEDIR,
            false => AtFlags::empty(),
        };
        let (_, parent) = self.place(header.node)?;
        let unlink = || rustix::fs::unlinkat(&parent, name, flags);
        self.rights.or_as(Asker::of(header), unlink)
    }

    pub(super) fn rename(&self, header: &Header, mut fields: Fields<'_>, flagged: bool) -> Done {
        let to_node = fields.u64()?;
        let mut flags = RenameFlags::empty();
        if flagged {
            flags = RenameFlags::from_bits_retain(fields.u32()?);
            fields.skip(4)?;
        }
        let (name, to_name) = (fields.name()?, fields.name()?);
        let (_, from) = self.place(header.node)?;
        let (_, to) = self.place(to_node)?;
        if flags.contains(RenameFlags::WHITEOUT) {
            // Only an overlay asks for it, and it would belong to the wrong user.
            return Err(Errno::INVAL);
        }
        self.rights.acting_as(Asker::of(header), || {
            rustix::fs::renameat_with(&from, name, &to, to_name, flags)
        })
    }

    pub(super) fn link(
        &self,
        header: &Header,
        mut fields: Fields<'_>,
        answer: &mut Answer,
    ) -> Done {
        let (inode, place) = self.place(fields.u64()?)?;
        let name = fields.name()?;
        let (_, folder) = self.place(header.node)?;
        let path = source::path_of(&place);
        self.changing(&inode, &place, Touched::Attributes, || {
            self.rights.acting_as(Asker::of(header), || {
                rustix::fs::linkat(CWD, &path, &folder, name, AtFlags::SYMLINK_FOLLOW)
            })
        })?;
        self.answer_name(header, folder.as_fd(), name, answer)
    }
}

/// The permissions of a new file: less those of the user's mask, unless the
/// folder has a list of its own that says what new files get.
pub(super) fn masked(folder: BorrowedFd<'_>, mode: u32, umask: u32) -> Mode {
    let inherits = umask != 0
        && rustix::fs::getxattr_query(source::path_of(folder), c"system.posix_acl_default").is_ok();
    let mask = if inherits { 0 } else { umask };
    Mode::from_raw_mode(mode & 0o7777 & !mask)
}
