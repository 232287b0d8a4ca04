#!/bin/sh
# Proves that the core needs nothing but the language: no std, no alloc, no libc.
#
# The sources of crates/core are compiled as a plain set of files, without cargo, and linked without any library into a
# freestanding image that has its own panic handler and instantiates the core with a home of its own. What the image
# leaves undefined must be the five memory routines that any bare target (and the kernel) supplies.
#
# std brings a second panic handler and alloc asks for a global allocator, so either fails to compile here. That the
# check can fail is checked as well: with either of them put into the core on purpose it must fail.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
rustc=${RUSTC:-rustc}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cat > "$work/probe.rs" <<'PROBE'
#![no_std]
#![no_main]

use zcache_core::{Allocator, CodecId, FrameId, Frames, Key, Kind, ObjectId, PoolId, Run, Shard, Slot, Zpage};

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

struct Home {
    memory: [u8; 1 << 20],
    used: usize,
}

impl Frames for Home {
    fn alloc(&mut self, run: Run) -> Option<FrameId> {
        let frame = self.used;
        (frame + run.bytes() <= self.memory.len()).then(|| {
            self.used += run.bytes();
            FrameId(frame as u32)
        })
    }
    fn free(&mut self, _: FrameId, _: Run) {}
    fn bytes(&self, frame: FrameId, run: Run) -> &[u8] {
        &self.memory[frame.0 as usize..][..run.bytes()]
    }
    fn bytes_mut(&mut self, frame: FrameId, run: Run) -> &mut [u8] {
        &mut self.memory[frame.0 as usize..][..run.bytes()]
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn probe(len: usize, choice: u32) -> u64 {
    let mut home = Home { memory: [0; 1 << 20], used: 0 };
    let home = core::hint::black_box(&mut home);
    let mut shard = Shard::with_seed(Allocator::ALL[choice as usize % Allocator::ALL.len()], [len as u64, 1]);
    let bytes = [choice as u8; 4096];
    let page = Zpage::Bytes { bytes: &bytes[..len], codec: CodecId::new(1), checksum: choice };
    let key = Key { pool: PoolId::new(1, Kind::Ephemeral), object: ObjectId([len as u64; 3]), index: choice };
    let mut sum = shard.put(home, &key, page).is_ok() as u64;
    if let Ok(token) = shard.insert(home, page) {
        sum += shard.load(home, token).is_some() as u64;
        shard.retain(home, token);
        shard.release(home, token);
    }
    if let Some(plan) = shard.begin_writeback(home, Kind::Persistent) {
        sum += shard.live_zpages(home, plan.block).count() as u64;
        shard.finish_writeback(home, plan.block, Ok(Slot(choice)));
    }
    if let Some(from) = shard.sparsest_tier_block(home) {
        sum += shard.readmit_good(home, &from, &bytes, |zpage| zpage.tags.is_some()).is_ok() as u64;
        shard.put_aside(home, &from);
    }
    if let Some(plan) = shard.begin_recompress(home, Kind::Persistent) {
        shard.finish_recompress(home, plan.block, core::iter::empty());
    }
    shard.take_freed_slot(home);
    shard.evacuate(home, choice);
    sum += shard.get(home, &key).is_some() as u64;
    shard.get_run(home, &key, choice, |_, _| true);
    sum += shard.flush_range(home, key.pool, key.object, 0, choice);
    sum += shard.flush_object_part(home, key.pool, key.object, choice).pages as u64;
    sum += shard.flush_pool(home, key.pool) + shard.validate(home).is_ok() as u64;
    shard.destroy(home);
    sum
}
PROBE

# Builds the image from a copy of the core's sources; on success prints what it leaves undefined.
image() {
    "$rustc" --edition 2024 --crate-type rlib --crate-name zcache_core -C panic=abort -C opt-level=2 \
        --cap-lints allow -F unsafe_code --out-dir "$1" "$1/src/lib.rs" &&
        "$rustc" --edition 2024 --crate-type bin -C panic=abort -C opt-level=2 -C lto=fat \
            -C link-args="-nostdlib -nostartfiles -static -Wl,-e,probe,--gc-sections,--unresolved-symbols=ignore-all" \
            -C relocation-model=static --extern zcache_core="$1/libzcache_core.rlib" -o "$1/image" "$work/probe.rs" &&
        nm -u "$1/image"
}

mkdir "$work/real"
cp -r "$root/crates/core/src" "$work/real/src"
undefined=$(image "$work/real")
foreign=$(printf '%s\n' "$undefined" | awk 'NF { print $NF }' | grep -vxE 'memcpy|memmove|memset|memcmp|bcmp' || true)
if [ -n "$foreign" ]; then
    echo "the core needs symbols that a bare target does not have:" >&2
    echo "$foreign" >&2
    exit 1
fi
if ! nm "$work/real/image" | grep -q ' T probe$'; then
    echo "the image does not contain the probe: the check checked nothing" >&2
    exit 1
fi

for library in std alloc; do
    mkdir "$work/$library"
    cp -r "$root/crates/core/src" "$work/$library/src"
    printf 'extern crate %s;\n/// Uses it.\npub fn used() -> usize { %s::vec::Vec::<u8>::with_capacity(9).capacity() }\n' \
        "$library" "$library" >> "$work/$library/src/lib.rs"
    if image "$work/$library" > /dev/null 2> "$work/$library/errors"; then
        echo "the check would not notice $library in the core" >&2
        exit 1
    fi
    # It must fail for this reason and not for a slip of the script.
    if ! grep -qE 'panic_impl|global memory allocator' "$work/$library/errors"; then
        echo "with $library in the core the check failed for another reason:" >&2
        cat "$work/$library/errors" >&2
        exit 1
    fi
done
echo "no-std check: ok (undefined: $(printf '%s\n' "$undefined" | awk '{ print $NF }' | xargs))"
