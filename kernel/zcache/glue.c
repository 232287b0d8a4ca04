// SPDX-License-Identifier: GPL-2.0-only
/*
 * zcache: memory, locks, the front ends' tables, writeback of one page,
 * the shrinker, parameters and debugfs. No policy: that is on the Rust side.
 */

#include <linux/cleancache.h>
#include <linux/debugfs.h>
#include <linux/delay.h>
#include <linux/gfp.h>
#include <linux/highmem.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/pagemap.h>
#include <linux/seq_file.h>
#include <linux/shrinker.h>
#include <linux/spinlock.h>
#include <linux/swap.h>
#include <linux/swap_store.h>
#include <linux/swapops.h>
#include <linux/vmalloc.h>
#include <linux/workqueue.h>

#include "glue.h"

#define ZC_NO_FRAMES	U32_MAX
/* Writes to the swap devices under way at once */
#define ZC_IN_FLIGHT	32
#define ZC_SHARDS_MAX	64

/* Parameters */

static const char * const zc_allocators[] = { "block", "zbud", "ztri", "zsmalloc" };
static const char * const zc_compressors[] = { "lz4", "zstd" };
static const char * const zc_admissions[] = { "was_active", "all" };

static u32 zc_allocator;
static u32 zc_compressor;
static u32 zc_admission;
static bool zc_active = true;
static bool zc_ready;
static u64 zc_left;
static DEFINE_MUTEX(zc_active_mutex);

static int zc_choose(const char *val, const char * const *names, int count,
		     u32 *choice)
{
	char list[64] = "";
	int i, at = 0;

	for (i = 0; i < count; i++) {
		if (sysfs_streq(val, names[i])) {
			WRITE_ONCE(*choice, i);
			return 0;
		}
		at += scnprintf(list + at, sizeof(list) - at, " %s", names[i]);
	}
	pr_err("zcache: \"%s\" is not to be had; choose%s\n", val, list);
	return -EINVAL;
}

static int zc_allocator_set(const char *val, const struct kernel_param *kp)
{
	return zc_choose(val, zc_allocators, ARRAY_SIZE(zc_allocators),
			 &zc_allocator);
}

static int zc_allocator_get(char *buffer, const struct kernel_param *kp)
{
	return sysfs_emit(buffer, "%s\n", zc_allocators[zc_allocator]);
}

static const struct kernel_param_ops zc_allocator_ops = {
	.set = zc_allocator_set,
	.get = zc_allocator_get,
};
module_param_cb(allocator, &zc_allocator_ops, NULL, 0444);
MODULE_PARM_DESC(allocator, "how zpages are packed: block (default), zbud, ztri, zsmalloc");

static int zc_compressor_set(const char *val, const struct kernel_param *kp)
{
	u32 choice;
	int err;

	err = zc_choose(val, zc_compressors, ARRAY_SIZE(zc_compressors),
			&choice);
	/* On the command line of modprobe it is too early: see zc_glue_init() */
	if (!err && choice == 1 && zc_ready)
		err = zc_zstd_prepare();
	if (!err)
		WRITE_ONCE(zc_compressor, choice);
	return err;
}

static int zc_compressor_get(char *buffer, const struct kernel_param *kp)
{
	return sysfs_emit(buffer, "%s\n", zc_compressors[zc_compressor]);
}

static const struct kernel_param_ops zc_compressor_ops = {
	.set = zc_compressor_set,
	.get = zc_compressor_get,
};
module_param_cb(compressor, &zc_compressor_ops, NULL, 0644);
MODULE_PARM_DESC(compressor, "for pages stored from now on: lz4 (default), zstd");

static int zc_admission_set(const char *val, const struct kernel_param *kp)
{
	return zc_choose(val, zc_admissions, ARRAY_SIZE(zc_admissions),
			 &zc_admission);
}

static int zc_admission_get(char *buffer, const struct kernel_param *kp)
{
	return sysfs_emit(buffer, "%s\n", zc_admissions[zc_admission]);
}

static const struct kernel_param_ops zc_admission_ops = {
	.set = zc_admission_set,
	.get = zc_admission_get,
};
module_param_cb(admit, &zc_admission_ops, NULL, 0644);
MODULE_PARM_DESC(admit, "file pages that are kept: was_active (default), all");

