"""A parent with memory of its own that starts other programs (exec chains, pipelines, `python -m`) and checks what they say."""

import hashlib
import json
import subprocess
import sys

CHILD = """
import hashlib, sys
n = int(sys.argv[1])
rows = [f"{i * 2654435761 % 4294967296:010d} child {n}" for i in range(250_000)]
rows.sort()
print(hashlib.sha256("\\n".join(rows).encode()).hexdigest())
"""

parent = [f"{i} {i * i}" for i in range(500_000)]
before = hashlib.sha256("\n".join(parent).encode()).hexdigest()

children = [subprocess.Popen([sys.executable, "-c", CHILD, str(n)], stdout=subprocess.PIPE, text=True) for n in range(2)]
for n, child in enumerate(children):
    out, _ = child.communicate()
    print("child", n, child.returncode, out.strip())

# A document goes through a module that is run as a program, behind a shell and env.
document = json.dumps({str(i): list(range(i % 50)) for i in range(20_000)}, sort_keys=True)
tool = subprocess.run(
    ["/bin/sh", "-c", 'exec env -i PATH="$PATH" "$0" -m json.tool --sort-keys --compact', sys.executable],
    input=document, stdout=subprocess.PIPE, text=True, check=True,
)
assert json.loads(tool.stdout) == json.loads(document)
print("json.tool", hashlib.sha256(tool.stdout.encode()).hexdigest())

lines = "\n".join(parent)
count = subprocess.run("sort -r | tail -n 3 | tr '\\n' ,", shell=True, input=lines, stdout=subprocess.PIPE, text=True, check=True)
print("pipeline", count.stdout)
print("status", subprocess.run(["sh", "-c", "exit 7"]).returncode, subprocess.run(["sh", "-c", "kill -9 $$"]).returncode)
assert hashlib.sha256("\n".join(parent).encode()).hexdigest() == before
print("parent", before)
