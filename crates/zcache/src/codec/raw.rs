//! No compression: pages are kept as they are.

use super::method::{CodecCost, Method};
use crate::page::{PAGE_SIZE, Page};

pub(super) struct Raw;

impl Method for Raw {
    fn name(&self) -> &'static str {
        "raw"
    }

    fn about(&self) -> &'static str {
        "not at all, for measurements"
    }

    fn shrinks(&self) -> bool {
        false
    }

    fn first_cost(&self) -> CodecCost {
        CodecCost {
            zpage_bytes: PAGE_SIZE as f64,
            ..CodecCost::default()
        }
    }

    fn compress(&self, _: &Page, _: &mut [u8]) -> Option<usize> {
        None
    }

    fn decompress(&self, bytes: &[u8], out: &mut Page) -> Option<usize> {
        *out = *<&Page>::try_from(bytes).ok()?;
        Some(PAGE_SIZE)
    }
}
