//! The fixed part of a shard's metadata.

#[test]
fn a_shard_fits_eight_frames() {
    assert!(size_of::<zcache_core::Shard>() <= 8 * zcache_core::FRAME_SIZE);
}
