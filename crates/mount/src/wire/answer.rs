//! What the kernel is answered: fields by position in a buffer that is used
//! again for every request of a worker.

use std::ffi::CStr;
use std::time::Duration;

use rustix::fs::Stat;

use super::abi;

/// Bytes of the header of every answer.
pub(crate) const OUT_HEADER_BYTES: usize = 16;

/// Bytes of an entry before its attributes.
const ENTRY_BYTES: usize = 128;
/// Bytes of a directory entry before its name.
const DIRENT_BYTES: usize = 24;

/// How long the kernel may believe what it is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Lifetimes {
    /// That a name stands for an inode.
    pub(crate) entry: Duration,
    /// An inode's attributes.
    pub(crate) attributes: Duration,
}

/// An inode's attributes as the source has them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attributes(pub(crate) Stat);

/// An inode that a name stands for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    /// Its number in requests; not its `st_ino`.
    pub(crate) node: u64,
    pub(crate) lifetimes: Lifetimes,
    pub(crate) attributes: Attributes,
}

/// An answer that is being written.
#[derive(Debug, Default)]
pub(crate) struct Answer(Vec<u8>);

impl Answer {
    /// Begins anew, leaving room for the header.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
        self.0.resize(OUT_HEADER_BYTES, 0);
    }

    /// Bytes written behind the header.
    pub(crate) fn len(&self) -> usize {
        self.0.len() - OUT_HEADER_BYTES
    }

    /// The whole answer, with `extra` bytes to follow that are not in it. An
    /// error has no body.
    pub(crate) fn finish(&mut self, unique: u64, error: i32, extra: usize) -> &[u8] {
        if error != 0 {
            self.clear();
        }
        let header = Answer::header(unique, error, self.len() + extra);
        self.0[..OUT_HEADER_BYTES].copy_from_slice(&header);
        &self.0
    }

    /// A notice that an inode's attributes and its contents from an offset on
    /// are outdated (`struct fuse_notify_inval_inode_out`).
    pub(crate) fn outdated_inode(node: u64, offset: i64) -> Vec<u8> {
        // To the end.
        Answer::outdated_range(node, offset, 0)
    }

    /// The same of so many bytes.
    pub(crate) fn outdated_range(node: u64, offset: i64, len: i64) -> Vec<u8> {
        let mut notice = Answer::default();
        notice.clear();
        notice.u64(node);
        notice.u64(offset.cast_unsigned());
        notice.u64(len.cast_unsigned());
        notice.into_notice(abi::notice::OUTDATED_INODE)
    }

    /// A notice that a name is outdated (`struct fuse_notify_inval_entry_out`).
    pub(crate) fn outdated_name(folder: u64, name: &CStr) -> Vec<u8> {
        let mut notice = Answer::default();
        notice.clear();
        notice.u64(folder);
        notice.u32(name.count_bytes() as u32);
        notice.u32(abi::notice::ASK_AGAIN);
        notice.bytes(name.to_bytes_with_nul());
        notice.into_notice(abi::notice::OUTDATED_NAME)
    }

    /// A notice that inodes are to be forgotten if nobody uses them (`struct
    /// fuse_notify_prune_out`).
    pub(crate) fn unused_inodes(nodes: &[u64]) -> Vec<u8> {
        let mut notice = Answer::default();
        notice.clear();
        notice.u32(nodes.len() as u32);
        notice.zeros(12);
        for node in nodes {
            notice.u64(*node);
        }
        notice.into_notice(abi::notice::UNUSED_INODES)
    }

    /// The header of what answers no request has the kind in place of an error.
    fn into_notice(mut self, kind: i32) -> Vec<u8> {
        self.finish(0, 0, 0);
        self.0[4..8].copy_from_slice(&kind.to_ne_bytes());
        self.0
    }

    /// The header of an answer with so many bytes behind it.
    pub(crate) fn header(unique: u64, error: i32, len: usize) -> [u8; OUT_HEADER_BYTES] {
        let mut header = [0; OUT_HEADER_BYTES];
        header[..4].copy_from_slice(&((OUT_HEADER_BYTES + len) as u32).to_ne_bytes());
        header[4..8].copy_from_slice(&(-error).to_ne_bytes());
        header[8..].copy_from_slice(&unique.to_ne_bytes());
        header
    }

    /// What was written behind the header.
    pub(crate) fn body(&self) -> &[u8] {
        &self.0[OUT_HEADER_BYTES..]
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.bytes(&value.to_ne_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.bytes(&value.to_ne_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.bytes(&value.to_ne_bytes());
    }

    pub(crate) fn zeros(&mut self, len: usize) {
        self.0.resize(self.0.len() + len, 0);
    }

    /// `struct fuse_attr`.
    fn attributes(&mut self, Attributes(stat): &Attributes) {
        self.u64(stat.st_ino);
        self.u64(stat.st_size.cast_unsigned());
        self.u64(stat.st_blocks.cast_unsigned());
        self.u64(stat.st_atime.cast_unsigned());
        self.u64(stat.st_mtime.cast_unsigned());
        self.u64(stat.st_ctime.cast_unsigned());
        self.u32(stat.st_atime_nsec as u32);
        self.u32(stat.st_mtime_nsec as u32);
        self.u32(stat.st_ctime_nsec as u32);
        self.u32(stat.st_mode);
        self.u32(stat.st_nlink as u32);
        self.u32(stat.st_uid);
        self.u32(stat.st_gid);
        self.u32(kernel_device(stat.st_rdev));
        self.u32(stat.st_blksize as u32);
        self.u32(0);
    }

    /// `struct fuse_attr_out`.
    pub(crate) fn attr(&mut self, lifetime: Duration, attributes: &Attributes) {
        self.u64(lifetime.as_secs());
        self.u32(lifetime.subsec_nanos());
        self.u32(0);
        self.attributes(attributes);
    }

    /// `struct fuse_statx_out`: the attributes, and the time of birth where the
    /// filesystem tells it.
    pub(crate) fn statx(
        &mut self,
        lifetime: Duration,
        Attributes(stat): &Attributes,
        birth: Option<(i64, u32)>,
    ) {
        self.u64(lifetime.as_secs());
        self.u32(lifetime.subsec_nanos());
        self.zeros(20);
        let born = if birth.is_some() { abi::STATX_BTIME } else { 0 };
        self.u32(abi::STATX_BASIC | born);
        self.u32(stat.st_blksize as u32);
        self.zeros(8);
        self.u32(stat.st_nlink as u32);
        self.u32(stat.st_uid);
        self.u32(stat.st_gid);
        self.u16(stat.st_mode as u16);
        self.u16(0);
        self.u64(stat.st_ino);
        self.u64(stat.st_size.cast_unsigned());
        self.u64(stat.st_blocks.cast_unsigned());
        self.zeros(8);
        self.time((stat.st_atime, stat.st_atime_nsec as u32));
        self.time(birth.unwrap_or_default());
        self.time((stat.st_ctime, stat.st_ctime_nsec as u32));
        self.time((stat.st_mtime, stat.st_mtime_nsec as u32));
        self.u32(rustix::fs::major(stat.st_rdev));
        self.u32(rustix::fs::minor(stat.st_rdev));
        self.zeros(8 + 14 * 8);
    }

    /// `struct fuse_sx_time`.
    fn time(&mut self, (seconds, nanoseconds): (i64, u32)) {
        self.u64(seconds.cast_unsigned());
        self.u32(nanoseconds);
        self.u32(0);
    }

    /// `struct fuse_entry_out`.
    pub(crate) fn entry(&mut self, entry: &Entry) {
        let lifetimes = entry.lifetimes;
        self.u64(entry.node);
        self.u64(0);
        self.u64(lifetimes.entry.as_secs());
        self.u64(lifetimes.attributes.as_secs());
        self.u32(lifetimes.entry.subsec_nanos());
        self.u32(lifetimes.attributes.subsec_nanos());
        self.attributes(&entry.attributes);
    }

    /// `struct fuse_open_out`.
    pub(crate) fn open(&mut self, handle: u64, flags: u32) {
        self.u64(handle);
        self.u32(flags);
        self.u32(0);
    }

    /// `struct fuse_write_out` and `fuse_getxattr_out`.
    pub(crate) fn size(&mut self, size: u32) {
        self.u32(size);
        self.u32(0);
    }
}

/// A device number as the kernel writes it in 32 bits (`new_encode_dev`).
fn kernel_device(device: u64) -> u32 {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// Directory entries up to the size that the kernel asked for.
pub(crate) struct DirectoryAnswer<'a> {
    answer: &'a mut Answer,
    bytes_max: usize,
    /// Each entry comes with its inode's attributes.
    plus: bool,
}

/// A name in a directory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Name<'a> {
    pub(crate) ino: u64,
    /// Where the next one begins.
    pub(crate) next: u64,
    /// `DT_REG` and so on.
    pub(crate) kind: u32,
    pub(crate) name: &'a [u8],
}

