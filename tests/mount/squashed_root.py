"""A server that squashes root, as NFS does with root_squash: it shows DIRECTORY at HERE and carries every call out as the user
who makes it, with his groups; root is nobody. Needs python3-fusepy.

    squashed_root.py DIRECTORY HERE
"""
import contextlib
import errno
import os
import sys

from fusepy import FUSE, FuseOSError, Operations, fuse_get_context

NOBODY = 65534


def groups_of(pid):
    with open(f"/proc/{pid}/status") as status:
        for line in status:
            if line.startswith("Groups:"):
                return [int(group) for group in line.split()[1:]]
    return []


@contextlib.contextmanager
def caller():
    uid, gid, pid = fuse_get_context()
    groups = groups_of(pid) if uid else []
    uid, gid = (uid or NOBODY), (gid or NOBODY)
    os.setgroups(groups), os.setegid(gid), os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0), os.setegid(0), os.setgroups([])


class Squashing(Operations):
    def __init__(self, root):
        self.root = root

    def at(self, path):
        return self.root + path

    # A handle is enough for attributes, whoever asks.
    def getattr(self, path, fh=None):
        found = os.lstat(self.at(path))
        names = ("mode", "nlink", "uid", "gid", "size", "atime", "mtime", "ctime")
        return {"st_" + name: getattr(found, "st_" + name) for name in names}

    def statfs(self, path):
        return {"f_bsize": 4096, "f_frsize": 4096, "f_namemax": 255}

    def fsync(self, path, datasync, fh):
        os.fsync(fh)

    def read(self, path, size, offset, fh):
        return os.pread(fh, size, offset)

    def write(self, path, data, offset, fh):
        return os.pwrite(fh, data, offset)

    def release(self, path, fh):
        os.close(fh)

    def getxattr(self, path, name, position=0):
        raise FuseOSError(errno.EOPNOTSUPP)

    def listxattr(self, path):
        return []


def as_caller(name, call):
    def operation(self, path, *arguments):
        with caller():
            return call(self.at(path), *arguments)

    setattr(Squashing, name, operation)


as_caller("access", lambda at, how: 0 if os.access(at, how, effective_ids=True) else refuse())
as_caller("readdir", lambda at, fh: [".", "..", *os.listdir(at)])
as_caller("open", os.open)
as_caller("create", lambda at, mode: os.open(at, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode))
as_caller("truncate", lambda at, size, fh=None: os.truncate(at if fh is None else fh, size))
as_caller("unlink", os.unlink)
as_caller("mkdir", os.mkdir)
as_caller("rmdir", os.rmdir)
as_caller("chmod", os.chmod)
as_caller("chown", lambda at, uid, gid: os.chown(at, uid, gid, follow_symlinks=False))
as_caller("readlink", os.readlink)
as_caller("utimens", os.utime)
as_caller("opendir", lambda at: os.listdir(at) and 0)


def refuse():
    raise FuseOSError(errno.EACCES)


def rename(self, old, new):
    with caller():
        os.rename(self.at(old), self.at(new))


def symlink(self, new, target):
    with caller():
        os.symlink(target, self.at(new))


Squashing.rename, Squashing.symlink = rename, symlink

if __name__ == "__main__":
    os.umask(0)
    FUSE(Squashing(sys.argv[1]), sys.argv[2], nothreads=True, foreground=True, allow_other=True, raw_fi=False)
