// SPDX-License-Identifier: GPL-2.0-only

//! zcache: pages that do not fit, compressed in RAM.
//!
//! Two doors: `swap` takes anonymous pages on their way to the swap devices (the persistent pool), `clean` takes file
//! pages that reclaim drops (ephemeral pools, one a file system). Both go through `store`, which is the engine's core
//! under one lock a shard; `writeback` sends the oldest to the swap devices. What Linux 6.12 has no Rust abstraction for
//! is in glue.c and reached by `ffi` alone.
//!
//! Context: every door but `writeback` runs where nothing may sleep. No path allocates but for frames, which
//! never wait; `stock` has some for when there are none.

use kernel::prelude::*;

mod clean;
mod codec;
mod counters;
mod ffi;
mod frames;
mod stock;
mod store;
mod swap;
mod writeback;

module! {
    type: Zcache,
    name: "zcache",
    author: "The zcache developers",
    description: "Compressed memory for anonymous and file pages, with writeback",
    license: "GPL",
}

struct Zcache;

impl kernel::Module for Zcache {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let config = ffi::glue_init()?;
        if let Err(error) = store::make(&config) {
            ffi::glue_exit();
            return Err(error);
        }
        if let Err(error) = ffi::glue_enter() {
            ffi::glue_exit();
            store::destroy();
            return Err(error);
        }
        Ok(Zcache)
    }
}

impl Drop for Zcache {
    fn drop(&mut self) {
        // While a front end is registered the module holds itself, so there is none.
        ffi::glue_exit();
        store::destroy();
    }
}
