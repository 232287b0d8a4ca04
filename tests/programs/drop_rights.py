"""Fills memory as root, becomes nobody in children and then itself, checks the memory and that the rights are gone.

Prints what each process may do; a right that is left is in the output, and so is a wrong byte.
"""

import ctypes
import hashlib
import os

PAGES = 16000
libc = ctypes.CDLL(None, use_errno=True)


def drop() -> None:
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)


def refused(call) -> str:
    try:
        call()
    except OSError as error:
        return os.strerror(error.errno)
    return "allowed"


def report(name: str) -> None:
    with open("/proc/self/status") as status:
        fields = dict(line.split(":", 1) for line in status)
    digest = hashlib.sha256()
    for page in memory:
        digest.update(page)
    print(name, fields["Uid"].split(), fields["CapEff"].strip(), fields["NoNewPrivs"].strip(), digest.hexdigest())
    print(name, "opens a file of root's:", refused(lambda: open("/etc/shadow")))
    print(name, "becomes root:", refused(lambda: os.setuid(0)))
    print(name, "changes the root:", refused(lambda: os.chroot("/")))
    print(name, "ends a process of root's:", refused(lambda: os.kill(1, 0)), flush=True)


memory = [bytearray((i * 7919).to_bytes(8, "little") * 512) for i in range(PAGES)]
for number in range(3):
    child = os.fork()
    if child == 0:
        if number > 0:
            drop()
        if number == 2:
            # No child of this one gains a right by executing a file.
            libc.prctl(38, 1, 0, 0, 0)
        for i in range(0, PAGES, 3):
            memory[i][0] = number
        if number > 0:
            report(f"child {number}")
        os._exit(0)
    print("child ended with", os.waitpid(child, 0)[1], flush=True)
drop()
report("itself")
memory += [bytearray(i.to_bytes(8, "little") * 512) for i in range(2000)]
print("and more", hashlib.sha256(b"".join(memory[-2000:])).hexdigest())
