"""Threads that fill, shuffle and digest memory of their own beside a shared cache, with results that do not depend on timing."""

import hashlib
import random
import threading
import zlib

results: dict[int, str] = {}
cache: dict[int, bytes] = {}
lock = threading.Lock()


def work(number: int) -> None:
    source = random.Random(number)
    blocks = [bytearray(source.randbytes(64) * 64) for _ in range(6_000)]
    total = hashlib.sha256()
    for turn in range(4):
        for block in blocks[turn::3]:
            at = source.randrange(len(block) - 8)
            block[at : at + 8] = source.randbytes(8)
        with lock:
            for i in range(200):
                cache[number * 10_000 + turn * 200 + i] = zlib.compress(bytes(blocks[i]))
        source.shuffle(blocks)
    for block in blocks:
        total.update(block)
    results[number] = total.hexdigest()


workers = [threading.Thread(target=work, args=(n,)) for n in range(4)]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
for number in sorted(results):
    print(number, results[number])
total = hashlib.sha256()
for key in sorted(cache):
    total.update(zlib.decompress(cache[key]))
print("cache", len(cache), total.hexdigest())
