//! Extended attributes, access lists among them.

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::attributes::take_from_mode;
use super::{Done, Filesystem};
use crate::cache::Touched;
use crate::mountpoint::ALIVE;
use crate::source;
use crate::wire::abi::SETXATTR_KILL_SGID;
use crate::wire::{Answer, Fields, Header};

/// The longest value, and the longest list of names, that Linux has.
const VALUE_BYTES_MAX: usize = 64 << 10;

impl Filesystem {
    pub(super) fn set_extended(&self, header: &Header, mut fields: Fields<'_>) -> Done {
        let (size, flags, also) = (fields.u32()?, fields.u32()?, fields.u32()?);
        fields.skip(4)?;
        let name = fields.name()?;
        let value = fields.bytes(size as usize)?;
        let (inode, place) = self.place(header.node)?;
        let path = source::path_of(&place);
        let flags = XattrFlags::from_bits_retain(flags);
        self.changing(&inode, &place, Touched::Attributes, || {
            let set = || rustix::fs::setxattr(&path, name, value, flags);
            match name.to_bytes().starts_with(b"user.") {
                true => self.rights.acting_as(header.uid, header.gid, set),
                // Others take rights that were checked where they were asked for.
                false => set(),
            }
        })?;
        match also & SETXATTR_KILL_SGID != 0 {
            true => take_from_mode(&place, 0o2000),
            false => Ok(()),
        }
    }

    pub(super) fn get_extended(
        &self,
        header: &Header,
        mut fields: Fields<'_>,
        answer: &mut Answer,
    ) -> Done {
        let size = fields.u32()? as usize;
        fields.skip(4)?;
        let name = fields.name()?;
        if name == ALIVE {
            return Err(Errno::NODATA);
        }
        let (_, place) = self.place(header.node)?;
        let path = source::path_of(&place);
        if size == 0 {
            answer.size(rustix::fs::getxattr_query(&path, name)? as u32);
            return Ok(());
        }
        let mut value = vec![0; size.min(VALUE_BYTES_MAX)];
        let len = rustix::fs::getxattr(&path, name, &mut value[..])?;
        answer.bytes(&value[..len]);
        Ok(())
    }

    pub(super) fn list_extended(
        &self,
        header: &Header,
        mut fields: Fields<'_>,
        answer: &mut Answer,
    ) -> Done {
        let size = fields.u32()? as usize;
        let (_, place) = self.place(header.node)?;
        let path = source::path_of(&place);
        if size == 0 {
            answer.size(rustix::fs::listxattr_query(&path)? as u32);
            return Ok(());
        }
        let mut names = vec![0; size.min(VALUE_BYTES_MAX)];
        let len = rustix::fs::listxattr(&path, &mut names[..])?;
        answer.bytes(&names[..len]);
        Ok(())
    }

    pub(super) fn remove_extended(&self, header: &Header, mut fields: Fields<'_>) -> Done {
        let name = fields.name()?;
        let (inode, place) = self.place(header.node)?;
        self.changing(&inode, &place, Touched::Attributes, || {
            rustix::fs::removexattr(source::path_of(&place), name)
        })
    }
}
