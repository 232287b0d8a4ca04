"""A source that can be slow: shows DIRECTORY at HERE, and takes a millisecond to read a page while DIRECTORY has a file "slow".
Needs python3-fusepy.

    slow_source.py DIRECTORY HERE
"""
import errno
import os
import sys
import time

from fusepy import FUSE, FuseOSError, Operations

PAGE_SECONDS = 0.001


class Slow(Operations):
    def __init__(self, root):
        self.root = root

    def getattr(self, path, fh=None):
        try:
            found = os.lstat(self.root + path)
        except OSError as error:
            raise FuseOSError(error.errno)
        names = ("mode", "nlink", "uid", "gid", "size", "atime", "mtime", "ctime")
        return {"st_" + name: getattr(found, "st_" + name) for name in names}

    def statfs(self, path):
        return {"f_bsize": 4096, "f_frsize": 4096, "f_namemax": 255}

    def readdir(self, path, fh):
        return [".", "..", *os.listdir(self.root + path)]

    def open(self, path, flags):
        return os.open(self.root + path, flags)

    def read(self, path, size, offset, fh):
        if os.path.exists(self.root + "/slow"):
            time.sleep(PAGE_SECONDS * max(1, size // 4096))
        return os.pread(fh, size, offset)

    def write(self, path, data, offset, fh):
        return os.pwrite(fh, data, offset)

    def truncate(self, path, size, fh=None):
        os.truncate(self.root + path, size)

    def fsync(self, path, datasync, fh):
        os.fsync(fh)

    def release(self, path, fh):
        os.close(fh)

    def getxattr(self, path, name, position=0):
        raise FuseOSError(errno.EOPNOTSUPP)

    def listxattr(self, path):
        return []


if __name__ == "__main__":
    FUSE(Slow(sys.argv[1]), sys.argv[2], foreground=True, allow_other=True, direct_io=True, raw_fi=False)
