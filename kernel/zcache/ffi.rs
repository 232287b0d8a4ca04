// SPDX-License-Identifier: GPL-2.0-only

//! The C beside this module (glue.c, codecs.c, glue.h), as safe functions where that can be said.

use core::ffi::{c_int, c_ulong, c_void};
use kernel::error::to_result;
use kernel::prelude::*;

/// As `struct zc_cpu` in glue.h.
#[repr(C)]
pub(crate) struct RawCpu {
    pub(crate) out: *mut u8,
    pub(crate) input: *mut u8,
    pub(crate) lz4: *mut c_void,
    cctx: *mut c_void,
    dctx: *mut c_void,
}

/// As `struct zc_config` in glue.h.
#[repr(C)]
#[derive(Default)]
pub(crate) struct Config {
    pub(crate) allocator: u32,
    pub(crate) shards: u32,
}

extern "C" {
    fn zc_cpu_get() -> *mut RawCpu;
    fn zc_cpu_put();
    fn zc_direct_map() -> *mut u8;
    fn zc_frames_alloc(frames: u32) -> u32;
    fn zc_frames_alloc_waiting(frames: u32) -> u32;
    fn zc_frames_free(pfn: u32, frames: u32);
    fn zc_memory_alloc(bytes: usize) -> *mut c_void;
    fn zc_memory_free(memory: *mut c_void);
    fn zc_lock(shard: u32) -> c_ulong;
    fn zc_unlock(shard: u32, flags: c_ulong);
    fn zc_kick_writeback();
    fn zc_kick_stock();
    fn zc_write_page(kind: u32, offset: u64) -> c_int;
    fn zc_write_wait();
    fn zc_wants_zstd() -> bool;
    fn zc_admits_all() -> bool;
    fn zc_limit_frames() -> u64;
    fn zc_percent_of_limit(high: bool) -> u64;
    fn zc_zstd_compress(cpu: *mut RawCpu, page: *const u8, room: usize) -> usize;
    fn zc_zstd_decompress(cpu: *mut RawCpu, bytes: *const u8, len: usize, page: *mut u8) -> usize;
    fn zc_checksum(bytes: *const u8, len: usize) -> u32;
    fn zc_relax();
    fn zc_pause();
    fn zc_glue_init(config: *mut Config) -> c_int;
    fn zc_glue_exit();
    fn zc_glue_enter() -> c_int;
    fn LZ4_compress_default(
        source: *const u8,
        dest: *mut u8,
        input: c_int,
        room: c_int,
        memory: *mut c_void,
    ) -> c_int;
    fn LZ4_decompress_safe(source: *const u8, dest: *mut u8, len: c_int, room: c_int) -> c_int;
}

/// What the kernel calls a page.
pub(crate) type Page = [u8; 4096];

/// `zc_frames_alloc` found nothing.
const NO_FRAMES: u32 = u32::MAX;

/// The buffers and the codec memory of this CPU. While it lives nobody else runs here.
pub(crate) struct Cpu(*mut RawCpu);

impl Cpu {
    pub(crate) fn get() -> Cpu {
        // SAFETY: may be called anywhere; preemption is off until `zc_cpu_put`.
        Cpu(unsafe { zc_cpu_get() })
    }

    /// What `lz4` or `zstd` wrote last.
    pub(crate) fn output(&self, len: usize) -> &[u8] {
        // SAFETY: `out` has two pages, and only `self` refers to them.
        unsafe { core::slice::from_raw_parts((*self.0).out, len.min(8192)) }
    }

    /// A page's worth to copy a zpage into.
    pub(crate) fn input(&mut self) -> &mut Page {
        // SAFETY: `input` has one page, and only `self` refers to it.
        unsafe { &mut *(*self.0).input.cast::<Page>() }
    }

    /// Compresses a page to at most `room` bytes; 0 where it does not fit.
    pub(crate) fn lz4(&mut self, page: &Page, room: usize) -> usize {
        debug_assert!(room <= 8192);
        // SAFETY: the buffers are as long as is said, and the memory is what lz4 asks for.
        let len = unsafe {
            LZ4_compress_default(page.as_ptr(), (*self.0).out, 4096, room as c_int, (*self.0).lz4)
        };
        usize::try_from(len).unwrap_or(0)
    }

    /// As `lz4`.
    pub(crate) fn zstd(&mut self, page: &Page, room: usize) -> usize {
        // SAFETY: the contexts are there before anybody is told to use zstd.
        unsafe { zc_zstd_compress(self.0, page.as_ptr(), room) }
    }

    /// Fills a page from the first `len` bytes of `input`; false where they are no such page.
    pub(crate) fn from_lz4(&mut self, len: usize, page: &mut Page) -> bool {
        // SAFETY: `len` is at most a page, which both buffers have.
        let got = unsafe {
            LZ4_decompress_safe((*self.0).input, page.as_mut_ptr(), len as c_int, 4096)
        };
        got == 4096
    }

    /// As `from_lz4`.
    pub(crate) fn from_zstd(&mut self, len: usize, page: &mut Page) -> bool {
        // SAFETY: as above; what zstd wrote was written with contexts that are there.
        let got = unsafe { zc_zstd_decompress(self.0, (*self.0).input, len, page.as_mut_ptr()) };
        got == 4096
    }
}

