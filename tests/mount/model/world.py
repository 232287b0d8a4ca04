"""The tree through the mount (`outer`), the source beside it (`inner`), and a twin on a plain filesystem, which is the model: Linux
itself says what POSIX means. Each operation is done on one side and on the twin, and has to come to the same."""

import errno, fcntl, mmap, os, random, stat, subprocess, time
import linux, trees

NAMES = ["a", "b", "c", "d/a", "d/b", "d/e/a", "d/e/b", "f"]
FOLDERS = ["d", "d/e", "f", "g"]
# Symbolic links also lead to the last ones.
ALL = NAMES + FOLDERS + [".", "nowhere", "d/nowhere", "d/e/nowhere"]
PAGE = 4096
USER = 65534
# Of a server that is gone.
DEAD = (errno.ENOTCONN, errno.ECONNABORTED, errno.ENODEV, errno.ECANCELED)
# What is changed beside is seen by then, on a machine that is busy with other things.
SEEN_SECONDS = 8


class Difference(Exception):
    pass


class Killed(Exception):
    """The server has ended by the end of an operation; `twin` does it on the twin, and `found` came of it."""

    def __init__(self, twin, found):
        self.twin, self.found = twin, found


class File:
    """A file that is open on one side and on the twin."""

    def __init__(self, fd, twin, beside, direct=False):
        self.fd, self.twin, self.beside, self.direct = fd, twin, beside, direct

    def appends(self):
        return fcntl.fcntl(self.twin, fcntl.F_GETFL) & (os.O_APPEND | os.O_PATH) == os.O_APPEND

    def close(self):
        try:
            os.close(self.fd)
        finally:
            os.close(self.twin)


class Mapping:
    def __init__(self, file, size, writable):
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        self.view = mmap.mmap(file.fd, size, prot=protection)
        self.twin = mmap.mmap(file.twin, size, prot=protection)
        # The twin's descriptor, by which the size is asked for: nobody may touch what lies behind it.
        self.outer, self.fd = os.dup(file.fd), os.dup(file.twin)
        self.inode = os.fstat(file.twin).st_ino
        self.size, self.writable = size, writable

    def mapped(self):
        """Bytes that are there to be touched."""
        return min(self.size, os.fstat(self.fd).st_size)

    def close(self):
        self.view.close()
        self.twin.close()
        os.close(self.fd)
        attempt(lambda: os.close(self.outer))


def attempt(call):
    try:
        return call()
    except OSError as error:
        return errno.errorcode[error.errno]


