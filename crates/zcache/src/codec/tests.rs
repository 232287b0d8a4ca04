use super::*;
use crate::page::{PAGE_SIZE, Page};
use crate::testing::{self, Rng};
use std::sync::Arc;

#[test]
fn names_parse_and_errors_list_them() {
    for codec in Codec::ALL {
        assert_eq!(codec.name().parse::<Codec>(), Ok(codec));
    }
    let error = "lz5".parse::<Codec>().unwrap_err().to_string();
    assert_eq!(error, "unknown codec \"lz5\"; known are: lz4, zstd, raw");
}

#[test]
fn kinds_keep_their_numbers() {
    for kind in Kind::ALL {
        assert_eq!(Kind::from_bits(kind as u8), Some(kind));
    }
    assert_eq!(Kind::from_bits(4), None);
    for codec in Codec::ALL {
        assert_eq!(codec.kind().codec(), Some(codec));
    }
    let names = ByCodec::from_fn(Codec::name);
    for (codec, name) in names.iter() {
        assert_eq!((names[codec], *name), (codec.name(), codec.name()));
    }
}

/// Pages that codecs find hard or that lie at the edge of a rule.
fn awkward() -> Vec<Page> {
    let mut pages = vec![[0; PAGE_SIZE], [0xff; PAGE_SIZE]];
    // Repeats of every short period; periods that divide 8 are same-filled.
    for period in 1..=70 {
        pages.push(std::array::from_fn(|at| (at % period) as u8));
    }
    // Same-filled but for one byte, at the ends and the middle.
    for at in [0, 1, 7, 8, 2047, 2048, 2056, 4088, 4095] {
        let mut page = [3; PAGE_SIZE];
        page[at] = 4;
        pages.push(page);
    }
    // Random up to a point, so that the size passes every limit.
    let mut rng = Rng::new(99);
    for random in (0..=PAGE_SIZE).step_by(97).chain([4064, 4080, 4090, 4096]) {
        let mut page = [0; PAGE_SIZE];
        page[..random].fill_with(|| rng.next() as u8);
        pages.push(page);
    }
    pages.push(std::array::from_fn(|at| (at / 16) as u8));
    pages.extend((0..200).map(testing::page));
    pages
}

#[test]
fn every_codec_gives_back_awkward_pages() {
    for codec in Codec::ALL {
        for page in awkward() {
            let (kind, bytes) = encode(codec, &page, |zpage| (zpage.kind, zpage.bytes.to_vec()));
            match kind {
                Kind::Same => assert_eq!(bytes.len(), 8),
                Kind::Raw => assert_eq!(bytes.len(), PAGE_SIZE),
                Kind::Lz4 | Kind::Zstd => assert!(bytes.len() <= SHRUNK_BYTES_MAX),
            }
            let mut out = [0x5a; PAGE_SIZE];
            decode(kind, &bytes, &mut out).unwrap();
            assert!(out == page);
        }
    }
}

#[test]
fn any_repeated_word_is_same_filled() {
    let word = 0x0123_4567_89ab_cdef_u64.to_le_bytes();
    let mut page = [0; PAGE_SIZE];
    page.as_chunks_mut::<8>().0.fill(word);
    for codec in Codec::ALL {
        encode(codec, &page, |zpage| {
            assert_eq!((zpage.kind, zpage.bytes), (Kind::Same, &word[..]));
        });
        page[4095] ^= 1;
        encode(codec, &page, |zpage| assert_ne!(zpage.kind, Kind::Same));
        page[4095] ^= 1;
    }
}

#[test]
fn damaged_bytes_are_an_error_or_a_whole_page_under_every_kind() {
    let rng = &mut Rng::from_env("codec damage");
    for page in awkward() {
        for codec in Codec::ALL {
            let bytes = encode(codec, &page, |zpage| zpage.bytes.to_vec());
            for kind in Kind::ALL {
                let mut damaged = bytes.clone();
                for _ in 0..1 + rng.below(4) {
                    let at = rng.below(bytes.len() as u64) as usize;
                    damaged[at] = rng.next() as u8;
                }
                let len = rng.below(damaged.len() as u64 + 1) as usize;
                let mut out = [0; PAGE_SIZE];
                decode(kind, &damaged, &mut out).ok();
                decode(kind, &damaged[..len], &mut out).ok();
                damaged.extend_from_slice(&bytes[..len]);
                decode(kind, &damaged, &mut out).ok();
            }
        }
    }
    let mut out = [0; PAGE_SIZE];
    for kind in Kind::ALL {
        assert_eq!(decode(kind, &[], &mut out), Err(DecodeError));
        assert_eq!(
            decode(kind, &[7; PAGE_SIZE + 1], &mut out),
            Err(DecodeError)
        );
    }
    // The contexts work after errors.
    for codec in Codec::ALL {
        let page = testing::page(5);
        let (kind, bytes) = encode(codec, &page, |zpage| (zpage.kind, zpage.bytes.to_vec()));
        decode(kind, &bytes, &mut out).unwrap();
        assert!(out == page);
    }
}

