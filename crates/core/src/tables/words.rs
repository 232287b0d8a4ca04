//! Little-endian words in the bytes of records.
//!
//! Stage on the data path: under every table.
//!
//! Does not: know what a word means.

/// The little-endian word at a byte offset.
#[inline]
pub(crate) fn read_word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes were sliced"))
}

/// Writes the little-endian word at a byte offset.
#[inline]
pub(crate) fn write_word(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// The same of two bytes.
pub(crate) fn read_half(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

/// The same of two bytes.
pub(crate) fn write_half(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 2].copy_from_slice(&(value as u16).to_le_bytes());
}
