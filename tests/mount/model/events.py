"""What happens to a mount while programs work in it. What takes another process is done by whoever runs this: it is asked for by a
line on standard output, and answers by a line on standard input."""

import errno, os, subprocess, sys, time
import linux, operations, trees
from world import FOLDERS, NAMES, PAGE, Difference, Killed, attempt


def ask(*words):
    print("event", *words, flush=True)
    answer = sys.stdin.readline().strip()
    assert answer == "done", f"{words}: {answer!r}"


def eventually(what, condition):
    end = time.monotonic() + 10
    while not condition():
        if time.monotonic() > end:
            raise Difference(f"not within 10 s: {what}")
        time.sleep(0.01)


def drop_caches(w):
    what = w.rng.choice([1, 2, 3])
    with open("/proc/sys/vm/drop_caches", "w") as file:
        file.write(str(what))
    return what


def freeze(w):
    """The source holds back who writes, for a while."""
    ask("freeze", w.rng.choice([20, 100, 300]))


def stop(w):
    """The server is stopped, for a while."""
    ask("stop", w.rng.choice([20, 100, 300]))


def kill(w):
    """The server is killed in the midst of work. What was acknowledged is in the source."""
    w.settle()
    ask("kill", w.rng.choice([0, 5, 20, 60]))
    w.dying = True
    torn, end = None, time.monotonic() + 30
    try:
        while True:
            assert time.monotonic() < end, "nobody notices that the server was killed"
            operation = operations.choose(w, operations.CHANGES + operations.LOOKS)
            w.trace.append(("dying", operation.__name__))
            try:
                w.trace.append(operation(w, False))
            except ValueError:
                # A mapping that Python itself refuses.
                pass
    except Killed as killed:
        torn = killed
    w.dying = False
    for mapping in w.mappings:
        attempt(mapping.view.flush)
    for file in w.files.values():
        if not file.beside:
            found = attempt(lambda: os.fsync(file.fd))
            if found is None or found == "EIO":
                raise Difference(f"fsync of a dead mount gives {found}")
    check_killed(w, torn)
    w.close_all()
    ask("mount")
    w.copy_source()
    w.compare()
    return "in the midst of one" if w.is_dead(torn.found) else "between two"


def check_killed(w, torn):
    """The source is the twin, but for stores that were not written back and for what was under way: old or new."""
    stored, paths = w.stored, {}
    for root, _, names in os.walk(w.twin):
        for name in names:
            paths.setdefault(os.lstat(os.path.join(root, name)).st_ino, os.path.relpath(os.path.join(root, name), w.twin))
    before = trees.snapshot(w.twin)
    contents = {path: whole(w.twin, path) for path in paths.values()}
    expected = torn.twin()
    after = trees.snapshot(w.twin)
    if torn.found == expected:
        # It was acknowledged.
        before, contents = after, {path: whole(w.twin, path) for path in contents}
    source = trees.snapshot(w.inner)
    for name in sorted(set(source) | set(before) | set(after)):
        found, old, new = source.get(name), before.get(name), after.get(name)
        if found in (old, new):
            continue
        inodes = {attempt(lambda: os.lstat(os.path.join(w.twin, name)).st_ino)}
        excused = before is not after or any(inode in stored for inode in inodes)
        if not excused or not isinstance(found, tuple) or not isinstance(old, tuple):
            raise Difference(f"after a kill {name} is {found}, and was {old} or {new}")
        check_bytes(w, name, contents.get(name, b""), stored.get(inodes.pop(), {}))


def whole(root, path):
    try:
        return trees.content(os.path.join(root, path))
    except OSError:
        return b""


def check_bytes(w, name, old, stored):
    """Each byte is one that was there: the last that was written, or one that a store or the last operation came to replace."""
    content, new = whole(w.inner, name), whole(w.twin, name)
    sizes = {len(old), len(new)}
    if len(content) not in sizes and not min(sizes) <= len(content) <= max(sizes):
        raise Difference(f"after a kill {name} has {len(content)} bytes, and had {sizes}")
    for page in range((len(content) + PAGE - 1) // PAGE):
        at = page * PAGE
        part = content[at : at + PAGE]
        versions = [old[at : at + PAGE], new[at : at + PAGE]] + stored.get(page, [])
        versions = [version.ljust(PAGE, b"\0") for version in versions]
        for place, byte in enumerate(part):
            if all(version[place] != byte for version in versions):
                raise Difference(f"after a kill {name} has a byte at {at + place} that was never there")


def fill(w):
    """The source is full for a while. What is refused is an error, and both views go on being the same."""
    w.compare()
    filler = os.path.join(w.inner, "filler")
    fd = os.open(filler, os.O_CREAT | os.O_WRONLY)
    room = w.rng.choice([0, PAGE, 20 * PAGE])
    status = os.statvfs(w.inner)
    attempt(lambda: os.posix_fallocate(fd, 0, max(1, status.f_bavail * status.f_frsize - room)))
    os.close(fd)
    w.alone = True
    refused = 0
    for _ in range(40):
        operation = operations.choose(w, operations.CHANGES)
        if operation is operations.store:
            continue
        result = operation(w, False)
        w.trace.append(("full", operation.__name__, result))
        refused += "ENOSPC" in repr(result)
    why = trees.difference(trees.snapshot(w.outer), trees.snapshot(w.inner))
    if why:
        raise Difference(f"on a full disk the mount and the source differ: {why}")
    w.alone = False
    w.close_all()
    os.unlink(filler)
    w.changed_beside()
    eventually("the room of an unlinked file is free", lambda: linux.written_out(w.inner).f_bavail > status.f_bavail // 2)
    w.copy_source()
    w.compare()
    return refused


def read_only(w):
    """The mount is read-only for a while."""
    w.compare()
    w.close_all()
    for path in (w.outer, w.twin):
        # Files that were unlinked beside are closed for good a little later.
        eventually("remounted", lambda: attempt(lambda: linux.remount(path, linux.MS_RDONLY)) == 0)
    for _ in range(15):
        operation = operations.choose(w, operations.CHANGES + operations.LOOKS)
        if operation.__name__ in ("list_while_changed", "access"):
            continue
        result = operation(w, False)
        w.trace.append(("read-only", operation.__name__, result))
    w.close_all()
    for path in (w.outer, w.twin):
        linux.remount(path, 0)


def compare(w):
    w.compare()


EVENTS = [(compare, 8), (drop_caches, 3), (freeze, 2), (stop, 2), (kill, 3), (fill, 1), (read_only, 1)]
