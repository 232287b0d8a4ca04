"""Random operations on a directory, the same for the same seed, with what came of each.

    operations.py DIRECTORY SEED COUNT

Prints a line for each operation: its name, its arguments, and its result or the name of its errno; at the end the whole tree
with all contents. Two directories that are filesystems alike give the same output. Times and block counts are left out.
"""

import errno, fcntl, hashlib, mmap, os, random, stat, sys

os.chdir(sys.argv[1])
os.umask(0o022)
rng = random.Random(int(sys.argv[2]))
count = int(sys.argv[3])

NAMES = ["a", "b", "c", "d/a", "d/b", "d/e/a", "d/e/b", "f"]
FOLDERS = ["d", "d/e", "f", "g"]
SIZE = 600_000
opened = {}  # slot -> descriptor
PAGE = 4096


def offset():
    # Around page borders as often as anywhere.
    at = rng.randrange(SIZE)
    return at // PAGE * PAGE + rng.choice([-1, 0, 1]) if rng.random() < 0.5 and at >= PAGE else at


def length():
    return rng.choice([1, 100, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE, rng.randrange(1, 150_000)])


def data(size):
    word = rng.randbytes(rng.choice([1, 7, 64]))
    return (word * (size // len(word) + 1))[:size]


def digest(content):
    if content is None:  # an empty pipe
        return "nothing"
    return f"{len(content)}:{hashlib.sha1(content).hexdigest()[:12]}"


def descriptor():
    return opened[rng.choice(sorted(opened))] if opened else -1


def name():
    return rng.choice(NAMES)


def open_file():
    flags = rng.choice([os.O_RDONLY, os.O_RDWR, os.O_RDWR, os.O_WRONLY])
    for flag in (os.O_CREAT, os.O_EXCL, os.O_TRUNC, os.O_APPEND):
        if rng.random() < {os.O_CREAT: 0.7, os.O_EXCL: 0.1, os.O_TRUNC: 0.1, os.O_APPEND: 0.1}[flag]:
            flags |= flag
    slot, path, mode = rng.randrange(8), name(), rng.choice([0o644, 0o600, 0o755])
    old = opened.pop(slot, None)
    if old is not None:
        os.close(old)
    opened[slot] = os.open(path, flags, mode)
    return slot


def close_file():
    slot = rng.randrange(8)
    if slot in opened:
        os.close(opened.pop(slot))


def read():
    fd, size, at = descriptor(), length(), offset()
    return digest(os.pread(fd, size, at))


def write():
    fd, bytes_, at = descriptor(), data(length()), offset()
    return os.pwrite(fd, bytes_, at)


def append():
    fd, bytes_ = descriptor(), data(length())
    return os.write(fd, bytes_)


def truncate():
    fd, size = descriptor(), offset()
    return os.ftruncate(fd, size)


def truncate_name():
    path, size = name(), offset()
    return os.truncate(path, size)


def allocate():
    fd, at, size = descriptor(), offset(), length()
    return os.posix_fallocate(fd, at, size)


def drop():
    """What the page cache does by itself when memory is short."""
    fd = descriptor()
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def mapped_write():
    fd, at, bytes_ = descriptor(), offset(), data(length())
    size = os.fstat(fd).st_size
    if size == 0:
        return "empty"
    with mmap.mmap(fd, size) as view:
        end = min(size, at + len(bytes_))
        if at < end:
            view[at:end] = bytes_[: end - at]
        return digest(view[:])


def mapped_read():
    fd = descriptor()
    size = os.fstat(fd).st_size
    if size == 0:
        return "empty"
    with mmap.mmap(fd, size, prot=mmap.PROT_READ) as view:
        return digest(view[:])


def copy():
    source, target = descriptor(), descriptor()
    size, at, to = length(), offset(), offset()
    return os.copy_file_range(source, target, size, at, to)


def seek():
    """Where the holes are is the filesystem's affair, but what it calls a hole must read as zeros."""
    fd, at = descriptor(), offset()
    os.fsync(fd)
    try:
        data_at = os.lseek(fd, at, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        data_at = max(at, os.fstat(fd).st_size)
    os.lseek(fd, 0, os.SEEK_SET)
    hole = os.pread(fd, data_at - at, at)
    assert not hole.strip(b"\0"), f"bytes in a hole at {at}"


def attributes(status):
    return (stat.filemode(status.st_mode), status.st_nlink, status.st_uid, status.st_size if stat.S_ISREG(status.st_mode) else 0)


def lock():
    fd = descriptor()
    kind = rng.choice([fcntl.LOCK_SH, fcntl.LOCK_EX, fcntl.LOCK_UN])
    call = rng.choice([fcntl.flock, fcntl.lockf])
    if call is fcntl.lockf and kind != fcntl.LOCK_UN:
        kind |= fcntl.LOCK_NB
    if call is fcntl.flock:
        kind |= fcntl.LOCK_NB
    return call(fd, kind)


def set_times():
    path, at = name(), rng.randrange(1_000_000_000) * 1_000_000_007
    os.utime(path, ns=(at, at + 5))
    return os.stat(path).st_mtime_ns


def set_attribute():
    path, key, value = name(), f"user.{rng.choice('xy')}", data(rng.choice([1, 100, 1000]))
    return os.setxattr(path, key, value, rng.choice([0, os.XATTR_CREATE, os.XATTR_REPLACE]))


OPERATIONS = [
    (open_file, 12), (close_file, 4), (read, 20), (write, 20), (append, 3), (truncate, 3), (truncate_name, 2),
    (allocate, 2), (drop, 6), (mapped_write, 6), (mapped_read, 4), (copy, 4), (seek, 3), (lock, 2), (set_times, 2),
    (set_attribute, 2),
    (lambda: digest(open(name(), "rb").read()), 6),
    (lambda: attributes(os.lstat(name())), 4),
    (lambda: attributes(os.fstat(descriptor())), 3),
    (lambda: os.fsync(descriptor()), 2),
    (lambda: os.fdatasync(descriptor()), 1),
    (lambda: os.unlink(name()), 3),
    (lambda: os.rename(name(), name()), 3),
    (lambda: os.rename(rng.choice(FOLDERS), rng.choice(FOLDERS)), 1),
    (lambda: os.link(name(), name()), 2),
    (lambda: os.symlink(rng.choice(["a", "b", "nowhere", "e"]), name()), 1),
    (lambda: os.readlink(name()), 1),
    (lambda: os.mkdir(rng.choice(FOLDERS), rng.choice([0o755, 0o2775, 0o1777])), 2),
    (lambda: os.rmdir(rng.choice(FOLDERS)), 1),
    (lambda: os.mkfifo(name()), 0.3),
    (lambda: sorted(os.listdir(rng.choice(["."] + FOLDERS))), 2),
    (lambda: os.chmod(name(), rng.choice([0o644, 0o4755, 0o2755, 0o400])), 2),
    (lambda: os.chown(name(), rng.choice([0, 1, 2]), -1, follow_symlinks=False), 1),
    (lambda: os.getxattr(name(), "user.x")[:8], 1),
    (lambda: sorted(os.listxattr(name())), 1),
    (lambda: os.removexattr(name(), "user.y"), 1),
]
NAMES_OF = [operation.__name__ for operation, _ in OPERATIONS]
WEIGHTS = [weight for _, weight in OPERATIONS]


def attempt(number):
    index = rng.choices(range(len(OPERATIONS)), WEIGHTS)[0]
    try:
        result = OPERATIONS[index][0]()
    except OSError as error:
        result = errno.errorcode[error.errno]
    except ValueError as error:  # a mapping that Python itself refuses
        result = str(error)
    print(number, index, NAMES_OF[index], result)


def show(folder):
    for found in sorted(os.listdir(folder)):
        path = os.path.join(folder, found)
        status = os.lstat(path)
        print(path, attributes(status), sorted(os.listxattr(path, follow_symlinks=False)))
        if stat.S_ISDIR(status.st_mode):
            show(path)
        elif stat.S_ISLNK(status.st_mode):
            print(os.readlink(path))
        elif stat.S_ISREG(status.st_mode):
            print(digest(open(path, "rb").read()))


# A pipe opened for reading only would wait for its writer.
_open = os.open
os.open = lambda path, flags, mode=0o777, **more: _open(path, flags | os.O_NONBLOCK, mode, **more)
import builtins

_builtin_open = builtins.open
builtins.open = lambda path, mode: os.fdopen(os.open(path, os.O_RDONLY), mode)
for folder in ("d", "d/e"):
    os.mkdir(folder)
for number in range(count):
    attempt(number)
for fd in opened.values():
    os.close(fd)
show(".")
