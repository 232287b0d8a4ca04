//! How densely each allocator packs the pages of a sample: they are really put
//! into a store, and what it takes is read from its statistics.
//!
//! - `per_page_bytes` counts frames and tables, what packing loses included; what
//!   an empty store takes is `fixed_bytes` and does not grow with the pages.
//! - Every page is loaded again and compared.
//!
//! The store has one shard: of several, each would have a block that is only
//! begun, which weighs in a small sample and not in a large program.

use zcache::{Allocator, Codec, PAGE_SIZE, Page, Store, StoreConfig};

use crate::error::MeasureError;

/// Room beyond the pages themselves, for tables and blocks that are only begun.
const SLACK_BYTES: u64 = 64 << 20;

/// What a store of one allocator and codec takes.
pub(crate) struct Density {
    pub(crate) per_page_bytes: f64,
    pub(crate) fixed_bytes: u64,
}

/// Stores the pages and looks. `tick` is called with the number that is done.
pub(crate) fn look(
    allocator: Allocator,
    codec: Codec,
    pages: &[&Page],
    mut tick: impl FnMut(u64),
) -> Result<Density, MeasureError> {
    let failed = |said: String| MeasureError::Store { said };
    let store = Store::open(StoreConfig {
        pool_bytes_max: 2 * (pages.len() * PAGE_SIZE) as u64 + SLACK_BYTES,
        codec: codec.into(),
        allocator,
        shards: 1,
        dictionaries: false,
        tiers: Vec::new(),
    })
    .map_err(|error| failed(error.to_string()))?;
    let empty = store.stats();
    let mut handles = Vec::with_capacity(pages.len());
    for (number, page) in pages.iter().enumerate() {
        let handle = store
            .insert(page)
            .map_err(|error| failed(error.to_string()))?;
        handles.push(handle);
        tick(number as u64 + 1);
    }
    let full = store.stats();
    let mut out = [0; PAGE_SIZE];
    for (handle, page) in handles.iter().zip(pages) {
        store
            .load(*handle, &mut out)
            .map_err(|error| failed(error.to_string()))?;
        if out != **page {
            return Err(failed(format!(
                "{handle:?} is not the page that was stored"
            )));
        }
    }
    let ram = |stats: &zcache::Stats| stats.pool_bytes + stats.metadata_bytes;
    let grown = ram(&full).saturating_sub(ram(&empty));
    Ok(Density {
        per_page_bytes: grown as f64 / pages.len().max(1) as f64,
        fixed_bytes: ram(&empty),
    })
}
