//! Numbers of the protocol that this filesystem uses.

/// The protocol's version that is spoken here.
pub(crate) const MAJOR: u32 = 7;
/// Its part behind the point. Newer kernels leave out what is newer.
pub(crate) const MINOR: u32 = 39;

/// The number of the root in every request.
pub(crate) const ROOT: u64 = 1;

/// What a request asks for.
pub(crate) mod opcode {
    pub(crate) const LOOKUP: u32 = 1;
    pub(crate) const FORGET: u32 = 2;
    pub(crate) const GETATTR: u32 = 3;
    pub(crate) const SETATTR: u32 = 4;
    pub(crate) const READLINK: u32 = 5;
    pub(crate) const SYMLINK: u32 = 6;
    pub(crate) const MKNOD: u32 = 8;
    pub(crate) const MKDIR: u32 = 9;
    pub(crate) const UNLINK: u32 = 10;
    pub(crate) const RMDIR: u32 = 11;
    pub(crate) const RENAME: u32 = 12;
    pub(crate) const LINK: u32 = 13;
    pub(crate) const OPEN: u32 = 14;
    pub(crate) const READ: u32 = 15;
    pub(crate) const WRITE: u32 = 16;
    pub(crate) const STATFS: u32 = 17;
    pub(crate) const RELEASE: u32 = 18;
    pub(crate) const FSYNC: u32 = 20;
    pub(crate) const SETXATTR: u32 = 21;
    pub(crate) const GETXATTR: u32 = 22;
    pub(crate) const LISTXATTR: u32 = 23;
    pub(crate) const REMOVEXATTR: u32 = 24;
    pub(crate) const FLUSH: u32 = 25;
    pub(crate) const INIT: u32 = 26;
    pub(crate) const OPENDIR: u32 = 27;
    pub(crate) const READDIR: u32 = 28;
    pub(crate) const RELEASEDIR: u32 = 29;
    pub(crate) const FSYNCDIR: u32 = 30;
    pub(crate) const CREATE: u32 = 35;
    pub(crate) const INTERRUPT: u32 = 36;
    pub(crate) const DESTROY: u32 = 38;
    pub(crate) const IOCTL: u32 = 39;
    pub(crate) const BATCH_FORGET: u32 = 42;
    pub(crate) const FALLOCATE: u32 = 43;
    pub(crate) const READDIRPLUS: u32 = 44;
    pub(crate) const RENAME2: u32 = 45;
    pub(crate) const LSEEK: u32 = 46;
    pub(crate) const COPY_FILE_RANGE: u32 = 47;
    pub(crate) const TMPFILE: u32 = 51;
    pub(crate) const STATX: u32 = 52;
}

/// What both sides of a mount can do, told in INIT. The upper half is the
/// second word of flags.
pub(crate) mod init {
    pub(crate) const ASYNC_READ: u64 = 1;
    pub(crate) const BIG_WRITES: u64 = 1 << 5;
    pub(crate) const DONT_MASK: u64 = 1 << 6;
    pub(crate) const AUTO_INVAL_DATA: u64 = 1 << 12;
    pub(crate) const DO_READDIRPLUS: u64 = 1 << 13;
    pub(crate) const READDIRPLUS_AUTO: u64 = 1 << 14;
    pub(crate) const PARALLEL_DIROPS: u64 = 1 << 18;
    pub(crate) const POSIX_ACL: u64 = 1 << 20;
    pub(crate) const MAX_PAGES: u64 = 1 << 22;
    pub(crate) const CACHE_SYMLINKS: u64 = 1 << 23;
    pub(crate) const HANDLE_KILLPRIV_V2: u64 = 1 << 28;
    pub(crate) const SETXATTR_EXT: u64 = 1 << 29;
    pub(crate) const INIT_EXT: u64 = 1 << 30;
    /// What is opened with [`DIRECT_IO`](super::open::DIRECT_IO) may be mapped.
    pub(crate) const DIRECT_IO_ALLOW_MMAP: u64 = 1 << 36;
    pub(crate) const OVER_IO_URING: u64 = 1 << 41;
}

/// What SETATTR changes.
pub(crate) mod set {
    pub(crate) const MODE: u32 = 1;
    pub(crate) const UID: u32 = 1 << 1;
    pub(crate) const GID: u32 = 1 << 2;
    pub(crate) const SIZE: u32 = 1 << 3;
    pub(crate) const ATIME: u32 = 1 << 4;
    pub(crate) const MTIME: u32 = 1 << 5;
    pub(crate) const HANDLE: u32 = 1 << 6;
    pub(crate) const ATIME_NOW: u32 = 1 << 7;
    pub(crate) const MTIME_NOW: u32 = 1 << 8;
    pub(crate) const KILL_PRIVILEGES: u32 = 1 << 11;

    /// Any of the times.
    pub(crate) const TIMES: u32 = ATIME | MTIME | ATIME_NOW | MTIME_NOW;
}

/// How the kernel is to treat an open file.
pub(crate) mod open {
    pub(crate) const DIRECT_IO: u32 = 1;
    pub(crate) const KEEP_CACHE: u32 = 1 << 1;
    pub(crate) const NO_FLUSH: u32 = 1 << 5;
}

/// What the kernel is told without having asked.
pub(crate) mod notice {
    pub(crate) const OUTDATED_INODE: i32 = 2;
    pub(crate) const OUTDATED_NAME: i32 = 3;
    /// Inodes are to be forgotten if nobody uses them. Linux 6.18.
    pub(crate) const UNUSED_INODES: i32 = 9;
    /// As the offset of what is outdated: attributes only.
    pub(crate) const NO_CONTENTS: i64 = -1;
    /// The name is to be looked up again, and what is mounted on it stays. Older
    /// kernels than Linux 6.2 forget the name.
    pub(crate) const ASK_AGAIN: u32 = 1;
}

/// What of a STATX is known: all that GETATTR tells, and the time of birth.
pub(crate) const STATX_BASIC: u32 = 0x7ff;
pub(crate) const STATX_BTIME: u32 = 0x800;

/// GETATTR names an open file.
pub(crate) const GETATTR_HANDLE: u32 = 1;
/// WRITE comes from the page cache: who stored the bytes is not known.
pub(crate) const WRITE_FROM_CACHE: u32 = 1;
/// WRITE is to take set-user-id bits away.
pub(crate) const WRITE_KILL_PRIVILEGES: u32 = 1 << 2;
/// FSYNC is about data only.
pub(crate) const FSYNC_DATA_ONLY: u32 = 1;
/// SETXATTR of an access list by somebody who may not keep set-group-id.
pub(crate) const SETXATTR_KILL_SGID: u32 = 1;
