//! libFuzzer's door to [`zcache_fuzz::fuzz_shard_ops`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zcache_fuzz::fuzz_shard_ops(data));
