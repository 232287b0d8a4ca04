"""Drives an interactive shell on a pseudo-terminal: stops a job with Ctrl-Z, goes on with fg, and ends it with Ctrl-C.

    job_control.py COMMAND_LINE

COMMAND_LINE must print "pass" again and again until it is interrupted. Prints "ok" and ends with 0 when the job was stopped, stood
still while it was stopped, went on, and was ended by SIGINT (status 130); otherwise says what it waited for, and ends with 1.
"""

import os
import pty
import select
import signal
import sys
import time

BOUND_S = 60
seen = b""


def read_for(seconds: float) -> None:
    global seen
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if select.select([terminal], [], [], left)[0]:
            try:
                seen += os.read(terminal, 65536)
            except OSError:
                return


def expect(text: bytes) -> None:
    global seen
    end = time.monotonic() + BOUND_S
    while text not in seen:
        if time.monotonic() > end:
            print(f"waited {BOUND_S} s for {text!r}; the terminal's last output was {seen[-600:]!r}")
            os.kill(shell, signal.SIGKILL)
            sys.exit(1)
        read_for(0.1)
    seen = seen[seen.index(text) + len(text) :]


shell, terminal = pty.fork()
if shell == 0:
    os.environ["PS1"] = "prompt> "
    os.execvp("bash", ["bash", "--norc", "--noprofile", "-i"])
expect(b"prompt> ")
os.write(terminal, sys.argv[1].encode() + b"\n")
expect(b"pass")
os.write(terminal, b"\x1a")
expect(b"Stopped")
expect(b"prompt> ")
read_for(0.5)
seen = b""
read_for(1.5)
if b"pass" in seen:
    print("the job goes on while it is stopped")
    sys.exit(1)
os.write(terminal, b"jobs\n")
expect(b"Stopped")
os.write(terminal, b"fg\n")
expect(b"pass")
os.write(terminal, b"\x03")
expect(b"prompt> ")
os.write(terminal, b"echo status=$?\n")
expect(b"status=130")
os.write(terminal, b"exit\n")
os.waitpid(shell, 0)
print("ok")