static int zc_percent_set(const char *val, const struct kernel_param *kp)
{
	unsigned int percent;
	int err = kstrtouint(val, 0, &percent);

	if (err)
		return err;
	if (percent < 1 || percent > 100) {
		pr_err("zcache: %s is a percentage, 1 to 100\n", kp->name);
		return -EINVAL;
	}
	return param_set_uint(val, kp);
}

static const struct kernel_param_ops zc_percent_ops = {
	.set = zc_percent_set,
	.get = param_get_uint,
};

static unsigned int zc_max_percent = 20;
module_param_cb(max_pool_percent, &zc_percent_ops, &zc_max_percent, 0644);
MODULE_PARM_DESC(max_pool_percent, "of the RAM: the most that the store takes (default 20)");

static unsigned int zc_high_percent = 97;
module_param_cb(high_percent, &zc_percent_ops, &zc_high_percent, 0644);
MODULE_PARM_DESC(high_percent, "of that: writeback begins (default 97)");

static unsigned int zc_low_percent = 92;
module_param_cb(low_percent, &zc_percent_ops, &zc_low_percent, 0644);
MODULE_PARM_DESC(low_percent, "of that: writeback ends (default 92)");

bool zc_wants_zstd(void)
{
	return READ_ONCE(zc_compressor) == 1;
}

bool zc_admits_all(void)
{
	return READ_ONCE(zc_admission) == 1;
}

u64 zc_limit_frames(void)
{
	return mult_frac(totalram_pages(), READ_ONCE(zc_max_percent), 100UL);
}

u64 zc_percent_of_limit(bool high)
{
	unsigned int percent = READ_ONCE(zc_high_percent);

	if (!high)
		percent = min(percent, READ_ONCE(zc_low_percent));
	return mult_frac(zc_limit_frames(), (u64)percent, 100ULL);
}

/* Memory */

u8 *zc_direct_map(void)
{
	return __va(0);
}

static u32 zc_frames_get(u32 frames, gfp_t gfp)
{
	unsigned long pfn;
	void *memory;

	if (is_power_of_2(frames))
		memory = (void *)__get_free_pages(gfp, ilog2(frames));
	else
		memory = alloc_pages_exact((size_t)frames << PAGE_SHIFT, gfp);
	if (!memory)
		return ZC_NO_FRAMES;
	pfn = page_to_pfn(virt_to_page(memory));
	if (unlikely(pfn >= ZC_NO_FRAMES)) {
		zc_frames_free(pfn, frames);
		return ZC_NO_FRAMES;
	}
	return pfn;
}

/*
 * Called under a shard's lock with interrupts off: never waits. Stores run in
 * reclaim, which frees more than it takes: they may take half of the reserve
 * below the watermarks. The other half is for those who write pages to disks.
 */
u32 zc_frames_alloc(u32 frames)
{
	return zc_frames_get(frames, __GFP_NOWARN | __GFP_NORETRY |
				     __GFP_NOMEMALLOC | __GFP_HIGH |
				     __GFP_KSWAPD_RECLAIM);
}

/* For the worker that fills the stock, which nobody waits for */
u32 zc_frames_alloc_waiting(u32 frames)
{
	return zc_frames_get(frames, GFP_KERNEL | __GFP_NOWARN |
				     __GFP_RETRY_MAYFAIL);
}

void zc_frames_free(u32 pfn, u32 frames)
{
	void *memory = __va((u64)pfn << PAGE_SHIFT);

	if (is_power_of_2(frames))
		free_pages((unsigned long)memory, ilog2(frames));
	else
		free_pages_exact(memory, (size_t)frames << PAGE_SHIFT);
}

void *zc_memory_alloc(size_t bytes)
{
	return vzalloc(bytes);
}

void zc_memory_free(void *memory)
{
	vfree(memory);
}

/* Locks: one a shard, all of one class; nothing nests in them but the page allocator's */

struct zc_shard_lock {
	/* Protects the shard of the same number */
	spinlock_t lock;
} ____cacheline_aligned_in_smp;

static struct zc_shard_lock zc_locks[ZC_SHARDS_MAX];

unsigned long zc_lock(u32 shard)
{
	unsigned long flags;

	spin_lock_irqsave(&zc_locks[shard].lock, flags);
	return flags;
}

