"""stop_and_go.py COMMAND...: stops every process of the command's tree for a while, again and again, and ends as the command does."""

import os
import signal
import subprocess
import sys
import time

RUNNING_S = 0.05
STOPPED_S = 0.03


def descendants(root: int) -> list[int]:
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:
                    parents[int(name)] = int(file.read().rsplit(")", 1)[1].split()[1])
            except OSError:
                pass
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def tell(pids: list[int], number: int) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


command = subprocess.Popen(sys.argv[1:])
while command.poll() is None:
    time.sleep(RUNNING_S)
    stopped = descendants(command.pid)
    tell(stopped, signal.SIGSTOP)
    time.sleep(STOPPED_S)
    tell(stopped, signal.SIGCONT)
sys.exit(command.returncode if command.returncode >= 0 else 128 - command.returncode)