impl Drop for Cpu {
    fn drop(&mut self) {
        // SAFETY: pairs with `get`.
        unsafe { zc_cpu_put() }
    }
}

/// A shard's lock, held with interrupts off.
pub(crate) struct Locked {
    shard: u32,
    flags: c_ulong,
}

impl Locked {
    pub(crate) fn new(shard: u32) -> Locked {
        // SAFETY: there are more locks than shards; no caller holds one.
        let flags = unsafe { zc_lock(shard) };
        Locked { shard, flags }
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // SAFETY: pairs with `new`.
        unsafe { zc_unlock(self.shard, self.flags) }
    }
}

/// Where the direct map begins: page frame `n` lies `4096 * n` behind it.
pub(crate) fn direct_map() -> *mut u8 {
    // SAFETY: computes an address.
    unsafe { zc_direct_map() }
}

/// Contiguous page frames, by the number of the first; never waits.
pub(crate) fn frames_alloc(frames: u32) -> Option<u32> {
    // SAFETY: may be called anywhere.
    let pfn = unsafe { zc_frames_alloc(frames) };
    (pfn != NO_FRAMES).then_some(pfn)
}

/// As `frames_alloc`, but the page allocator may reclaim and compact for it.
pub(crate) fn frames_alloc_waiting(frames: u32) -> Option<u32> {
    // SAFETY: the caller may sleep.
    let pfn = unsafe { zc_frames_alloc_waiting(frames) };
    (pfn != NO_FRAMES).then_some(pfn)
}

/// # Safety
/// They came from `frames_alloc` or `frames_alloc_waiting`, as many, and nothing refers to them.
pub(crate) unsafe fn frames_free(pfn: u32, frames: u32) {
    // SAFETY: as above.
    unsafe { zc_frames_free(pfn, frames) }
}

/// Zeroed memory for the life of the module; sleeps.
pub(crate) fn memory_alloc(bytes: usize) -> Option<core::ptr::NonNull<u8>> {
    // SAFETY: called at load only.
    core::ptr::NonNull::new(unsafe { zc_memory_alloc(bytes) }.cast())
}

/// # Safety
/// It came from `memory_alloc` and nothing refers to it.
pub(crate) unsafe fn memory_free(memory: core::ptr::NonNull<u8>) {
    // SAFETY: as above.
    unsafe { zc_memory_free(memory.as_ptr().cast()) }
}

pub(crate) fn kick_writeback() {
    // SAFETY: may be called anywhere while a front end is registered.
    unsafe { zc_kick_writeback() }
}

pub(crate) fn kick_stock() {
    // SAFETY: may be called anywhere while a front end is registered.
    unsafe { zc_kick_stock() }
}

/// Begins to write one page to its device, or says why not. By the holder of the mutex of writeback only.
pub(crate) fn write_page(device: u32, offset: u32) -> Result {
    // SAFETY: an entry that was freed meanwhile is found out there.
    to_result(unsafe { zc_write_page(device, offset.into()) })
}

/// Waits for every write under way.
pub(crate) fn write_wait() {
    // SAFETY: the caller may sleep.
    unsafe { zc_write_wait() }
}

pub(crate) fn wants_zstd() -> bool {
    // SAFETY: reads a parameter.
    unsafe { zc_wants_zstd() }
}

pub(crate) fn admits_all() -> bool {
    // SAFETY: reads a parameter.
    unsafe { zc_admits_all() }
}

/// The most frames that the store takes.
pub(crate) fn limit_frames() -> u64 {
    // SAFETY: computes from parameters.
    unsafe { zc_limit_frames() }
}

/// Where writeback begins.
pub(crate) fn high_frames() -> u64 {
    // SAFETY: computes from parameters.
    unsafe { zc_percent_of_limit(true) }
}

/// Where it ends.
pub(crate) fn low_frames() -> u64 {
    // SAFETY: computes from parameters.
    unsafe { zc_percent_of_limit(false) }
}

pub(crate) fn checksum(bytes: &[u8]) -> u32 {
    // SAFETY: reads the bytes.
    unsafe { zc_checksum(bytes.as_ptr(), bytes.len()) }
}

/// Lets others run, where the caller may sleep.
pub(crate) fn relax() {
    // SAFETY: the caller may sleep.
    unsafe { zc_relax() }
}

/// Sleeps for some 10 ms.
pub(crate) fn pause() {
    // SAFETY: the caller may sleep.
    unsafe { zc_pause() }
}

pub(crate) fn glue_init() -> Result<Config> {
    let mut config = Config::default();
    // SAFETY: called once, at load.
    to_result(unsafe { zc_glue_init(&mut config) })?;
    Ok(config)
}

/// Shows the store to the kernel.
pub(crate) fn glue_enter() -> Result {
    // SAFETY: called once, after the store was made.
    to_result(unsafe { zc_glue_enter() })
}

pub(crate) fn glue_exit() {
    // SAFETY: called once, after no front end is registered any more.
    unsafe { zc_glue_exit() }
}
