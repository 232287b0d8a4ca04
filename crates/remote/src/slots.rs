//! Which slot of a cluster a key is in, and which tags are in a slot.
//! Source: the Redis cluster specification, appendix A (CRC-16/XMODEM).

/// Slots of a cluster.
pub(crate) const SLOTS: usize = 16384;

/// The slot of the keys with this tag.
pub(crate) fn slot_of_tag(tag: u16) -> u16 {
    slot(format!("{tag:x}").as_bytes())
}

/// The slot of a key: of what is in its braces.
pub(crate) fn slot_of_key(key: &str) -> u16 {
    let tag = key
        .split_once('{')
        .and_then(|(_, rest)| rest.split_once('}'));
    slot(tag.map_or(key, |(tag, _)| tag).as_bytes())
}

fn slot(hashed: &[u8]) -> u16 {
    let mut crc = 0u16;
    for byte in hashed {
        crc ^= u16::from(*byte) << 8;
        for _ in 0..8 {
            crc = (crc << 1) ^ if crc & 0x8000 == 0 { 0 } else { 0x1021 };
        }
    }
    crc % SLOTS as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_as_the_specification_has_them() {
        assert_eq!(slot(b"123456789"), 0x31c3);
        assert_eq!(slot(b"foo"), 12182);
        assert_eq!(slot_of_tag(0xf00), slot(b"f00"));
    }

    #[test]
    fn tags_reach_slots_all_over() {
        let mut ranges = [0; 16];
        for tag in 0..4096 {
            ranges[usize::from(slot_of_tag(tag)) / 1024] += 1;
        }
        assert!(ranges.iter().all(|count| *count > 100), "{ranges:?}");
    }
}
