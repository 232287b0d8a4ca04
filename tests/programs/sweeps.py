"""Memory full of records that is filled slowly and swept only while the file named on the command line is there.

Says "filled" when it is, and "wrong" for a page that is not what it was made. It runs until it is killed.
"""

import mmap
import os
import random
import sys
import time

PAGE = 4096
PART = 256 << 10

asked, size = sys.argv[1], int(sys.argv[2])
source = random.Random(7)
same = bytes(range(40))
records = b"".join(bytes(source.choices(range(64), k=24)) + same for _ in range(65_536))
data = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for at in range(0, size, PART):
    data[at : at + PART] = records[at % len(records) :][:PART]
    time.sleep(0.01)
print("filled", flush=True)
while True:
    while not os.path.exists(asked):
        time.sleep(0.05)
    for at in range(0, size, PAGE):
        data[at] = records[at % len(records)]
        if data[at + 9] != records[(at + 9) % len(records)]:
            print("wrong", flush=True)
