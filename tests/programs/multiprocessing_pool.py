"""A pool of worker processes that build, mutate and digest tables; the parent checks them against its own computation."""

import hashlib
import multiprocessing


def build(seed: int, rows: int) -> dict[int, tuple[int, str]]:
    state = seed
    table = {}
    for i in range(rows):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        table[state >> 20] = (i, f"row {i} of {seed}: {state >> 40}")
    return table


def digest(table: dict[int, tuple[int, str]]) -> str:
    total = hashlib.sha256()
    for key in sorted(table):
        total.update(f"{key}:{table[key]}".encode())
    return total.hexdigest()


def work(seed: int) -> tuple[int, str, int]:
    # The inherited table is read and changed, so that pages shared with the parent become the worker's own.
    own = build(seed, 60_000)
    for key in list(INHERITED)[seed % 7 :: 7]:
        INHERITED[key] = (seed, "changed by a worker")
    changed = sum(1 for value in INHERITED.values() if value[1] == "changed by a worker")
    return seed, digest(own), changed


INHERITED = build(0, 120_000)

if __name__ == "__main__":
    before = digest(INHERITED)
    with multiprocessing.get_context("fork").Pool(2, maxtasksperchild=2) as pool:
        results = sorted(pool.imap_unordered(work, range(1, 9)))
    assert digest(INHERITED) == before, "a worker's write reached the parent"
    for seed, total, changed in results:
        print(seed, total, changed > 0)
    print("parent", before)
