# Parses Python's own library and keeps the syntax trees.
import ast, glob, os, sys

sys.setrecursionlimit(10000)
trees = []
for path in sorted(glob.glob(os.path.dirname(os.__file__) + "/*.py")):
    try:
        trees.append((path, ast.parse(open(path, encoding="utf-8").read())))
    except (SyntaxError, UnicodeDecodeError, RecursionError):
        pass
    if len(trees) >= 90:
        break
print("ready", flush=True)
sys.stdin.read()
