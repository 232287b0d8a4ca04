//! What makes an inode of the source itself, and the number that it is shown by.
//!
//! Stage: under the table of inodes. What it does not do: remember inodes.
//!
//! - An inode is what one mount shows of a file: what is read-only on one path
//!   may be writable on another, and a folder has one parent on each.
//! - Where handles last as long as the file, the handle is the file's name.
//!   Elsewhere (FUSE, network filesystems that make up handles, FAT) a handle may
//!   stand for a path, or for what is in RAM just now; there, device, number and
//!   time of birth name the file while a descriptor of it is open, and with them
//!   its type and, of a symbolic link, where it leads: a server may put another
//!   one in its place.
//! - Numbers of the source's own filesystem are shown as they are. Those of
//!   filesystems and subvolumes within it begin with a mark, so that two files
//!   never have one number.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{PoisonError, RwLock};

use rustix::fs::{AtFlags, FileType, Stat, StatxFlags};
use rustix::io::Errno;
use zcache_sys::filehandle::{FileHandle, MountId};

/// Filesystems whose handles are never given to another file, and by which a
/// file is found as long as it exists; by their numbers in statfs(2): ext2 to
/// ext4, XFS, Btrfs, F2FS, tmpfs, NFS, Bcachefs, ZFS, JFS, NILFS, NTFS, OCFS2,
/// GFS2, Lustre, Ceph, UBIFS, UDF, ISO 9660, SquashFS, EROFS, overlayfs.
const WITH_LASTING_HANDLES: [u64; 21] = [
    0xef53,
    0x5846_5342,
    0x9123_683e,
    0xf2f5_2010,
    0x0102_1994,
    0x6969,
    0xca45_1a4e,
    0x2fc1_2fc1,
    0x3153_464a,
    0x3434,
    0x7366_746e,
    0x7461_636f,
    0x0116_1970,
    0x0bd0_0bd0,
    0x00c3_6400,
    0x2405_1905,
    0x1501_3346,
    0x9660,
    0x7371_7368,
    0xe0f5_e1e2,
    0x794c_7630,
];

/// Filesystems whose files are made as they are read, whatever their size and
/// times say: proc, sysfs, debugfs, tracefs, securityfs, both cgroups, configfs,
/// bpf, pstore, efivarfs, binfmt_misc, fusectl, selinuxfs, resctrl, devpts.
const LIVE: [u64; 16] = [
    0x9fa0,
    0x6265_6572,
    0x6462_6720,
    0x7472_6163,
    0x7363_6673,
    0x0027_e0eb,
    0x6367_7270,
    0x6265_6570,
    0xcafe_4a11,
    0x6165_676c,
    0xde5e_81e4,
    0x4249_4e4d,
    0x6573_5543,
    0xf97c_ff8c,
    0x0765_5821,
    0x1cd1,
];

/// What makes an inode itself.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) device: u64,
    pub(crate) number: u64,
    pub(crate) key: Key,
}

/// A file by one of the mounts that show it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Key {
    pub(crate) mount: MountId,
    pub(crate) name: Lasting,
}

/// What tells a file from a later one of the same number.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Lasting {
    /// The handle in the source's own filesystem.
    Handle(FileHandle),
    /// While a descriptor is open, as its number is not given to another then.
    Number(Box<Numbered>),
}

/// See [`Lasting::Number`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Numbered {
    device: u64,
    number: u64,
    /// Seconds and nanoseconds, where the filesystem tells.
    birth: (i64, u32),
    kind: u32,
    /// Where a symbolic link leads.
    target: Vec<u8>,
}

impl Identity {
    /// Whether it is of the source's own filesystem, and changes of it are told
    /// by its handle.
    pub(crate) fn has_handle(&self) -> bool {
        matches!(self.key.name, Lasting::Handle(_))
    }

    /// Finds out what makes the inode of `fd` itself; `by_handle` where it is
    /// of a filesystem whose handles last.
    pub(crate) fn of(fd: &OwnedFd, stat: &Stat, by_handle: bool) -> Result<Identity, Errno> {
        let handle = by_handle.then(|| FileHandle::with_mount(fd.as_fd()).ok());
        let key = match handle.flatten() {
            Some((handle, mount)) => Key {
                mount,
                name: Lasting::Handle(handle),
            },
            None => Key::by_number(fd, stat)?,
        };
        Ok(Identity {
            device: stat.st_dev,
            number: stat.st_ino,
            key,
        })
    }
}

impl Key {
    fn by_number(fd: &OwnedFd, stat: &Stat) -> Result<Key, Errno> {
        let wanted = StatxFlags::BTIME | StatxFlags::MNT_ID;
        let found = rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, wanted)?;
        let target = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => leads_to(fd, stat),
            _ => Vec::new(),
        };
        let name = Numbered {
            device: stat.st_dev,
            number: stat.st_ino,
            birth: (found.stx_btime.tv_sec, found.stx_btime.tv_nsec),
            kind: FileType::from_raw_mode(stat.st_mode).as_raw_mode(),
            target,
        };
        Ok(Key {
            // Zero before Linux 5.8, where all mounts count as one.
            mount: MountId(found.stx_mnt_id as u32),
            name: Lasting::Number(Box::new(name)),
        })
    }
}