#[test]
fn a_thread_without_memory_for_a_decompressor_reads_what_is_stored() {
    assert!(prepare());
    let pages = testing::records(64);
    let dictionary = Dictionary::train(&pages, 4096).expect("records have much in common");
    let encoder = Encoder::new(dictionary.into(), 1).expect("memory for its tables");
    // Other tests' threads have contexts of their own.
    let reads = std::thread::spawn(move || {
        zstd::DENIED.set(true);
        for page in pages {
            let mut out = [0; PAGE_SIZE];
            let zpage = encode(Codec::Zstd, &page, |z| z.bytes.to_vec());
            assert_eq!(decode(Kind::Zstd, &zpage, &mut out), Ok(()));
            assert_eq!(out, page);
            assert!(decode(Kind::Zstd, &zpage[1..], &mut out).is_err());
            let zpage = encode_with(&encoder, &page, |z| z.bytes.to_vec());
            let read = decode_with(encoder.dictionary(), Kind::Zstd, &zpage, &mut out);
            assert_eq!(read, Ok(()));
            assert_eq!(out, page);
        }
    });
    reads.join().unwrap();
}

#[test]
fn a_checksum_is_bound_to_kind_and_length_and_notices_every_bit() {
    let mut bytes = testing::page(5);
    let sum = checksum(Kind::Lz4, &bytes[..1000]);
    assert_ne!(sum, checksum(Kind::Zstd, &bytes[..1000]));
    assert_ne!(checksum(Kind::Lz4, &[0; 8]), checksum(Kind::Lz4, &[0; 9]));
    for bit in 0..8000 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert_ne!(sum, checksum(Kind::Lz4, &bytes[..1000]));
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn contexts_are_counted() {
    encode(Codec::Zstd, &testing::page(5), |_| ());
    // Other tests count theirs at the same time; this is what one zstd context
    // takes at least.
    assert!(context_bytes() > 16 << 10);
}

#[test]
fn a_page_that_hardly_shrinks_is_kept_as_it_is() {
    // Random bytes up to somewhere near the end, so that some results are just
    // within the bound and others just beyond it.
    let mut rng = Rng::new(7);
    let mut page = [0; PAGE_SIZE];
    page.fill_with(|| rng.next() as u8);
    // Some codecs give up before that of their own.
    let mut kept = 0;
    for codec in Codec::shrinking() {
        let mut longest = 0;
        for random in 4000..PAGE_SIZE {
            let mut page = page;
            page[random..].fill(0);
            // What the codec makes of it, whatever `encode` then does.
            let mut out = [0; PAGE_SIZE * 2];
            let made = codec.method().compress(&page, &mut out);
            let expected = match made {
                Some(len) if len <= 4080 => (codec.kind(), len),
                _ => (Kind::Raw, PAGE_SIZE),
            };
            let is = encode(codec, &page, |zpage| (zpage.kind, zpage.bytes.len()));
            assert_eq!(is, expected, "{codec} makes {made:?} of it");
            match is.0 {
                Kind::Raw => kept += usize::from(made.is_some_and(|len| len < PAGE_SIZE)),
                _ => longest = longest.max(is.1),
            }
        }
        assert!((4000..=4080).contains(&longest), "{codec}: {longest}");
    }
    assert!(kept > 0, "no page was just beyond the bound");
}

#[test]
fn what_takes_a_zpage_may_encode_and_decode_itself() {
    let pages = testing::records(64);
    let dictionary = Dictionary::train(&pages, 4096).expect("records have much in common");
    let encoder = Encoder::new(dictionary.into(), 1).expect("memory for its tables");
    for outer in Codec::ALL {
        for inner in Codec::ALL {
            encode(outer, &pages[0], |zpage| {
                let mut out = [0; PAGE_SIZE];
                encode(inner, &pages[1], |other| {
                    decode(other.kind, other.bytes, &mut out).unwrap();
                    assert_eq!(out, pages[1]);
                });
                encode_with(&encoder, &pages[2], |other| {
                    decode_with(encoder.dictionary(), other.kind, other.bytes, &mut out).unwrap();
                    assert_eq!(out, pages[2]);
                });
                decode(zpage.kind, zpage.bytes, &mut out).unwrap();
                assert_eq!(out, pages[0]);
            });
        }
    }
}

/// Folders whose programs name codecs for reasons of their own: zram, zswap and
/// kernel modules have theirs, and a bench compares given ones.
const NAME_THEIRS: [&str; 4] = ["bench", "xtask", "sys", "core"];

#[test]
fn nothing_outside_this_folder_names_a_codec() {
    let crates = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut folders: Vec<_> = std::fs::read_dir(crates)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| !NAME_THEIRS.iter().any(|name| path.ends_with(name)))
        .map(|path| path.join("src"))
        .collect();
    let mut named = Vec::new();
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("zcache/src/codec") {
                folders.push(path);
            } else if path.extension().is_some_and(|ext| ext == "rs") {
                files += 1;
                let text = std::fs::read_to_string(&path).unwrap();
                let lines = text.lines().zip(1..).filter(|(line, _)| {
                    let code = line.split("//").next().unwrap_or_default();
                    names_codec(code)
                });
                named.extend(lines.map(|(line, at)| format!("{}:{at}: {line}", path.display())));
            }
        }
    }
    assert!(files > 50, "only {files} files were found");
    assert!(named.is_empty(), "{}", named.join("\n"));
}