void zc_unlock(u32 shard, unsigned long flags)
{
	spin_unlock_irqrestore(&zc_locks[shard].lock, flags);
}

void zc_relax(void)
{
	cond_resched();
}

void zc_pause(void)
{
	usleep_range(10000, 20000);
}

/* The front end of swap */

static bool zc_store(struct folio *folio)
{
	swp_entry_t entry = folio->swap;
	u8 *page = kmap_local_folio(folio, 0);
	bool stored;

	stored = zcache_swap_store(page, swp_type(entry), swp_offset(entry));
	kunmap_local(page);
	return stored;
}

static bool zc_load(struct folio *folio)
{
	swp_entry_t entry = folio->swap;
	bool keep = !folio_test_swapcache(folio);
	long i, pages = folio_nr_pages(folio);
	u8 *page;
	int result;

	if (unlikely(pages > 1)) {
		/*
		 * Allocated before we were registered, and some of its pages
		 * were stored since: as an error of a read, not as old bytes.
		 */
		for (i = 0; i < pages; i++) {
			if (zcache_swap_has(swp_type(entry),
					    swp_offset(entry) + i))
				return true;
		}
		return false;
	}

	page = kmap_local_folio(folio, 0);
	result = zcache_swap_load(page, swp_type(entry), swp_offset(entry),
				  keep);
	kunmap_local(page);
	if (!result)
		return false;
	if (likely(result > 0)) {
		if (!keep)
			folio_mark_dirty(folio);
		folio_mark_uptodate(folio);
	}
	return true;
}

static void zc_invalidate(swp_entry_t entry)
{
	zcache_swap_invalidate(swp_type(entry), swp_offset(entry));
}

/* Swap devices in use; 0 while we are not registered. swap_store serializes */
static unsigned int zc_swap_devices;

static int zc_swapon(int type, unsigned long nr_pages)
{
	zc_swap_devices++;
	return 0;
}

static void zc_swapoff(int type)
{
	zc_swap_devices--;
	zcache_swap_off(type, !zc_swap_devices);
}

static const struct swap_store_ops zc_swap_ops = {
	.name		= "zcache",
	.owner		= THIS_MODULE,
	.store		= zc_store,
	.load		= zc_load,
	.invalidate	= zc_invalidate,
	.swapon		= zc_swapon,
	.swapoff	= zc_swapoff,
};

/* Writeback: one worker, a bounded number of writes under way */

static struct workqueue_struct *zc_workqueue;
static struct folio *zc_flying[ZC_IN_FLIGHT];
static unsigned int zc_flight;
/* Held by who writes back: the worker, or the one who drains */
static DEFINE_MUTEX(zc_write_mutex);

static int zc_fill(struct folio *folio, void *ctx)
{
	swp_entry_t entry = folio->swap;
	u8 *page = kmap_local_folio(folio, 0);
	int result;

	result = zcache_swap_load(page, swp_type(entry), swp_offset(entry),
				  false);
	kunmap_local(page);
	if (!result)
		return -ENOENT;
	return result < 0 ? -EIO : 0;
}

static void zc_land(unsigned int flight)
{
	struct folio *folio = zc_flying[flight];

	if (folio) {
		folio_wait_writeback(folio);
		folio_put(folio);
		zc_flying[flight] = NULL;
	}
}

/* Under zc_write_mutex. Returns 0 or a negative errno. */
int zc_write_page(u32 type, u64 offset)
{
	unsigned int flight = zc_flight++ % ZC_IN_FLIGHT;

	lockdep_assert_held(&zc_write_mutex);
	zc_land(flight);
	return swap_store_writeback(swp_entry(type, offset), zc_fill, NULL,
				    &zc_flying[flight]);
}

void zc_write_wait(void)
{
	unsigned int flight;

	for (flight = 0; flight < ZC_IN_FLIGHT; flight++)
		zc_land(flight);
}

static void zc_write_work(struct work_struct *work)
{
	mutex_lock(&zc_write_mutex);
	zcache_write_back();
	zc_write_wait();
	mutex_unlock(&zc_write_mutex);
}

static DECLARE_WORK(zc_work, zc_write_work);

