// SPDX-License-Identifier: GPL-2.0-only
/*
 * zcache: the kernel's lz4 and zstd, and the buffers of each CPU for them.
 */

#include <linux/lz4.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/percpu.h>
#include <linux/slab.h>
#include <linux/xxhash.h>

#include "glue.h"

#define ZC_ZSTD_LEVEL	1

static DEFINE_PER_CPU(struct zc_cpu, zc_cpus);
static zstd_parameters zc_zstd_parameters;
static DEFINE_MUTEX(zc_zstd_mutex);

struct zc_cpu *zc_cpu_get(void)
{
	return get_cpu_ptr(&zc_cpus);
}

void zc_cpu_put(void)
{
	put_cpu_ptr(&zc_cpus);
}

void zc_cpus_free(void)
{
	int i;

	for_each_possible_cpu(i) {
		struct zc_cpu *cpu = per_cpu_ptr(&zc_cpus, i);

		kfree(cpu->out);
		kfree(cpu->in);
		kvfree(cpu->lz4);
		/* The contexts lie at the start of their workspaces */
		kvfree(cpu->cctx);
		kvfree(cpu->dctx);
		memset(cpu, 0, sizeof(*cpu));
	}
}

int zc_cpus_alloc(void)
{
	int i;

	for_each_possible_cpu(i) {
		struct zc_cpu *cpu = per_cpu_ptr(&zc_cpus, i);

		cpu->out = kmalloc(2 * PAGE_SIZE, GFP_KERNEL);
		cpu->in = kmalloc(PAGE_SIZE, GFP_KERNEL);
		cpu->lz4 = kvmalloc(LZ4_MEM_COMPRESS, GFP_KERNEL);
		if (!cpu->out || !cpu->in || !cpu->lz4)
			return -ENOMEM;
	}
	return 0;
}

/* Some 250 KiB a CPU, which only those pay who choose zstd */
int zc_zstd_prepare(void)
{
	zstd_parameters parameters = zstd_get_params(ZC_ZSTD_LEVEL, PAGE_SIZE);
	size_t cctx_bytes = zstd_cctx_workspace_bound(&parameters.cParams);
	size_t dctx_bytes = zstd_dctx_workspace_bound();
	int i, err = 0;

	mutex_lock(&zc_zstd_mutex);
	zc_zstd_parameters = parameters;
	for_each_possible_cpu(i) {
		struct zc_cpu *cpu = per_cpu_ptr(&zc_cpus, i);
		void *memory;

		if (!cpu->dctx) {
			memory = kvmalloc(dctx_bytes, GFP_KERNEL);
			if (!memory)
				goto no_memory;
			cpu->dctx = zstd_init_dctx(memory, dctx_bytes);
			if (WARN_ON_ONCE(cpu->dctx != memory))
				goto no_memory;
		}
		if (!cpu->cctx) {
			memory = kvmalloc(cctx_bytes, GFP_KERNEL);
			if (!memory)
				goto no_memory;
			cpu->cctx = zstd_init_cctx(memory, cctx_bytes);
			if (WARN_ON_ONCE(cpu->cctx != memory))
				goto no_memory;
		}
	}
	goto out;
no_memory:
	/* What was made stays for the next attempt and is freed at the end */
	err = -ENOMEM;
out:
	mutex_unlock(&zc_zstd_mutex);
	return err;
}

size_t zc_zstd_compress(struct zc_cpu *cpu, const u8 *page, size_t room)
{
	size_t len = zstd_compress_cctx(cpu->cctx, cpu->out, room, page,
					PAGE_SIZE, &zc_zstd_parameters);

	return zstd_is_error(len) ? 0 : len;
}

size_t zc_zstd_decompress(struct zc_cpu *cpu, const u8 *bytes, size_t len,
			  u8 *page)
{
	size_t got = zstd_decompress_dctx(cpu->dctx, page, PAGE_SIZE, bytes,
					  len);

	return zstd_is_error(got) ? 0 : got;
}

u32 zc_checksum(const u8 *bytes, size_t len)
{
	return xxh64(bytes, len, 0);
}
