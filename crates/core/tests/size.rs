//! The fixed part of a shard's metadata.

#[test]
fn a_shard_fits_four_frames() {
    assert!(size_of::<zcache_core::Shard>() <= 4 * zcache_core::FRAME_SIZE);
}
