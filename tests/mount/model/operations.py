"""What programs do with files, chosen by the seed. Each operation gives what came of it, for the trace."""

import errno, fcntl, os, stat, struct
import linux, trees
from world import FOLDERS, NAMES, PAGE, File, Mapping, attempt

SIZE = 400_000
# A file with rights of its own: of whoever changes it, these are taken.
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
ACCESS_LIST = bytes.fromhex(
    "02000000" "01000600ffffffff" "0200040001000000" "04000400ffffffff" "10000600ffffffff" "20000400ffffffff"
)


def name(w):
    return w.rng.choice(NAMES)


def folder(w):
    return w.rng.choice(FOLDERS)


def offset(w):
    # Around page borders as often as anywhere.
    at = w.rng.randrange(SIZE)
    return at // PAGE * PAGE + w.rng.choice([-1, 0, 1]) if w.rng.random() < 0.5 and at >= PAGE else at


def length(w):
    return w.rng.choice([1, 100, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE, w.rng.randrange(1, 150_000)])


def data(w, size):
    word = w.rng.randbytes(w.rng.choice([1, 7, 64]))
    return (word * (size // len(word) + 1))[:size]


def file(w, beside=False):
    """A file that is open on one side or the other."""
    slots = [slot for slot, one in w.files.items() if one.beside == beside]
    return w.files[w.rng.choice(slots)] if slots else None


def inode_of(w, path):
    found = attempt(lambda: os.stat(os.path.join(w.twin, path)).st_ino)
    return None if isinstance(found, str) else found


def on_file(change):
    """An operation on an open file. One that changes it is also done beside."""

    def operation(w, beside):
        one = file(w, beside)
        if one is None:
            return "none is open"
        if beside:
            w.changed_beside(os.fstat(one.twin).st_ino)
        return change(w, one)

    operation.__name__ = change.__name__
    return operation


# Opening and closing


def flags(w):
    found = w.rng.choice([os.O_RDONLY, os.O_RDWR, os.O_RDWR, os.O_RDWR, os.O_WRONLY])
    often = [(os.O_CREAT, 0.7), (os.O_EXCL, 0.1), (os.O_TRUNC, 0.1), (os.O_APPEND, 0.2), (os.O_DIRECT, 0.1)]
    often += [(os.O_NOFOLLOW, 0.1), (os.O_SYNC, 0.05), (os.O_DSYNC, 0.05), (os.O_DIRECTORY, 0.03)]
    for flag, share in often:
        if w.rng.random() < share:
            found |= flag
    # The mount takes what is not aligned, as an end may be.
    return found & ~os.O_APPEND if found & os.O_DIRECT else found


def put(w, opened):
    slot = w.rng.randrange(8)
    if not isinstance(opened, File):
        return opened
    old = w.files.pop(slot, None)
    if old is not None:
        old.close()
    w.files[slot] = opened
    return slot


def open_name(w, beside):
    path, how, mode = name(w), flags(w), w.rng.choice([0o644, 0o600, 0o755, 0o666])
    user = w.rng.random() < 0.2
    if beside:
        w.changed_beside(inode_of(w, path))
    return put(w, w.open(path, how, mode, beside, user)), path, oct(how), user


def open_unnamed(w, beside):
    where = w.rng.choice(["."] + FOLDERS)
    return put(w, w.open(where, os.O_TMPFILE | os.O_RDWR, 0o640, beside)), where


def open_path(w, beside):
    path, follow = name(w), w.rng.choice([0, os.O_NOFOLLOW])
    return put(w, w.open(path, os.O_PATH | follow, 0, beside)), path


def open_again(w, beside):
    """By a descriptor, also of what has no name any more."""
    one, how = file(w, beside), w.rng.choice([os.O_RDONLY, os.O_RDWR, os.O_RDWR | os.O_APPEND, os.O_WRONLY | os.O_TRUNC])
    if one is None or stat.S_ISFIFO(os.fstat(one.twin).st_mode):
        return "none is open"
    if beside:
        w.changed_beside(os.fstat(one.twin).st_ino)
    pair = []
    again = lambda fd: pair.append(os.open(f"/proc/self/fd/{fd}", how))
    result = w.descriptors(again, one)
    return put(w, w.file(pair, beside) if result is None else result), how


def link_unnamed(w, beside):
    one, new = file(w, beside), name(w)
    if one is None:
        return "none is open"
    if beside:
        w.changed_beside(os.fstat(one.twin).st_ino)
    root = w.inner if beside else w.outer
    here = lambda: linux.link_descriptor(one.fd, os.path.join(root, new))
    return w.do(here, lambda: linux.link_descriptor(one.twin, os.path.join(w.twin, new))), new


def close(w, beside):
    slots = [slot for slot, one in w.files.items() if one.beside == beside]
    if not slots:
        return "none is open"
    slot = w.rng.choice(slots)
    one = w.files.pop(slot)
    inode = os.fstat(one.twin).st_ino
    if beside:
        w.changed_beside(inode)
    return w.do(lambda: os.close(one.fd), lambda: os.close(one.twin)), slot


# Bytes


@on_file
def read(w, one):
    size, at = length(w), offset(w)
    if one.direct:
        size, at = (size + PAGE - 1) // PAGE * PAGE, at // PAGE * PAGE
        return w.descriptors(lambda fd: trees.digest(linux.read_aligned(fd, size, at)), one), size, at
    return w.descriptors(lambda fd: trees.digest(os.pread(fd, size, at)), one), size, at


@on_file
def write(w, one):
    content, at = data(w, length(w)), offset(w)
    if one.direct:
        content = (content * PAGE)[: (len(content) + PAGE - 1) // PAGE * PAGE]
        at = at // PAGE * PAGE
        buffer = linux.aligned(content)
        return w.descriptors(lambda fd: os.pwritev(fd, [buffer], at), one), len(content), at
    return w.descriptors(lambda fd: os.pwrite(fd, content, at), one), len(content), at


@on_file
def write_on(w, one):
    """At the place of the descriptor, or at the end."""
    content = data(w, length(w))
    if one.direct:
        return "direct"
    return w.descriptors(lambda fd: (os.write(fd, content), os.lseek(fd, 0, os.SEEK_CUR)), one), len(content)


@on_file
def truncate(w, one):
    size = offset(w)
    return w.descriptors(lambda fd: os.ftruncate(fd, size), one), size


def keeps_rights(one):
    """Linux takes rights of its own from a file on FUSE before it asks for these, also when they fail or copy nothing."""
    path = f"/proc/self/fd/{one.twin}"
    return may_be_stored_into(os.stat(path), path)


@on_file
def allocate(w, one):
    modes = [0, linux.KEEP_SIZE, linux.KEEP_SIZE | linux.PUNCH_HOLE, linux.ZERO_RANGE, linux.ZERO_RANGE | linux.KEEP_SIZE]
    if one.beside:
        # Linux refuses these on FUSE.
        modes += [linux.COLLAPSE_RANGE, linux.INSERT_RANGE]
    mode, at, size = w.rng.choice(modes), offset(w), length(w)
    if not keeps_rights(one):
        return "has rights of its own"
    if mode in (linux.COLLAPSE_RANGE, linux.INSERT_RANGE):
        at, size = at // PAGE * PAGE, (size + PAGE - 1) // PAGE * PAGE
    return w.descriptors(lambda fd: linux.allocate(fd, mode, at, size), one), mode, at, size


def copy(w, beside):
    source, target = file(w, beside), file(w, beside)
    if source is None or source.direct or target.direct:
        return "none is open"
    if beside:
        w.changed_beside(os.fstat(target.twin).st_ino)
    size, at, to = length(w), offset(w), offset(w)
    if not keeps_rights(target):
        return "has rights of its own"
    return w.descriptors(lambda one, other: os.copy_file_range(one, other, size, at, to), source, target), size, at, to


@on_file
def seek(w, one):
    """Where holes are is the filesystem's affair, but what it calls a hole reads as zeros, and what is no zero is data."""
    at = offset(w)
    if not stat.S_ISREG(os.fstat(one.twin).st_mode):
        return "no file"

    def holes(fd, model):
        end = os.fstat(fd).st_size
        if at >= end:
            return os.lseek(fd, at, os.SEEK_DATA)
        try:
            first = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            first = end
        os.lseek(fd, 0, os.SEEK_SET)
        hidden = os.pread(model, first - at, at).strip(b"\0") if not one.direct else b""
        assert not hidden, f"bytes in a hole at {at}"

    return w.do(lambda: holes(one.fd, one.fd if w.alone else one.twin), lambda: holes(one.twin, one.twin)), at


@on_file
def sync(w, one):
    call = w.rng.choice([os.fsync, os.fdatasync])
    result = w.descriptors(call, one)
    if result is None:
        w.stored.pop(os.fstat(one.twin).st_ino, None)
    return result


@on_file
def drop(w, one):
    """What the page cache does by itself when memory is short."""
    return w.descriptors(lambda fd: (os.fsync(fd), os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)), one)


# Mappings


def may_be_stored_into(status, path):
    """A store takes capabilities here, which it does not on the source: docs/mount.md says so."""
    return status.st_mode & 0o6000 == 0 and "security.capability" not in os.listxattr(path)


def map_file(w, beside):
    one = file(w)
    if one is None or beside or w.alone:
        return "none is open"
    status = os.fstat(one.twin)
    if not stat.S_ISREG(status.st_mode) or status.st_size == 0:
        return "nothing to map"
    writable = w.rng.random() < 0.7
    made = []
    try:
        made.append(Mapping(one, status.st_size, writable))
    except (PermissionError, OSError) as error:
        made.append(str(error))
    if isinstance(made[0], str):
        return made[0]
    w.mappings.append(made[0])
    if len(w.mappings) > 4:
        unmap(w, False)
    return "mapped", status.st_size, writable


def unmap(w, beside):
    if not w.mappings:
        return "none"
    mapping = w.mappings.pop(w.rng.randrange(len(w.mappings)))
    mapping.close()


def store(w, beside):
    if beside:
        return store_beside(w)
    if not w.mappings:
        return "none"
    mapping, at, content = w.rng.choice(w.mappings), offset(w), data(w, length(w))
    end = min(mapping.mapped(), at + len(content))
    if w.dying or not mapping.writable or at >= end or not may_be_stored_into(os.fstat(mapping.fd), mapping.fd):
        return "not here"
    w.note_store(mapping, at, end - at)
    mapping.view[at:end] = content[: end - at]
    mapping.twin[at:end] = content[: end - at]
    if os.fstat(mapping.fd).st_mtime_ns < trees.SET_BEFORE_NS or is_set(mapping):
        # Linux notes the time of a store at once on some filesystems, and never on tmpfs; here it is that of writing back.
        mapping.view.flush()
        os.utime(mapping.fd)
    return at, end


def is_set(mapping):
    return attempt(lambda: os.fstat(mapping.outer).st_mtime_ns) < trees.SET_BEFORE_NS


def store_beside(w):
    path, at, content = name(w), offset(w), data(w, length(w))
    opened = w.open(path, os.O_RDWR, 0, True)
    if not isinstance(opened, File):
        return opened
    status = os.fstat(opened.twin)
    w.changed_beside(status.st_ino)
    if stat.S_ISREG(status.st_mode) and at < status.st_size and may_be_stored_into(status, opened.twin):
        mapping = Mapping(opened, status.st_size, True)
        end = min(status.st_size, at + len(content))
        mapping.view[at:end] = content[: end - at]
        mapping.twin[at:end] = content[: end - at]
        mapping.close()
    opened.close()
    return path, at


def load(w, beside):
    if not w.mappings:
        return "none"
    mapping, at, size = w.rng.choice(w.mappings), offset(w), length(w)
    end = min(mapping.mapped(), at + size)
    if w.alone or w.dying or at >= end:
        return "not here"
    return w.do(lambda: trees.digest(mapping.view[at:end]), lambda: trees.digest(mapping.twin[at:end])), at, end


def write_back(w, beside):
    if not w.mappings:
        return "none"
    mapping = w.rng.choice(w.mappings)
    result = w.do(mapping.view.flush, mapping.twin.flush)
    if result is None and mapping.size >= os.fstat(mapping.fd).st_size:
        w.stored.pop(mapping.inode, None)
    return result


# Names


def on_names(change, *choose, user_share=0.2):
    """An operation on names, on either side, by root or by somebody."""

    def operation(w, beside):
        names, user = [one(w) for one in choose], w.rng.random() < user_share
        if beside:
            for path in names:
                w.changed_beside(inode_of(w, path))
        call = change(w)
        return w.names(call, *names, beside=beside, user=user), names, user

    operation.__name__ = change.__name__
    return operation


def unlink(w):
    return os.unlink


def rename(w):
    call = w.rng.choice([0, 0, linux.RENAME_NOREPLACE, linux.RENAME_EXCHANGE])
    return lambda old, new: linux.rename(old, new, call)


def link(w):
    return lambda old, new: os.link(old, new, follow_symlinks=False)


def symlink(w):
    target = w.rng.choice(["a", "b", "nowhere", "e"])
    return lambda path: os.symlink(target, path)


def make_folder(w):
    mode = w.rng.choice([0o755, 0o2775, 0o1777])
    return lambda path: os.mkdir(path, mode)


def remove_folder(w):
    return os.rmdir


def make_pipe(w):
    return os.mkfifo


def make_device(w):
    return lambda path: os.mknod(path, 0o644 | stat.S_IFCHR, os.makedev(1, 3))


def truncate_name(w):
    size = offset(w)
    return lambda path: os.truncate(path, size)


def set_mode(w):
    mode = w.rng.choice([0o644, 0o666, 0o4755, 0o2755, 0o2745, 0o400, 0o777])
    return lambda path: os.chmod(path, mode)


def set_owner(w):
    # What chown(-1, -1) takes from a file that is open for writing is left to the write here.
    owner, group = w.rng.choice([(-1, 0), (-1, 65534), (0, -1), (1, -1), (65534, -1), (0, 0), (65534, 65534), (1, 0)])
    return lambda path: os.chown(path, owner, group, follow_symlinks=False)


def set_times(w):
    at = w.rng.randrange(1_000_000_000) * 1_000_000_007
    w.write_back_on_twin()
    return lambda path: (os.utime(path, ns=(at, at + 5)), os.stat(path).st_mtime_ns)


def set_attribute(w):
    key, value, how = f"user.{w.rng.choice('xy')}", data(w, w.rng.choice([1, 100, 1000])), w.rng.choice([0, os.XATTR_CREATE, os.XATTR_REPLACE])
    return lambda path: os.setxattr(path, key, value, how)


def remove_attribute(w):
    key = w.rng.choice(["user.x", "user.y", "system.posix_acl_access", "system.posix_acl_default"])
    return lambda path: os.removexattr(path, key)


def set_access_list(w):
    key = w.rng.choice(["system.posix_acl_access", "system.posix_acl_access", "system.posix_acl_default"])
    return lambda path: os.setxattr(path, key, ACCESS_LIST)


def set_capability(w):
    return lambda path: os.setxattr(path, "security.capability", CAPABILITY)


def show_name(w):
    return lambda path: trees.show(path)


def status_of_name(w):
    return lambda path: trees.attributes(os.stat(path))


def read_link(w):
    return os.readlink


def access(w):
    mode = w.rng.choice([os.R_OK, os.W_OK, os.X_OK])
    return lambda path: os.access(path, mode, effective_ids=True)


def list_folder(w):
    return lambda path: sorted(os.listdir(path))


def list_while_changed(w, beside):
    """What is there all the time is listed once, whatever comes and goes meanwhile."""
    staying = [f"many/{'s' * 40}{number}" for number in range(120)]
    going = [f"many/{'g' * 40}{number}" for number in range(20)]
    if w.dying:
        return "not here"

    def listed(root):
        for path in staying + going:
            os.close(os.open(os.path.join(root, path), os.O_CREAT | os.O_WRONLY))
        fd = os.open(os.path.join(root, "many"), os.O_RDONLY)
        try:
            found = linux.names_in(fd, 1000)
            for number, path in enumerate(going):
                found += linux.names_in(fd, 600)
                os.unlink(os.path.join(root, path))
                os.close(os.open(os.path.join(root, f"many/n{number}"), os.O_CREAT | os.O_WRONLY))
            while more := linux.names_in(fd, 4000):
                found += more
        finally:
            os.close(fd)
        for number in range(len(going)):
            os.unlink(os.path.join(root, f"many/n{number}"))
        assert len(found) == len(set(found)), "a name is listed twice"
        missing = {path[len("many/") :] for path in staying} - set(found)
        assert not missing, f"{missing} are not listed"

    return w.do(lambda: listed(w.outer), lambda: listed(w.twin))


# Attributes and locks of open files


@on_file
def status(w, one):
    return w.descriptors(lambda fd: trees.attributes(os.fstat(fd)), one)


@on_file
def set_mode_of_file(w, one):
    mode = w.rng.choice([0o644, 0o4755, 0o600])
    return w.descriptors(lambda fd: os.fchmod(fd, mode), one), oct(mode)


@on_file
def set_times_of_file(w, one):
    at = w.rng.randrange(1_000_000_000) * 1_000_000_007
    w.write_back_on_twin()
    return w.descriptors(lambda fd: os.utime(fd, ns=(at, at + 5)), one), at


def lock(w, beside):
    # Locks of one side do not hold on the other.
    one = file(w)
    if one is None:
        return "none is open"
    kind, at, size = w.rng.choice([fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK]), w.rng.randrange(20), w.rng.randrange(1, 10)
    whole = w.rng.choice([fcntl.LOCK_SH, fcntl.LOCK_EX, fcntl.LOCK_UN]) | fcntl.LOCK_NB
    calls = [lambda fd: fcntl.flock(fd, whole), lambda fd: linux.lock(fd, kind, at, size), lambda fd: linux.lock_found(fd, fcntl.F_WRLCK, at, size)]
    return w.descriptors(w.rng.choice(calls), one), kind, at, size


CHANGES = [
    (open_name, 12), (open_unnamed, 1), (open_again, 2), (link_unnamed, 1), (close, 4),
    (write, 16), (write_on, 6), (truncate, 3), (allocate, 5), (copy, 4), (store, 8),
    (on_names(unlink, name), 3), (on_names(rename, name, name), 4), (on_names(rename, folder, folder), 1),
    (on_names(link, name, name), 2), (on_names(symlink, name), 1), (on_names(make_folder, folder), 2),
    (on_names(remove_folder, folder), 1), (on_names(make_pipe, name), 0.3), (on_names(make_device, name), 0.2),
    (on_names(truncate_name, name), 3), (on_names(set_mode, name), 3), (on_names(set_mode, folder), 1),
    (on_names(set_owner, name), 2), (on_names(set_times, name, user_share=0), 2), (on_names(set_attribute, name), 2),
    (on_names(remove_attribute, name), 1), (on_names(set_access_list, name, user_share=0), 1),
    (on_names(set_access_list, folder, user_share=0), 0.5), (on_names(set_capability, name, user_share=0), 0.7),
    (set_mode_of_file, 1), (set_times_of_file, 2),
]
LOOKS = [
    (open_path, 1), (read, 24), (seek, 3), (sync, 3), (drop, 6), (map_file, 5), (unmap, 2), (load, 8), (write_back, 2),
    (on_names(show_name, name, user_share=0), 8), (on_names(status_of_name, name), 4), (on_names(read_link, name), 1),
    (on_names(access, name), 2), (on_names(list_folder, folder), 2), (list_while_changed, 0.3), (status, 4), (lock, 4),
]


def choose(w, operations):
    return w.rng.choices([one for one, _ in operations], [share for _, share in operations])[0]