class World:
    def __init__(self, outer, inner, twin, seed, watched):
        self.outer, self.inner, self.twin = outer, inner, twin
        self.rng, self.watched = random.Random(seed), watched
        self.files, self.mappings, self.trace = {}, [], []
        # Inodes of the twin with what was stored through mappings and is not in the source for sure: for each page what may
        # be there instead.
        self.stored = {}
        # Inodes of the twin that were changed beside since all was seen.
        self.unseen, self.waits = None, []
        # The server may be killed at any moment.
        self.dying = False
        # Nothing is done on the twin.
        self.alone = False
        # What is done to names, for a report.
        self.doing = None
        os.setgroups([])

    # Operations on both sides

    def do(self, here, twin, user=False):
        """Does the same on a side and on the twin, and gives what came of both."""
        found = self._as(user, here)
        if self.dying and self.server_is_gone():
            raise Killed(lambda: self._as(user, twin), found)
        if self.alone:
            return found
        expected = self._as(user, twin)
        if found != expected:
            raise Difference(f"{self.doing}: it gives {found!r:.300}, and on the twin {expected!r:.300}")
        return found

    def _as(self, user, call):
        if not user:
            return attempt(call)
        os.setegid(USER)
        os.seteuid(USER)
        try:
            return attempt(call)
        finally:
            os.seteuid(0)
            os.setegid(0)

    def is_dead(self, result):
        return result in [errno.errorcode[number] for number in DEAD]

    def server_is_gone(self):
        return self.is_dead(attempt(lambda: os.statvfs(self.outer).f_bsize))

    def names(self, call, *names, beside=False, user=False, how=None):
        root = self.inner if beside else self.outer
        paths = lambda root: [os.path.join(root, name) for name in names]
        self.doing = names, "beside" if beside else "through", "a user" if user else "root", how or call.__qualname__
        return self.do(lambda: call(*paths(root)), lambda: call(*paths(self.twin)), user)

    def descriptors(self, call, *files):
        self.doing = call.__qualname__, [slot for slot, file in self.files.items() if file in files]
        return self.do(lambda: call(*[one.fd for one in files]), lambda: call(*[one.twin for one in files]))

    def open(self, name, flags, mode, beside=False, user=False):
        """Opens a name on both sides; gives the file, or the name of the error."""
        if self.is_pipe(name):
            return "pipe"
        pair = []
        # A pipe has an end for each filesystem that shows it.
        call = lambda path: pair.append(os.open(path, flags | os.O_NONBLOCK, mode))
        result = self.names(call, name, beside=beside, user=user, how=f"open {flags:#o} {mode:#o}")
        return self.file(pair, beside, bool(flags & os.O_DIRECT)) if result is None else result

    def file(self, pair, beside, direct=False):
        if len(pair) == 1:
            pair.append(os.dup(pair[0]))
        return File(*pair, beside, direct)

    def is_pipe(self, name):
        try:
            mode = os.stat(os.path.join(self.inner if self.alone else self.twin, name)).st_mode
        except OSError:
            return False
        return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)

    # Stores through mappings

    def note_store(self, mapping, at, size):
        pages = self.stored.setdefault(mapping.inode, {})
        for page in range(at // PAGE, (at + size - 1) // PAGE + 1):
            old = mapping.twin[page * PAGE : (page + 1) * PAGE]
            pages.setdefault(page, []).append(old)

    def flush(self):
        """Has all stores through mappings written."""
        for mapping in self.mappings:
            if mapping.inode in self.stored and mapping.writable:
                found = attempt(mapping.view.flush)
                if found is not None:
                    raise Difference(f"msync gives {found}")
                mapping.twin.flush()
        self.stored = {}

    def write_back_on_twin(self):
        """A store into a page that is dirty already has no time of its own; when pages are written back is Linux's affair."""
        for mapping in self.mappings:
            mapping.twin.flush()

    # What is seen of changes beside

    def changed_beside(self, inode=None):
        if self.unseen is None:
            self.unseen = set()
        if inode is not None:
            self.unseen.add(inode)

    def settle(self):
        """Waits until all that was changed beside is seen."""
        if self.unseen is None:
            return
        begun = time.monotonic()
        pause = 0.0005
        while (why := self._unlike()) is not None:
            if self.dying and self.server_is_gone():
                break
            waited = time.monotonic() - begun
            if waited > SEEN_SECONDS:
                raise Difference(f"not seen within {SEEN_SECONDS} s: {why}")
            time.sleep(pause)
            pause = min(pause * 2, 0.02)
        self.waits.append(time.monotonic() - begun)
        self.unseen = None

    def look_at_once(self):
        """Whatever else is seen later, the next open sees the contents. Names may be older."""
        for name in NAMES:
            path = os.path.join(self.twin, name)
            inode = attempt(lambda: os.lstat(path).st_ino)
            if inode not in (self.unseen or ()) or not stat.S_ISREG(os.lstat(path).st_mode):
                continue
            if os.stat(os.path.join(self.inner, name)).st_ino != attempt(lambda: os.lstat(os.path.join(self.outer, name)).st_ino):
                continue
            found, expected = (attempt(lambda: trees.digest(trees.content(os.path.join(root, name)))) for root in (self.outer, self.twin))
            if found != expected:
                raise Difference(f"the next open of {name} sees {found}, and not {expected}")

    def append_on_both_sides(self):
        """What is appended by an open descriptor comes behind what was appended beside a moment ago, seen or not."""
        self.settle()
        self.flush()
        for file in list(self.files.values()):
            inode = os.fstat(file.twin).st_ino
            names = [name for name in NAMES if attempt(lambda: os.lstat(os.path.join(self.twin, name)).st_ino) == inode]
            if file.beside or not names or not file.appends():
                continue
            self.changed_beside(inode)
            for _ in range(3):
                parts = [bytes([self.rng.randrange(1, 256)]) * self.rng.choice([1, 100, 5000]) for _ in range(2)]
                beside = self.open(names[0], os.O_WRONLY | os.O_APPEND, 0, True)
                if not isinstance(beside, File):
                    break
                self.descriptors(lambda fd: os.write(fd, parts[0]), beside)
                beside.close()
                self.descriptors(lambda fd: os.write(fd, parts[1]), file)
            return names[0]
        return "none is open"

    def _unlike(self):
        """What is not seen yet."""
        for name in ALL:
            one, other = (os.path.join(root, name) for root in (self.outer, self.twin))
            found, expected = (attempt(lambda: trees.attributes(os.lstat(path))) for path in (one, other))
            if found == expected and not isinstance(found, str) and found[0][0] == "d":
                found, expected = sorted(os.listdir(one)), sorted(os.listdir(other))
            elif found == expected and not isinstance(found, str) and found[0][0] == "l":
                found, expected = os.readlink(one), os.readlink(other)
            elif found == expected and os.path.lexists(other) and os.lstat(other).st_ino in self.unseen:
                found, expected = trees.show(one), trees.show(other)
            if found != expected:
                return f"{name}: {found}, and not {expected}"
        for slot, file in self.files.items():
            if file.beside:
                continue
            found, expected = (attempt(lambda: trees.attributes(os.fstat(fd))) for fd in (file.fd, file.twin))
            if found == expected and os.fstat(file.twin).st_ino in self.unseen and not file.direct:
                found, expected = (attempt(lambda: trees.digest(trees.whole(fd))) for fd in (file.fd, file.twin))
            if found != expected:
                return f"descriptor {slot}: {found}, and not {expected}"
        for mapping in self.mappings:
            size = mapping.mapped()
            if mapping.inode in self.unseen and not self.watched:
                # It is the next open that has the kernel drop the pages of mappings.
                os.close(os.open(f"/proc/self/fd/{mapping.outer}", os.O_RDONLY))
            # Linux may answer a size that it has not taken for mappings yet; the second time it has.
            sizes = {os.fstat(fd).st_size for fd in (mapping.outer, mapping.outer, mapping.fd)}
            if len(sizes) > 1:
                return f"the size of a mapping: {sizes}"
            if mapping.inode in self.unseen and mapping.view[:size] != mapping.twin[:size]:
                return "a mapping"
        return None

    # Comparisons

    def compare(self):
        """All three trees are the same."""
        self.settle()
        self.flush()
        outer, inner = (trees.snapshot(root) for root in (self.outer, self.inner))
        why = trees.difference(outer, inner)
        if why:
            raise Difference(f"the mount and the source differ: {why}")
        why = None if self.alone else trees.difference(inner, trees.snapshot(self.twin))
        if why:
            raise Difference(f"the source and the twin differ: {why}")

    def close_all(self):
        for mapping in self.mappings:
            mapping.close()
        for file in self.files.values():
            attempt(file.close)
        self.mappings, self.files, self.stored = [], {}, {}
        # What an operation had open that did not come to its end.
        for fd in os.listdir("/proc/self/fd"):
            where = attempt(lambda: os.readlink(f"/proc/self/fd/{fd}"))
            if where.startswith((self.outer, self.twin)):
                attempt(lambda: os.close(int(fd)))

    def copy_source(self):
        """The twin begins anew as the source is."""
        subprocess.run(["rsync", "-aHAXI", "--delete", self.inner + "/", self.twin + "/"], check=True)
        why = trees.difference(trees.snapshot(self.inner), trees.snapshot(self.twin))
        assert why is None, f"rsync: {why}"