/// Where a symbolic link leads, or where root may not know it, when it was made.
fn leads_to(fd: &OwnedFd, stat: &Stat) -> Vec<u8> {
    match rustix::fs::readlinkat(fd, c"", Vec::new()) {
        Ok(target) => target.into_bytes(),
        Err(_) => [
            stat.st_mtime,
            stat.st_mtime_nsec.cast_signed(),
            stat.st_size,
        ]
        .map(i64::to_ne_bytes)
        .concat(),
    }
}

fn is_of(fd: impl AsFd, filesystems: &[u64]) -> bool {
    let kind = rustix::fs::fstatfs(fd).map(|stat| stat.f_type as u64);
    kind.is_ok_and(|kind| filesystems.contains(&kind))
}

/// Whether the handles of the filesystem of `fd` name a file for ever.
pub(crate) fn has_lasting_handles(fd: impl AsFd) -> bool {
    is_of(fd, &WITH_LASTING_HANDLES)
}

/// Whether the filesystem of `fd` makes its files as they are read.
pub(crate) fn is_live(fd: impl AsFd) -> bool {
    is_of(fd, &LIVE)
}

/// The mark of a number that is not of the source's own filesystem.
const MARK: u64 = 1 << 63;
/// Bits of a number that is shown with its filesystem's before it.
const PLAIN_BITS: u32 = 48;
/// Filesystems that have one.
const FILESYSTEMS_MAX: u64 = (1 << (63 - PLAIN_BITS)) - 1;

/// The numbers by which inodes are shown.
#[derive(Debug)]
pub(crate) struct Numbers {
    /// The source's own device, whose numbers stay as they are.
    own: u64,
    others: RwLock<HashMap<u64, u64>>,
}

impl Numbers {
    pub(crate) fn new(own: u64) -> Numbers {
        Numbers {
            own,
            others: RwLock::default(),
        }
    }

    /// The number by which an inode is shown: with its filesystem's in front, or
    /// where that has no room (numbers beyond 2^48) a hash of both.
    pub(crate) fn shown(&self, device: u64, number: u64) -> u64 {
        if device == self.own {
            return number;
        }
        let filesystem = self.filesystem(device);
        match number >> PLAIN_BITS == 0 && filesystem <= FILESYSTEMS_MAX {
            true => MARK | filesystem << PLAIN_BITS | number,
            false => {
                let mut hasher = DefaultHasher::new();
                (device, number).hash(&mut hasher);
                MARK | hasher.finish()
            }
        }
    }

    /// Devices are counted from 1 in the order in which they are met.
    fn filesystem(&self, device: u64) -> u64 {
        let known = self.others.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(filesystem) = known.get(&device) {
            return *filesystem;
        }
        drop(known);
        let mut others = self.others.write().unwrap_or_else(PoisonError::into_inner);
        let next = others.len() as u64 + 1;
        *others.entry(device).or_insert(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_other_filesystems_differ_from_all_others() {
        let numbers = Numbers::new(7);
        assert_eq!(numbers.shown(7, 12), 12);
        let mut shown = std::collections::HashSet::new();
        for device in [7, 8, 9, u64::MAX] {
            for number in [
                1,
                2,
                12,
                u64::from(u32::MAX),
                1 << 47,
                1 << 50,
                u64::MAX >> 1,
            ] {
                assert!(
                    shown.insert(numbers.shown(device, number)),
                    "{device} {number}"
                );
            }
        }
        assert_eq!(numbers.shown(9, 12), numbers.shown(9, 12));
    }

    #[test]
    fn a_file_has_one_identity_and_a_link_is_where_it_leads() {
        let folder = std::env::temp_dir().join(format!("zcache-identity-{}", std::process::id()));
        std::fs::create_dir(&folder).expect("a folder");
        let identify = |name: &str| {
            let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::NOFOLLOW;
            let mode = rustix::fs::Mode::empty();
            let fd = rustix::fs::open(folder.join(name), flags, mode).expect("open");
            let stat = rustix::fs::fstat(&fd).expect("a look");
            Identity::of(&fd, &stat, false).expect("an identity").key
        };
        std::fs::write(folder.join("one"), "1").expect("a file");
        std::fs::hard_link(folder.join("one"), folder.join("two")).expect("a name");
        assert_eq!(identify("one"), identify("two"));
        std::os::unix::fs::symlink("one", folder.join("link")).expect("a link");
        let Lasting::Number(found) = identify("link").name else {
            panic!("without a handle");
        };
        assert_eq!(found.target, b"one");
        std::fs::remove_dir_all(&folder).expect("removed");
    }
}
