"""A model of POSIX and of what is changed beside a mount: operations by a seeded schedule, each done through the mount or on the source
beside it, and on a twin of the source, which says what must come of it; with events among them.

    python3 model OUTER INNER TWIN SEED COUNT watched|unwatched EVENT...

Whoever runs it makes the events that it asks for (events.py). Ends with what differs, if anything does, and the last operations.
"""

import faulthandler, os, sys
import events, operations
from world import Difference, World

# Of so many operations one is an event.
EVENT_SHARE = 1 / 150


def step(w, number, happenings):
    if w.rng.random() < EVENT_SHARE:
        event = operations.choose(w, happenings)
        w.trace.append((number, "event", event.__name__))
        return event(w)
    if w.rng.random() < 0.01:
        w.trace.append((number, "appended on both sides"))
        return w.append_on_both_sides()
    beside = w.rng.random() < (0.2 if w.watched else 0.02)
    operation = operations.choose(w, operations.CHANGES if beside else operations.CHANGES + operations.LOOKS)
    w.trace.append((number, "beside" if beside else "through", operation.__name__))
    if beside:
        # Both sides storing into one page may overwrite each other.
        w.settle()
        w.flush()
        result = operation(w, True)
        if w.rng.random() < 0.5:
            w.look_at_once()
        return result
    w.settle()
    return operation(w, False)


def run(w, count, happenings):
    os.umask(0o022)
    for root in (w.outer, w.twin):
        os.chmod(root, 0o777)
        for folder in ("d", "d/e", "many"):
            os.mkdir(os.path.join(root, folder))
    for number in range(count):
        try:
            w.trace.append(step(w, number, happenings))
        except ValueError as error:
            w.trace.append(str(error))
    w.compare()
    w.close_all()


def main():
    # A mapping whose server is gone.
    faulthandler.enable()
    outer, inner, twin, seed, count, watched, *names = sys.argv[1:]
    w = World(outer, inner, twin, int(seed), watched == "watched")
    happenings = [(event, share) for event, share in events.EVENTS if event.__name__ in names]
    try:
        run(w, int(count), happenings)
    except (Difference, AssertionError, OSError) as difference:
        for line in w.trace[-80:]:
            print(line, file=sys.stderr)
        print(f"seed {seed}: {difference}", file=sys.stderr)
        raise
    waits = sorted(w.waits) or [0]
    print(f"seed {seed}: seen after {waits[len(waits) // 2] * 1000:.1f} ms, at most {waits[-1] * 1000:.0f} ms, of {len(waits)} changes beside")


main()