fn names_codec(code: &str) -> bool {
    let lower = code.to_lowercase();
    Codec::ALL.iter().any(|codec| match codec.shrinks() {
        true => lower.contains(codec.name()),
        // Its name is a common word.
        false => ["Codec", "Kind"]
            .iter()
            .any(|list| code.contains(&format!("{list}::{codec:?}"))),
    })
}

fn encoder(pages: &[Page], bytes_max: usize, level: i32) -> Encoder {
    let dictionary = Dictionary::train(pages, bytes_max).expect("a dictionary");
    Encoder::new(dictionary.into(), level).expect("memory")
}

#[test]
fn a_dictionary_helps_pages_that_it_has_not_seen_and_gives_them_back() {
    let pages = testing::records(600);
    for (bytes_max, level) in [(4096, 1), (65536, 1), (65536, 6)] {
        let encoder = encoder(&pages[..512], bytes_max, level);
        assert!(encoder.dictionary().len() <= bytes_max);
        let mut lens = [0, 0];
        for page in &pages[512..] {
            lens[0] += encode(Codec::Zstd, page, |zpage| zpage.bytes.len());
            let (kind, bytes) = encode_with(&encoder, page, |z| (z.kind, z.bytes.to_vec()));
            let mut out = [0; PAGE_SIZE];
            decode_with(encoder.dictionary(), kind, &bytes, &mut out).unwrap();
            assert!(out == *page);
            lens[1] += bytes.len();
        }
        assert!(lens[1] * 10 < lens[0] * 9, "{lens:?}");
    }
}

#[test]
fn awkward_pages_survive_a_dictionary() {
    let encoder = encoder(&testing::records(256), 8192, 1);
    for page in awkward() {
        let (kind, bytes) = encode_with(&encoder, &page, |z| (z.kind, z.bytes.to_vec()));
        let mut out = [0x5a; PAGE_SIZE];
        match kind {
            Kind::Zstd => decode_with(encoder.dictionary(), kind, &bytes, &mut out).unwrap(),
            _ => decode(kind, &bytes, &mut out).unwrap(),
        }
        assert!(out == page);
    }
}

