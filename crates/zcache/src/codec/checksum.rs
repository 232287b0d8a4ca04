//! The checksum of a zpage: CRC-32C over its bytes, begun from its kind and
//! length, so that right bytes under a wrong kind or length do not pass.

use super::list::Kind;

/// The checksum of a zpage of this kind.
///
/// CRC-32C (RFC 3720, appendix B.4) finds every error of up to 32 neighbouring
/// bits and every error of up to three bits in data of a page's size.
#[must_use]
pub fn checksum(kind: Kind, bytes: &[u8]) -> u32 {
    checksum_from(0, kind, bytes)
}

/// The same, begun from the checksum of what the bytes were made with.
pub(super) fn checksum_from(origin: u32, kind: Kind, bytes: &[u8]) -> u32 {
    // A zpage is at most a page long, so its length needs 13 bits and the kind
    // does not overlap it; different starts give different sums for the same
    // bytes because the CRC is linear.
    let start = (kind as u32) << 16 | bytes.len() as u32;
    crc32c::crc32c_append(origin ^ start, bytes)
}
