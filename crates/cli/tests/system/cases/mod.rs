//! Small programs that must behave under zcache as they do alone: same output, same end, nothing left behind, within the budget.
//!
//! What: one test for each case of a kind that once went wrong or might (`tests/cases/`, by theme): refused calls, moved mappings,
//! births and deaths at bad moments, stops, limits, rights, namespaces, locked memory, and what a program can see of its pager.
//! Each program runs alone first. It prints what it saw without times and addresses, and judges where the right value is known,
//! so that a test also fails where both runs are wrong.
//! What it does not do: measure speed. What was slow prints its time to stderr.

mod budget;
mod forks;
mod limits;
mod memory;
mod namespaces;
mod ordinary_users;
mod rights;
mod signals;
mod support;
mod visible;
