//! libFuzzer's door to [`zcache_fuzz::fuzz_codec`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zcache_fuzz::fuzz_codec(data));
