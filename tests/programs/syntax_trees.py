"""Holds the syntax trees of the standard library, does nothing for some seconds, and walks all of them."""

import ast
import glob
import hashlib
import os
import time

files = sorted(glob.glob(os.path.dirname(os.__file__) + "/*.py"))
trees = [ast.parse(open(file, encoding="utf-8", errors="replace").read()) for file in files]
time.sleep(4)
digest = hashlib.sha256()
for tree in trees:
    for node in ast.walk(tree):
        digest.update(type(node).__name__.encode())
        digest.update(repr(getattr(node, "value", None).__class__).encode())
print(len(trees), digest.hexdigest())