impl DirectoryAnswer<'_> {
    pub(crate) fn new(answer: &mut Answer, bytes_max: usize, plus: bool) -> DirectoryAnswer<'_> {
        DirectoryAnswer {
            answer,
            bytes_max,
            plus,
        }
    }

    /// Whether an entry of this name still fits.
    pub(crate) fn has_room(&self, name: &[u8]) -> bool {
        let fixed = DIRENT_BYTES + if self.plus { ENTRY_BYTES } else { 0 };
        self.answer.len() + (fixed + name.len()).next_multiple_of(8) <= self.bytes_max
    }

    /// Whether entries come with attributes.
    pub(crate) fn is_plus(&self) -> bool {
        self.plus
    }

    /// Whether there is none yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.answer.len() == 0
    }

    /// Adds a name; without an entry where the kernel is to look it up itself.
    pub(crate) fn push(&mut self, name: &Name<'_>, entry: Option<&Entry>) {
        if self.plus {
            match entry {
                Some(entry) => self.answer.entry(entry),
                None => self.answer.zeros(ENTRY_BYTES),
            }
        }
        self.answer.u64(name.ino);
        self.answer.u64(name.next);
        self.answer.u32(name.name.len() as u32);
        self.answer.u32(name.kind);
        self.answer.bytes(name.name);
        let len = self.answer.len();
        self.answer.zeros(len.next_multiple_of(8) - len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_its_length_and_error() {
        let mut answer = Answer::default();
        answer.clear();
        answer.u64(5);
        let bytes = answer.finish(9, 0, 4096).to_vec();
        assert_eq!(bytes[..4], (24u32 + 4096).to_ne_bytes());
        assert_eq!(bytes[8..16], 9u64.to_ne_bytes());
        let failed = answer.finish(9, 5, 0).to_vec();
        assert_eq!(failed.len(), OUT_HEADER_BYTES, "an error has no body");
        assert_eq!(failed[4..8], (-5i32).to_ne_bytes());
    }

    #[test]
    fn an_entry_has_the_size_that_the_kernel_expects() {
        let stat = rustix::fs::stat("/dev/null").expect("a device");
        let entry = Entry {
            node: 3,
            lifetimes: Lifetimes {
                entry: Duration::from_millis(1500),
                attributes: Duration::ZERO,
            },
            attributes: Attributes(stat),
        };
        let mut answer = Answer::default();
        answer.clear();
        answer.entry(&entry);
        assert_eq!(answer.len(), ENTRY_BYTES);
        assert_eq!(kernel_device(stat.st_rdev), 0x103);
        answer.clear();
        answer.statx(Duration::ZERO, &Attributes(stat), Some((1, 2)));
        assert_eq!(answer.len(), 288, "struct fuse_statx_out");
    }

    #[test]
    fn a_notice_has_its_kind_and_no_request() {
        let notice = Answer::outdated_name(5, c"ab");
        assert_eq!(notice.len(), 16 + 16 + 3);
        assert_eq!(notice[..4], 35u32.to_ne_bytes());
        assert_eq!(notice[4..8], 3i32.to_ne_bytes());
        assert_eq!(notice[8..16], [0; 8]);
        assert_eq!(Answer::outdated_inode(5, 0).len(), 16 + 24);
    }

    #[test]
    fn names_are_aligned_and_end_where_the_room_does() {
        let mut answer = Answer::default();
        answer.clear();
        let mut directory = DirectoryAnswer::new(&mut answer, 64, false);
        let name = Name {
            ino: 1,
            next: 2,
            kind: 8,
            name: b"abc",
        };
        for _ in 0..2 {
            assert!(directory.has_room(name.name));
            directory.push(&name, None);
        }
        assert!(!directory.has_room(name.name));
        assert_eq!(answer.len(), 64);
    }
}
