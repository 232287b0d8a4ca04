//! Programs that people run, by theme: same output, same files, same status, within the budget.
//!
//! What: each runs alone first and then under zcache, at half or at 60% of the memory that it took alone (`half`, `agrees`); as
//! root, and where it makes sense as an ordinary user to whom only `/dev/userfaultfd` was given.
//! What runs for more than some ten seconds, or needs the packages of `tests/packages-long.txt`, is ignored unless asked for:
//! tests/README.md has the command.
//! What it does not do: debuggers inside. A task has one tracer, and under zcache that is zcache.

mod browsers;
mod containers;
mod languages;
mod sanitizers;
mod servers;
mod tools;
mod under_control;
mod users_and_rights;

/// The distribution's own interpreter, not one that a version manager puts before it in PATH.
const PYTHON: &str = "/usr/bin/python3";