void zc_kick_writeback(void)
{
	queue_work(zc_workqueue, &zc_work);
}

/* The stock of frames: one worker fills it */

static void zc_stock_work(struct work_struct *work)
{
	zcache_fill_stock();
}

static DECLARE_WORK(zc_stock, zc_stock_work);

void zc_kick_stock(void)
{
	queue_work(system_unbound_wq, &zc_stock);
}

/* The front end of file systems */

static void zc_clean_put(u32 pool, unsigned long inode, struct folio *folio,
			 bool was_active)
{
	u8 *page = kmap_local_folio(folio, 0);

	zcache_clean_put(pool, inode, folio->index, page, was_active);
	kunmap_local(page);
}

static bool zc_clean_get(u32 pool, unsigned long inode, struct folio *folio)
{
	u8 *page = kmap_local_folio(folio, 0);
	bool got;

	got = zcache_clean_get(pool, inode, folio->index, page);
	kunmap_local(page);
	if (got)
		flush_dcache_folio(folio);
	return got;
}

static void zc_clean_invalidate(u32 pool, unsigned long inode, pgoff_t first,
				pgoff_t last)
{
	zcache_clean_invalidate(pool, inode, first, last);
}

static void zc_clean_invalidate_fs(u32 pool)
{
	zcache_clean_invalidate_fs(pool);
}

static const struct cleancache_ops zc_clean_ops = {
	.name		= "zcache",
	.owner		= THIS_MODULE,
	.put		= zc_clean_put,
	.get		= zc_clean_get,
	.invalidate	= zc_clean_invalidate,
	.invalidate_fs	= zc_clean_invalidate_fs,
};

/* The shrinker drops what may be dropped */

static struct shrinker *zc_shrinker;

static unsigned long zc_shrink_count(struct shrinker *shrinker,
				     struct shrink_control *sc)
{
	return zcache_shrink_count() ?: SHRINK_EMPTY;
}

static unsigned long zc_shrink_scan(struct shrinker *shrinker,
				    struct shrink_control *sc)
{
	unsigned long freed = zcache_shrink(sc->nr_to_scan);

	return freed ?: SHRINK_STOP;
}

/* Counters: a file each, and one with all */

static struct dentry *zc_debugfs;

static int zc_counter_get(void *data, u64 *value)
{
	*value = zcache_counter((unsigned long)data);
	return 0;
}
DEFINE_DEBUGFS_ATTRIBUTE(zc_counter_fops, zc_counter_get, NULL, "%llu\n");

