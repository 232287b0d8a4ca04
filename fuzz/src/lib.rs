//! What is fuzzed, as plain functions of bytes: they panic when zcache breaks a
//! promise and return otherwise. `fuzz_targets` feeds them from libFuzzer,
//! `tests/smoke.rs` from a seed.

mod codec;
mod shard_ops;
mod store_ops;

pub use codec::fuzz_codec;
pub use shard_ops::fuzz_shard_ops;
pub use store_ops::fuzz_store_ops;
