//! Codecs on any bytes: as a page to encode, and as a zpage to decode.

use std::sync::LazyLock;

use zcache::codec::{self, Codec, Dictionary, Encoder, Kind};
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
        if codec::decode(kind, data, &mut out).is_ok() && kind == Codec::PLAIN.kind() {
            assert_eq!(data, out);
        }
    }
    let page = page_of(data);
    fuzz_dictionary(data, &page);
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

/// Takes the bytes for a saved dictionary, for damage to one, and for a zpage made
/// with one; expects errors, never a panic or another page.
fn fuzz_dictionary(data: &[u8], page: &Page) {
    static ENCODER: LazyLock<Encoder> = LazyLock::new(|| {
        let pages: Vec<Page> = (0..64u64).map(|n| page_of(&words(n))).collect();
        let dictionary = Dictionary::train(&pages, 4096).expect("words train a dictionary");
        Encoder::new(dictionary.into(), 1).expect("memory for its tables")
    });
    let encoder = &*ENCODER;
    let mut out = [0; PAGE_SIZE];
    assert!(Dictionary::from_saved(data).is_err() || data.starts_with(b"zcdict01"));
    let mut saved = encoder.dictionary().save();
    let whole = saved.clone();
    for pair in data.chunks_exact(3).take(4) {
        let at = usize::from(u16::from_le_bytes([pair[0], pair[1]])) % saved.len();
        saved[at] ^= pair[2];
    }
    assert!(saved == whole || Dictionary::from_saved(&saved).is_err());

    codec::decode_with(encoder.dictionary(), Dictionary::KIND, data, &mut out).ok();
    let (kind, zpage) = codec::encode_with(encoder, page, |z| (z.kind, z.bytes.to_vec()));
    match kind.has_dictionaries() {
        true => codec::decode_with(encoder.dictionary(), kind, &zpage, &mut out),
        false => codec::decode(kind, &zpage, &mut out),
    }
    .expect("what was encoded decodes");
    assert!(out == *page, "a dictionary changed a page");
}

/// Some words of a vocabulary, drawn by a number.
fn words(number: u64) -> Vec<u8> {
    let word = |at: u64| (at % 97).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    (0..512).flat_map(|at| word(at * at + number)).collect()
}

/// The bytes, over and over.
fn page_of(data: &[u8]) -> Page {
    let mut page = [0; PAGE_SIZE];
    for (to, from) in page.iter_mut().zip(data.iter().cycle()) {
        *to = *from;
    }
    page
}
