//! Codecs on any bytes: as a page to encode, and as a zpage to decode.

use zcache::codec::{self, Codec, Kind};
use zcache::{PAGE_SIZE, Page};

/// Encodes a page made of the bytes and expects it back; decodes the bytes
/// under each kind and expects no panic; damages what was encoded as the bytes
/// say and expects no panic, and no same checksum for other bytes.
///
/// # Panics
/// When a codec breaks one of these promises.
pub fn fuzz_codec(data: &[u8]) {
    let mut out = [0; PAGE_SIZE];
    for kind in (0..=u8::MAX).map_while(Kind::from_bits) {
        if codec::decode(kind, data, &mut out).is_ok() && kind == Kind::Raw {
            assert_eq!(data, out);
        }
    }
    let page = page_of(data);
    for codec in Codec::ALL {
        let (kind, mut zpage) = codec::encode(codec, &page, |z| (z.kind, z.bytes.to_vec()));
        assert!(zpage.len() <= PAGE_SIZE);
        codec::decode(kind, &zpage, &mut out).expect("what was encoded decodes");
        assert!(out == page, "{codec} changed a page");

        let before = (codec::checksum(kind, &zpage), zpage.clone());
        for pair in data.chunks_exact(3).take(8) {
            let at = usize::from(u16::from_le_bytes([pair[0], pair[1]])) % zpage.len();
            zpage[at] ^= pair[2];
        }
        // Eight damaged bytes may collide with a chance of 2^-32, which no run
        // will meet; more than four bytes apart is beyond what CRC promises.
        if zpage != before.1 {
            assert_ne!(codec::checksum(kind, &zpage), before.0);
        }
        codec::decode(kind, &zpage, &mut out).ok();
        let len = data.len() % zpage.len();
        codec::decode(kind, &zpage[..len], &mut out).ok();
    }
}

/// The bytes, over and over.
fn page_of(data: &[u8]) -> Page {
    let mut page = [0; PAGE_SIZE];
    for (to, from) in page.iter_mut().zip(data.iter().cycle()) {
        *to = *from;
    }
    page
}
