//! What the tests of the engine from outside share: a seeded generator, pages,
//! a tier with faults, and a store's counts as equations.

#![allow(dead_code, reason = "each test binary uses its part")]

pub(crate) mod counts;
pub(crate) mod faulty;
pub(crate) mod pages;
pub(crate) mod quiet;
pub(crate) mod random;