#[test]
fn another_dictionary_is_noticed_by_the_checksum() {
    let pages = testing::records(300);
    let one = encoder(&pages[..256], 4096, 1);
    let other = encoder(&pages[40..], 4096, 1);
    let bytes = encode_with(&one, &pages[299], |zpage| zpage.bytes.to_vec());
    let sum = one.dictionary().checksum(&bytes);
    assert_ne!(sum, other.dictionary().checksum(&bytes));
    assert_ne!(sum, checksum(Kind::Zstd, &bytes));
    // Neither without it nor by kinds that have none.
    let mut out = [0; PAGE_SIZE];
    decode_with(other.dictionary(), Kind::Zstd, &bytes, &mut out).ok();
    decode(Kind::Zstd, &bytes, &mut out).ok();
    for kind in [Kind::Same, Kind::Raw, Kind::Lz4] {
        assert_eq!(
            decode_with(one.dictionary(), kind, &bytes, &mut out),
            Err(DecodeError)
        );
    }
}

#[test]
fn a_dictionary_is_saved_and_damage_to_it_is_an_error_that_says_what() {
    let pages = testing::records(257);
    let one = encoder(&pages[..256], 4096, 1);
    let saved = one.dictionary().save();
    let again = Dictionary::from_saved(&saved).unwrap();
    let bytes = encode_with(&one, &pages[256], |zpage| zpage.bytes.to_vec());
    let mut out = [0; PAGE_SIZE];
    decode_with(&again, Kind::Zstd, &bytes, &mut out).unwrap();
    assert!(out == pages[256]);
    assert_eq!(again.checksum(&bytes), one.dictionary().checksum(&bytes));

    for len in 0..saved.len() {
        let error = Dictionary::from_saved(&saved[..len]).unwrap_err();
        let expected = match len {
            0..16 => DictionaryError::NotOne,
            _ => DictionaryError::Length {
                expected: saved.len() - 16,
                found: len - 16,
            },
        };
        assert_eq!(error, expected);
    }
    let mut damaged = saved.clone();
    for bit in 0..saved.len() * 8 {
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(Dictionary::from_saved(&damaged).is_err(), "bit {bit}");
        damaged[bit / 8] ^= 1 << (bit % 8);
    }
    // Well saved, but no dictionary.
    let mut other = b"zcdict01\x08\0\0\0".to_vec();
    other.extend(crc32c::crc32c(&[7; 8]).to_le_bytes());
    other.extend([7; 8]);
    assert_eq!(
        Dictionary::from_saved(&other).unwrap_err(),
        DictionaryError::NotOne
    );
}

#[test]
fn damaged_bytes_under_a_dictionary_are_an_error_or_a_whole_page() {
    let rng = &mut Rng::from_env("dictionary damage");
    let pages = testing::records(300);
    let encoder = encoder(&pages[..256], 4096, 1);
    let mut out = [0; PAGE_SIZE];
    for page in &pages[256..] {
        let bytes = encode_with(&encoder, page, |zpage| zpage.bytes.to_vec());
        for _ in 0..50 {
            let mut damaged = bytes.clone();
            let at = rng.below(bytes.len() as u64) as usize;
            damaged[at] ^= 1 << rng.below(8);
            decode_with(encoder.dictionary(), Kind::Zstd, &damaged, &mut out).ok();
            decode_with(encoder.dictionary(), Kind::Zstd, &damaged[..at], &mut out).ok();
        }
    }
}

#[test]
fn pages_without_anything_in_common_train_no_dictionary() {
    assert!(Dictionary::train(&[], 4096).is_none());
    assert!(Dictionary::train(&[[0; PAGE_SIZE]], 4096).is_none());
    assert!(Dictionary::train(&testing::records(64), 16).is_none());
}

#[test]
fn dictionaries_and_tables_take_no_more_than_is_said() {
    let pages = testing::records(512);
    for len in (9..=16).flat_map(|shift| [1 << shift, 3 << (shift - 1)]) {
        let Some(dictionary) = Dictionary::train(&pages, len) else {
            continue;
        };
        let (dictionary, len) = (Arc::new(dictionary), len.min(DICTIONARY_BYTES_MAX));
        let most = dictionary_bytes_max(len);
        assert!(dictionary.ram_bytes() <= most, "{dictionary:?}");
        for level in [1, 6] {
            let encoder = Encoder::new(Arc::clone(&dictionary), level).unwrap();
            let most = tables_bytes_max(len, level);
            let bytes = encoder.ram_bytes();
            assert!(bytes <= most, "{encoder:?}: {bytes} of {most}");
        }
    }
}
