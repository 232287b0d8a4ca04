//! System tests of `zcache run`, `zcache measure` and `zcache mount`: the command as built, around real programs, measured and judged from outside.
//!
//! What: exit status, streams, job control, statistics, refusals, deaths and full disks (by theme, one file each); real programs at
//! half of their memory (`programs`); the torturer and the nine known ways to wrong bytes (`torture`, `wrong_bytes`); programs that must
//! behave under zcache as they do alone (`cases`).
//! Where: outside the data path; nothing here links to the engine.
//! Invariants, for every run: bytes and exit status under zcache == those without it, and
//! `sum of anonymous memory of the tree, zcache included <= 1.02 * --ram`, sampled every 10 ms.
//! What it does not do: measure speed. No test depends on how fast the machine is; bounds only keep a hang from being silent.
//!
//! The tests need root (or the rights that `zcache run` itself needs) and the Debian packages of `tests/packages.txt`. A missing
//! prerequisite is a failure that names it, never a skip. With `ZCACHE_TESTS_PLAIN=1` most programs run without zcache, which
//! checks the tests themselves: everything but what is about zcache itself must pass then as well.

mod allocators;
mod cases;
mod codecs;
mod deaths;
mod exits;
mod lend;
mod measure;
mod mount;
mod processes;
mod programs;
mod refusals;
mod remote;
mod statistics;
mod streams;
mod support;
mod swap;
mod torture;
mod wrong_bytes;
