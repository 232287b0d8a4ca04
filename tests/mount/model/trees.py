"""What is in a tree, as a value that can be compared."""

import errno, hashlib, os, stat

# What is set is earlier than this; what the clock gives is later, and differs between two trees.
SET_BEFORE_NS = 1_500_000_000_000_000_000


def digest(content):
    return f"{len(content)}:{hashlib.sha1(content).hexdigest()[:12]}"


def attributes(status):
    """What of a stat(2) two trees agree about."""
    mode = status.st_mode
    size = status.st_size if stat.S_ISREG(mode) or stat.S_ISLNK(mode) else 0
    device = status.st_rdev if stat.S_ISCHR(mode) else 0
    modified = status.st_mtime_ns if status.st_mtime_ns < SET_BEFORE_NS else "recent"
    return (stat.filemode(mode), status.st_nlink, status.st_uid, status.st_gid, size, device, modified)


def whole(fd):
    """All bytes of a file, by reads until its end."""
    parts, at = [], 0
    while part := os.pread(fd, 1 << 20, at):
        parts.append(part)
        at += len(part)
    return b"".join(parts)


def content(path):
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    try:
        return whole(fd)
    finally:
        os.close(fd)


def extended(path):
    return [(name, os.getxattr(path, name, follow_symlinks=False)) for name in sorted(os.listxattr(path, follow_symlinks=False))]


def show(path):
    """What one name stands for."""
    try:
        status = os.lstat(path)
        kind = stat.S_IFMT(status.st_mode)
        within = None
        if kind == stat.S_IFREG:
            within = digest(content(path))
        elif kind == stat.S_IFLNK:
            within = os.readlink(path)
        elif kind == stat.S_IFDIR:
            within = sorted(os.listdir(path))
        return attributes(status), extended(path), within
    except OSError as error:
        return errno.errorcode[error.errno]


def snapshot(root):
    """Each name below a folder with what it stands for, and which names are one file."""
    found, files = {}, {}
    for folder, folders, names in os.walk(root):
        for name in sorted(folders + names):
            path = os.path.join(folder, name)
            short = os.path.relpath(path, root)
            found[short] = show(path)
            files.setdefault(os.lstat(path).st_ino, []).append(short)
    found["one file"] = sorted(sorted(names) for names in files.values() if len(names) > 1)
    return found


def difference(one, other):
    """The first entry in which two snapshots differ."""
    for name in sorted(set(one) | set(other)):
        if one.get(name) != other.get(name):
            return f"{name}: {one.get(name)} and {other.get(name)}"
    return None
