/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What crosses between the Rust of this module and the C that stands in for the
 * abstractions that Linux 6.12 does not have. The Rust side is in ffi.rs.
 */
#ifndef _ZCACHE_GLUE_H
#define _ZCACHE_GLUE_H

#include <linux/types.h>
#include <linux/zstd.h>

/* Buffers and codec memory of one CPU; whoever uses them is not preempted */
struct zc_cpu {
	/* Two pages: what a codec writes */
	u8 *out;
	/* One page: a zpage that was copied out of the store */
	u8 *in;
	void *lz4;
	zstd_cctx *cctx;
	zstd_dctx *dctx;
};

/* What the module's parameters say, in the types of the Rust side */
struct zc_config {
	u32 allocator;
	u32 shards;
};

/* codecs.c, called by Rust */
struct zc_cpu *zc_cpu_get(void);
void zc_cpu_put(void);
size_t zc_zstd_compress(struct zc_cpu *cpu, const u8 *page, size_t room);
size_t zc_zstd_decompress(struct zc_cpu *cpu, const u8 *bytes, size_t len,
			  u8 *page);
u32 zc_checksum(const u8 *bytes, size_t len);

/* codecs.c, called by glue.c */
int zc_cpus_alloc(void);
void zc_cpus_free(void);
int zc_zstd_prepare(void);

/* glue.c, called by Rust */
u8 *zc_direct_map(void);
u32 zc_frames_alloc(u32 frames);
u32 zc_frames_alloc_waiting(u32 frames);
void zc_frames_free(u32 pfn, u32 frames);
void *zc_memory_alloc(size_t bytes);
void zc_memory_free(void *memory);
unsigned long zc_lock(u32 shard);
void zc_unlock(u32 shard, unsigned long flags);
void zc_kick_writeback(void);
void zc_kick_stock(void);
int zc_write_page(u32 type, u64 offset);
void zc_write_wait(void);
bool zc_wants_zstd(void);
bool zc_admits_all(void);
u64 zc_limit_frames(void);
u64 zc_percent_of_limit(bool high);
void zc_relax(void);
void zc_pause(void);
int zc_glue_init(struct zc_config *config);
void zc_glue_exit(void);
int zc_glue_enter(void);

/* main.rs, called by C */
bool zcache_swap_store(const u8 *page, u32 type, u64 offset);
int zcache_swap_load(u8 *page, u32 type, u64 offset, bool keep);
bool zcache_swap_has(u32 type, u64 offset);
void zcache_swap_invalidate(u32 type, u64 offset);
void zcache_swap_off(u32 type, bool last);
void zcache_clean_put(u32 pool, u64 inode, u64 index, const u8 *page,
		      bool was_active);
bool zcache_clean_get(u32 pool, u64 inode, u64 index, u8 *page);
void zcache_clean_invalidate(u32 pool, u64 inode, u64 first, u64 last);
void zcache_clean_invalidate_fs(u32 pool);
void zcache_clean_drop_all(void);
void zcache_write_back(void);
void zcache_fill_stock(void);
void zcache_drain_stock(void);
u64 zcache_drain(void);
unsigned long zcache_shrink_count(void);
unsigned long zcache_shrink(unsigned long frames);
u32 zcache_counters(void);
const char *zcache_counter_name(u32 number);
u64 zcache_counter(u32 number);
void zcache_counters_read(u64 *values);
bool zcache_validate(void);

#endif /* _ZCACHE_GLUE_H */
