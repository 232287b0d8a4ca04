//! How far each codec shrinks the pages of a sample, and what a page costs it.
//!
//! - Same-filled pages are left out: no codec sees them.
//! - A page counts at most as [`PAGE_SIZE`] bytes, since zcache keeps it as it is
//!   when no codec shrinks it.
//! - Each page is decoded again and compared.

use std::time::Instant;

use zcache::codec::{self, Codec, Dictionary, Encoder, Kind};
use zcache::{PAGE_SIZE, Page};

use crate::contents::is_same_filled;
use crate::error::MeasureError;
use crate::report::CodecReport;

/// Of a normal distribution, so many standard deviations to either side hold
/// 95%.
const DEVIATIONS_95: f64 = 1.96;

/// What is measured.
pub(crate) enum Coder {
    /// A codec as it is.
    Plain(Codec),
    /// The codec that has dictionaries, with one.
    Trained(Encoder),
}

impl Coder {
    /// Compresses a page into `out`; its kind and its length.
    fn encode(&self, page: &Page, out: &mut Page) -> (Kind, usize) {
        let take = |zpage: codec::Encoded<'_>| {
            out[..zpage.bytes.len()].copy_from_slice(zpage.bytes);
            (zpage.kind, zpage.bytes.len())
        };
        match self {
            Coder::Plain(codec) => codec::encode(*codec, page, take),
            Coder::Trained(encoder) => codec::encode_with(encoder, page, take),
        }
    }

    fn decode(&self, kind: Kind, zpage: &[u8], out: &mut Page) -> bool {
        match self {
            Coder::Trained(encoder) if kind.has_dictionaries() => {
                codec::decode_with(encoder.dictionary(), kind, zpage, out).is_ok()
            }
            _ => codec::decode(kind, zpage, out).is_ok(),
        }
    }

    fn codec(&self) -> Codec {
        match self {
            Coder::Plain(codec) => *codec,
            Coder::Trained(_) => Dictionary::CODEC,
        }
    }
}

/// Measures one coder. `total_pages` is how many the sample stands for.
pub(crate) fn look(
    coder: Coder,
    pages: &[&Page],
    total_pages: u64,
    mut tick: impl FnMut(u64),
) -> Result<CodecReport, MeasureError> {
    let mut lengths = Vec::with_capacity(pages.len());
    let mut encode_ns = Vec::with_capacity(pages.len());
    let mut decode_ns = Vec::with_capacity(pages.len());
    let (mut zpage, mut out) = ([0; PAGE_SIZE], [0; PAGE_SIZE]);
    for (number, page) in pages.iter().enumerate() {
        if !is_same_filled(page) {
            let clock = Instant::now();
            let (kind, len) = coder.encode(page, &mut zpage);
            let encoded = clock.elapsed();
            let clock = Instant::now();
            let decoded = coder.decode(kind, &zpage[..len], &mut out);
            let decoded = decoded.then(|| clock.elapsed());
            let decoded = decoded.filter(|_| out == **page);
            let decoded = decoded.ok_or_else(|| MeasureError::Store {
                said: format!("{} does not give back page {number}", coder.codec()),
            })?;
            lengths.push(len as u32);
            encode_ns.push(encoded.as_nanos() as u64);
            decode_ns.push(decoded.as_nanos() as u64);
        }
        tick(number as u64 + 1);
    }
    let seen = pages.len() as f64 / total_pages.max(1) as f64;
    let (ratio, ratio_error) = ratio(&lengths, seen);
    let raw = |len: &&u32| **len as usize >= PAGE_SIZE;
    Ok(CodecReport {
        codec: coder.codec().name(),
        level: match &coder {
            Coder::Plain(_) => None,
            Coder::Trained(encoder) => Some(encoder.level()),
        },
        dictionary_bytes: match &coder {
            Coder::Plain(_) => 0,
            Coder::Trained(encoder) => encoder.dictionary().len() as u64,
        },
        measured_pages: lengths.len() as u64,
        ratio,
        ratio_error,
        incompressible_pages: lengths.iter().filter(raw).count() as u64,
        encode_ns_p50: median(&mut encode_ns),
        decode_ns_p50: median(&mut decode_ns),
    })
}

/// The ratio of pages of these compressed lengths and its sampling error: with
/// 95% confidence the ratio of all pages lies within it, when this part of them
/// was `seen`. Zeros without pages.
fn ratio(lengths: &[u32], seen: f64) -> (f64, f64) {
    if lengths.is_empty() {
        return (0.0, 0.0);
    }
    let count = lengths.len() as f64;
    let mean = lengths.iter().map(|len| f64::from(*len)).sum::<f64>() / count;
    let ratio = PAGE_SIZE as f64 / mean;
    let squares = lengths.iter().map(|len| (f64::from(*len) - mean).powi(2));
    let variance = squares.sum::<f64>() / (count - 1.0).max(1.0);
    // Pages are drawn without putting them back.
    let unseen = (1.0 - seen).max(0.0);
    let error = DEVIATIONS_95 * (variance / count * unseen).sqrt();
    (ratio, ratio * error / mean)
}

fn median(values: &mut [u64]) -> u64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_and_their_errors() {
        assert_eq!(ratio(&[], 0.1), (0.0, 0.0));
        assert_eq!(ratio(&[1024], 1.0), (4.0, 0.0));
        // All pages were seen: no error, whatever they are.
        assert_eq!(ratio(&[100, 4096], 1.0).1, 0.0);
        // 100 of many pages with mean 2048 and deviation 1024: 10% of the mean,
        // times 1.96.
        let lengths: Vec<u32> = (0..100)
            .map(|n| if n % 2 == 0 { 1024 } else { 3072 })
            .collect();
        let (two, error) = ratio(&lengths, 0.0001);
        assert!((two - 2.0).abs() < 1e-9);
        assert!((error - 2.0 * 1.96 * 0.05).abs() < 0.002, "{error}");
        // Half of them were seen.
        let (_, half) = ratio(&lengths, 0.5);
        assert!((half / error - 0.5f64.sqrt()).abs() < 0.001);
    }

    #[test]
    fn the_error_covers_the_truth_19_times_of_20() {
        let mut random = crate::random::Random::new(5);
        let all: Vec<u32> = (0..20_000)
            .map(|_| random.below(4000) as u32 + 96)
            .collect();
        let (truth, _) = ratio(&all, 1.0);
        let covered = (0..400).filter(|_| {
            let part: Vec<u32> = (0..500)
                .map(|_| all[random.below(20_000) as usize])
                .collect();
            let (guess, error) = ratio(&part, 0.025);
            (guess - truth).abs() <= error
        });
        let covered = covered.count();
        assert!((360..=396).contains(&covered), "{covered} of 400");
    }

    #[test]
    fn random_pages_do_not_shrink_and_same_filled_ones_are_left_out() {
        let mut random = crate::random::Random::new(1);
        let noise: [u8; PAGE_SIZE] = std::array::from_fn(|_| random.next() as u8);
        let text: [u8; PAGE_SIZE] = std::array::from_fn(|at| b"zcache keeps pages "[at % 19]);
        let same = [5; PAGE_SIZE];
        for codec in Codec::shrinking() {
            let found =
                look(Coder::Plain(codec), &[&noise, &text, &same], 3, |_| ()).expect("it works");
            assert_eq!((found.measured_pages, found.incompressible_pages), (2, 1));
            assert!(found.ratio > 1.8 && found.ratio < 2.0, "{found:?}");
        }
    }
}