static int zc_all_show(struct seq_file *file, void *unused)
{
	u32 i, count = zcache_counters();
	u64 *values = kcalloc(count, sizeof(*values), GFP_KERNEL);

	if (!values)
		return -ENOMEM;
	zcache_counters_read(values);
	for (i = 0; i < count; i++)
		seq_printf(file, "%s %llu\n", zcache_counter_name(i), values[i]);
	kfree(values);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(zc_all);

/* Walks everything under the locks: for tests */
static int zc_valid_get(void *data, u64 *value)
{
	*value = zcache_validate();
	return 0;
}
DEFINE_DEBUGFS_ATTRIBUTE(zc_valid_fops, zc_valid_get, NULL, "%llu\n");

static void zc_debugfs_enter(void)
{
	unsigned long i;

	zc_debugfs = debugfs_create_dir("zcache", NULL);
	for (i = 0; i < zcache_counters(); i++)
		debugfs_create_file(zcache_counter_name(i), 0444, zc_debugfs,
				    (void *)i, &zc_counter_fops);
	debugfs_create_file("all", 0444, zc_debugfs, NULL, &zc_all_fops);
	debugfs_create_file("valid", 0400, zc_debugfs, NULL, &zc_valid_fops);
	debugfs_create_u64("undrained_pages", 0444, zc_debugfs, &zc_left);
}

/* Coming and going */

/* No front end puts any more, and no anonymous page is left */
static void zc_forget(void)
{
	zcache_clean_drop_all();
	cancel_work_sync(&zc_stock);
	zcache_drain_stock();
}

/* File pages first: if the other fails, they can be dropped again */
static int zc_front_ends_enter(void)
{
	int err = cleancache_register(&zc_clean_ops);

	if (err) {
		pr_err("zcache: another cleancache is registered (%d)\n", err);
		return err;
	}
	err = swap_store_register(&zc_swap_ops);
	if (err) {
		pr_err("zcache: cannot be the swap store (%d)%s\n", err,
		       err == -EBUSY ?
		       ": another one is; switch it off and swap its pages in" : "");
		cleancache_unregister(&zc_clean_ops);
		zc_forget();
	}
	return err;
}

/* Puts end, then every page goes to its device; on failure puts go on */
static int zc_front_ends_leave(void)
{
	swap_store_stop(&zc_swap_ops);
	mutex_lock(&zc_write_mutex);
	zc_left = zcache_drain();
	zc_write_wait();
	mutex_unlock(&zc_write_mutex);
	if (zc_left) {
		pr_err("zcache: %llu pages are not on their swap device and cannot be written; still active\n",
		       zc_left);
		swap_store_resume(&zc_swap_ops);
		return -EBUSY;
	}
	swap_store_unregister(&zc_swap_ops);
	cleancache_unregister(&zc_clean_ops);
	zc_forget();
	return 0;
}

/* While it is active the module holds itself: rmmod says that it is in use */
static int zc_set_active(bool active)
{
	int err = 0;

	mutex_lock(&zc_active_mutex);
	if (active && !zc_active) {
		if (!try_module_get(THIS_MODULE))
			err = -ENODEV;
		else
			err = zc_front_ends_enter();
		if (err && err != -ENODEV)
			module_put(THIS_MODULE);
	} else if (!active && zc_active) {
		err = zc_front_ends_leave();
		if (!err)
			module_put(THIS_MODULE);
	}
	if (!err)
		zc_active = active;
	mutex_unlock(&zc_active_mutex);
	return err;
}

static int zc_active_set(const char *val, const struct kernel_param *kp)
{
	bool active;
	int err = kstrtobool(val, &active);

	if (err)
		return err;
	/* On the command line of modprobe it is too early: see main.rs */
	if (!zc_ready) {
		zc_active = active;
		return 0;
	}
	return zc_set_active(active);
}

static const struct kernel_param_ops zc_active_ops = {
	.set = zc_active_set,
	.get = param_get_bool,
};
module_param_cb(active, &zc_active_ops, &zc_active, 0644);
MODULE_PARM_DESC(active, "takes pages (default Y); N writes all to the swap devices, after which rmmod works");

int zc_glue_init(struct zc_config *config)
{
	int i, err;

	for (i = 0; i < ZC_SHARDS_MAX; i++)
		spin_lock_init(&zc_locks[i].lock);
	config->allocator = zc_allocator;
	config->shards = min_t(u32, roundup_pow_of_two(4 * num_possible_cpus()),
			       ZC_SHARDS_MAX);

	err = zc_cpus_alloc();
	if (!err && zc_wants_zstd())
		err = zc_zstd_prepare();
	if (err)
		goto no_cpus;
	err = -ENOMEM;
	zc_workqueue = alloc_workqueue("zcache", WQ_UNBOUND | WQ_MEM_RECLAIM, 1);
	if (!zc_workqueue)
		goto no_cpus;
	zc_shrinker = shrinker_alloc(0, "zcache");
	if (!zc_shrinker)
		goto no_shrinker;
	zc_shrinker->count_objects = zc_shrink_count;
	zc_shrinker->scan_objects = zc_shrink_scan;
	/*
	 * Reclaim scans the page cache and us at one rate. A page here takes a
	 * half of a frame or less, and must outlive its first life there to be
	 * of use.
	 */
	zc_shrinker->seeks = 8 * DEFAULT_SEEKS;
	return 0;

no_shrinker:
	destroy_workqueue(zc_workqueue);
no_cpus:
	zc_cpus_free();
	return err;
}

/* After the store was made */
int zc_glue_enter(void)
{
	bool active = zc_active;

	shrinker_register(zc_shrinker);
	zc_debugfs_enter();
	zc_ready = true;
	zc_active = false;
	return zc_set_active(active);
}

/* The front ends have left, or never came */
void zc_glue_exit(void)
{
	debugfs_remove_recursive(zc_debugfs);
	shrinker_free(zc_shrinker);
	destroy_workqueue(zc_workqueue);
	zc_cpus_free();
}
