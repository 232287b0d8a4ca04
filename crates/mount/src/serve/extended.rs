//! Extended attributes, access lists among them.

use std::ffi::CStr;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::attributes::take_from_mode;
use super::{Done, Filesystem};
use crate::cache::Touched;
use crate::mountpoint::ALIVE;
use crate::rights::Asker;
use crate::source;
use crate::wire::abi::SETXATTR_KILL_SGID;
use crate::wire::{Answer, Fields, Header};

/// The longest value, and the longest list of names, that Linux has.
const VALUE_BYTES_MAX: usize = 64 << 10;

/// What a program may do beyond its user's rights.
const CAPABILITY: &CStr = c"security.capability";

impl Filesystem {
    pub(super) fn set_extended(&self, header: &Header, mut fields: Fields<'_>) -> Done {
        let (size, flags, also) = (fields.u32()?, fields.u32()?, fields.u32()?);
        fields.skip(4)?;
        let name = fields.name()?;
        let value = fields.bytes(size as usize)?;
        let (inode, place) = self.place(header.node)?;
        let path = source::path_of(&place);
        let flags = XattrFlags::from_bits_retain(flags);
        if name == CAPABILITY {
            // Which bytes that are written later would take.
            self.write_stores_back(&inode);
        }
        self.changing(&inode, &place, Touched::Attributes, || {
            let set = || rustix::fs::setxattr(&path, name, value, flags);
            match name.to_bytes().starts_with(b"user.") {
                true => self.rights.acting_as(Asker::of(header), set),
                // Others take rights that were checked where they were asked for.
                false => self.rights.or_as(Asker::of(header), set),
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
        let asker = Asker::of(header);
        let none = |error| without_lists(name, error);
        if size == 0 {
            let query = || rustix::fs::getxattr_query(&path, name);
            answer.size(self.rights.or_as(asker, query).map_err(none)? as u32);
            return Ok(());
        }
        let get = || {
            let mut value = vec![0; size.min(VALUE_BYTES_MAX)];
            let len = rustix::fs::getxattr(&path, name, &mut value[..])?;
            value.truncate(len);
            Ok(value)
        };
        answer.bytes(&self.rights.or_as(asker, get).map_err(none)?);
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
        // Which names there are depends on who asks: trusted ones are for
        // administrators.
        let asker = Asker::of(header);
        if size == 0 {
            let query = || rustix::fs::listxattr_query(&path);
            answer.size(self.rights.acting_as(asker, query)? as u32);
            return Ok(());
        }
        let list = || {
            let mut names = vec![0; size.min(VALUE_BYTES_MAX)];
            let len = rustix::fs::listxattr(&path, &mut names[..])?;
            names.truncate(len);
            Ok(names)
        };
        answer.bytes(&self.rights.acting_as(asker, list)?);
        Ok(())
    }

    pub(super) fn remove_extended(&self, header: &Header, mut fields: Fields<'_>) -> Done {
        let name = fields.name()?;
        let (inode, place) = self.place(header.node)?;
        if name == CAPABILITY && header.uid != 0 {
            // The kernel asks for this also in front of changes that it has not
            // checked yet. Each of them takes capabilities itself.
            let owner = source::look(&place)?.stat.st_uid;
            if header.uid != owner {
                return Ok(());
            }
        }
        self.changing(&inode, &place, Touched::Attributes, || {
            let remove = || rustix::fs::removexattr(source::path_of(&place), name);
            self.rights.or_as(Asker::of(header), remove)
        })
    }
}

/// What is said where the source has no access lists. The kernel asks for them
/// whenever it checks a right, and only knows "there is none" and errors.
fn without_lists(name: &CStr, error: Errno) -> Errno {
    let lists = [c"system.posix_acl_access", c"system.posix_acl_default"];
    match error == Errno::OPNOTSUPP && lists.contains(&name) {
        true => Errno::NODATA,
        false => error,
    }
}
