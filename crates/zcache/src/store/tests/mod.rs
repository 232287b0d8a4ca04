//! What a store must do, on memory tiers with and without faults.

mod ahead;
mod codecs;
mod cold;
mod counters;
mod dictionaries;
mod inside;
mod leaving;
mod limits;
#[cfg(feature = "schedules")]
mod schedules;
mod stress;
mod tiers;

use std::sync::Arc;

use zcache_core::{Key, PoolId};

use super::*;
use crate::codec::Codec;
use crate::config::Allocator;
use crate::error::LoadError;
use crate::page::PAGE_SIZE;
use crate::stats::Stats;
use crate::testing;
use crate::tier::memory::MemoryTier;

/// A store over a memory tier.
fn swapping(
    pool_bytes_max: u64,
    shards: usize,
    swap_bytes_max: Option<u64>,
    config: StoreConfig,
) -> (Arc<Store>, Arc<MemoryTier>) {
    let tier = Arc::new(MemoryTier::new(1));
    let config = StoreConfig {
        pool_bytes_max,
        shards,
        ..config
    };
    let store = Store::with_tier(&config, Box::new(Arc::clone(&tier)), swap_bytes_max);
    (Arc::new(store.unwrap()), tier)
}

fn load(store: &Store, handle: Handle) -> Result<Page, LoadError> {
    let mut out = [0xa5; PAGE_SIZE];
    store.load(handle, &mut out).map(|()| out)
}

#[test]
fn pages_of_every_kind_come_back_from_ram() {
    for codec in Codec::ALL {
        for allocator in Allocator::ALL {
            let store = Store::open(StoreConfig {
                codec: codec.into(),
                allocator,
                ..StoreConfig::default()
            })
            .unwrap();
            let handles: Vec<_> = (0..500)
                .map(|n| store.insert(&testing::page(n)).unwrap())
                .collect();
            for (n, handle) in handles.iter().enumerate() {
                assert_eq!(load(&store, *handle), Ok(testing::page(n as u64)));
                assert!(store.in_ram(*handle));
            }
            let stats = store.stats();
            assert_eq!((stats.stored_pages, stats.attempts), (500, 500));
            assert_eq!(stats.same_filled_pages, 32);
            assert_eq!(store.validate(), Ok(()));
            for handle in handles {
                store.release(handle);
            }
            assert_eq!(store.stats().stored_pages, 0);
        }
    }
}

#[test]
fn references_are_counted_and_a_released_handle_is_gone() {
    let store = Store::open(StoreConfig::default()).unwrap();
    let handle = store.insert(&testing::page(7)).unwrap();
    assert_eq!(Handle::from_bits(handle.to_bits()), handle);
    store.retain(handle);
    store.release(handle);
    assert_eq!(load(&store, handle), Ok(testing::page(7)));
    store.release(handle);
    assert_eq!(load(&store, handle), Err(LoadError::Gone));
    assert!(!store.in_ram(handle));
    assert_eq!(
        load(&store, Handle::from_bits(u32::MAX)),
        Err(LoadError::Gone)
    );
}

#[test]
fn a_flipped_bit_at_any_byte_of_a_zpage_in_ram_is_found() {
    let store = Store::open(StoreConfig {
        shards: 1,
        ..StoreConfig::default()
    })
    .unwrap();
    let page = testing::page(5);
    let handle = store.insert(&page).unwrap();
    let block = zcache_core::FrameId(0);
    let bits = zcache_core::Run::BLOCK;
    let len = store.stats().compressed_bytes as usize;
    let mut found = 0;
    for at in 0..bits.bytes() {
        let flip = |store: &Store| {
            let mut part = store.part(0);
            part.walks.damaged = true;
            zcache_core::Frames::bytes_mut(&mut part.frames, block, bits)[at] ^= 0x10;
        };
        flip(&store);
        match load(&store, handle) {
            Ok(got) => assert_eq!(got, page),
            Err(LoadError::Checksum { page, .. }) => {
                assert_eq!(page, crate::PageName::Handle(handle));
                found += 1;
            }
            Err(error) => panic!("{error}"),
        }
        flip(&store);
    }
    assert_eq!(found, len, "every byte of the zpage, and no other, matters");
    assert_eq!(store.stats().checksum_errors, len as u64);
    assert_eq!(load(&store, handle), Ok(page));
}
