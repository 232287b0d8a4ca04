"""Calls of Linux that Python has no function for, or whose function does more than the call."""

import ctypes, fcntl, mmap, os, struct

libc = ctypes.CDLL(None, use_errno=True)

AT_EMPTY_PATH = 0x1000
RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2
KEEP_SIZE, PUNCH_HOLE, COLLAPSE_RANGE, ZERO_RANGE, INSERT_RANGE = 0x01, 0x02, 0x08, 0x10, 0x20
MS_RDONLY, MS_REMOUNT = 1, 32
AT_FDCWD = -100
_OFD_GETLK, _OFD_SETLK = 36, 37
_FLOCK = "hhxxxxqqixxxx"


def _check(result):
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def rename(old, new, flags):
    return _check(libc.renameat2(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags))


def link_descriptor(fd, new):
    return _check(libc.linkat(fd, b"", AT_FDCWD, os.fsencode(new), AT_EMPTY_PATH))


def allocate(fd, mode, at, size):
    return _check(libc.fallocate(fd, mode, ctypes.c_long(at), ctypes.c_long(size)))


def written_out(path):
    """What there is of a filesystem once all is written; some know their room only then."""
    fd = os.open(path, os.O_RDONLY)
    try:
        _check(libc.syncfs(fd))
        return os.fstatvfs(fd)
    finally:
        os.close(fd)


def remount(path, flags):
    return _check(libc.mount(None, os.fsencode(path), None, ctypes.c_ulong(MS_REMOUNT | flags), None))


def names_in(fd, size):
    """The next names of an open folder, as many as fit into so many bytes; none at its end."""
    buffer = ctypes.create_string_buffer(size)
    length = _check(libc.syscall(217, fd, buffer, size))
    names, at = [], 0
    while at < length:
        (record,) = struct.unpack_from("H", buffer.raw, at + 16)
        names.append(buffer.raw[at + 19 : at + record].split(b"\0")[0].decode())
        at += record
    return [name for name in names if name not in (".", "..")]


def lock(fd, kind, at, size):
    """A lock of the open file description."""
    fcntl.fcntl(fd, _OFD_SETLK, struct.pack(_FLOCK, kind, os.SEEK_SET, at, size, 0))


def lock_found(fd, kind, at, size):
    """What stands against such a lock: its kind and place."""
    found = fcntl.fcntl(fd, _OFD_GETLK, struct.pack(_FLOCK, kind, os.SEEK_SET, at, size, 0))
    kind, _, at, size, _ = struct.unpack(_FLOCK, found)
    return (kind, at, size) if kind != fcntl.F_UNLCK else kind


def aligned(content):
    """A copy of the bytes that direct I/O takes."""
    buffer = mmap.mmap(-1, max(len(content), 1))
    buffer[: len(content)] = content
    return buffer


def read_aligned(fd, size, at):
    buffer = mmap.mmap(-1, size)
    return buffer[: os.preadv(fd, [buffer], at)]
