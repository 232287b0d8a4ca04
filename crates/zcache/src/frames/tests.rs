use super::*;

fn frames(limit_frames: u64) -> (ShardFrames, Arc<Budget>) {
    let budget = Arc::new(Budget::new(limit_frames * 4096));
    (
        ShardFrames::new(&[Run::BLOCK], 1, Arc::clone(&budget)),
        budget,
    )
}

#[test]
fn the_limit_is_hard_for_all_lengths_together() {
    let (mut frames, budget) = frames(10);
    let block = frames.alloc(Run::BLOCK).unwrap();
    frames.alloc(Run::BLOCK).unwrap();
    assert_eq!(frames.alloc(Run::BLOCK), None);
    assert_eq!(frames.shortage, Some(Shortage::Budget));
    frames.alloc(Run::FRAME).unwrap();
    frames.alloc(Run::FRAME).unwrap();
    assert_eq!(frames.alloc(Run::FRAME), None);
    assert_eq!(budget.used(), 10 * 4096);
    // A free block is given up for single frames.
    frames.free(block, Run::BLOCK);
    for _ in 0..4 {
        frames.alloc(Run::FRAME).unwrap();
    }
    assert_eq!(budget.used(), 10 * 4096);
    assert_eq!(frames.alloc(Run::FRAME), None);
    budget.set_max(11 * 4096);
    assert!(frames.alloc(Run::FRAME).is_some());
}

#[test]
fn what_is_counted_is_what_the_kernel_holds() {
    let (mut frames, budget) = frames(1 << 20);
    let runs: Vec<FrameId> = (0..1000)
        .map(|n| {
            let run = frames.alloc(Run::BLOCK).unwrap();
            frames.bytes_mut(run, Run::BLOCK).fill(n as u8 | 1);
            run
        })
        .collect();
    assert_eq!(frames.resident_bytes(), budget.used());
    for run in runs.iter().filter(|run| run.0 % 3 == 0) {
        frames.free(*run, Run::BLOCK);
    }
    assert_eq!(frames.resident_bytes(), budget.used());
    frames.trim();
    assert_eq!(frames.resident_bytes(), budget.used());
    assert_eq!(budget.used(), 666 * 16384);
    for _ in 0..334 {
        let run = frames.alloc(Run::BLOCK).unwrap();
        assert!(run.0 % 3 == 0, "{run:?} is in use");
        frames.bytes_mut(run, Run::BLOCK).fill(1);
    }
    assert_eq!(frames.resident_bytes(), budget.used());
    assert_eq!(budget.used(), 1000 * 16384);
}

#[test]
fn address_space_follows_what_is_needed_and_goes_back_from_the_end() {
    let (mut frames, budget) = frames(1 << 20);
    assert_eq!(frames.reserved_bytes(), 0, "before the first page");
    let runs: Vec<FrameId> = (0..4096)
        .map(|_| frames.alloc(Run::BLOCK).unwrap())
        .collect();
    let used = 4096 * 16384;
    assert!(frames.reserved_bytes() >= used);
    assert!(frames.reserved_bytes() <= used + used / 4);
    // What is left lies at both ends of the numbers.
    for run in &runs[100..4095] {
        frames.bytes_mut(*run, Run::BLOCK).fill(1);
        frames.free(*run, Run::BLOCK);
    }
    frames.trim();
    assert!(frames.reserved_bytes() >= used, "the last is still in use");
    frames.bytes_mut(runs[50], Run::BLOCK).fill(50);
    frames.free(runs[4095], Run::BLOCK);
    frames.trim();
    assert!(frames.reserved_bytes() <= 8 << 20);
    assert_eq!(budget.used(), 100 * 16384);
    assert_eq!(frames.bytes(runs[50], Run::BLOCK), [50; 16384]);
    // And grows again.
    let mut seen: std::collections::HashSet<u32> = runs[..100].iter().map(|run| run.0).collect();
    for _ in 100..4096 {
        let run = frames.alloc(Run::BLOCK).unwrap();
        assert!(seen.insert(run.0), "{run:?} is in use");
        frames.bytes_mut(run, Run::BLOCK).fill(2);
    }
    assert_eq!(budget.used(), used);
    assert_eq!(frames.bytes(runs[50], Run::BLOCK), [50; 16384]);
}

#[test]
fn free_caches_of_many_shards_hold_a_small_part_of_a_small_limit() {
    let budget = Arc::new(Budget::new(64 << 20));
    let mut all: Vec<ShardFrames> = (0..64)
        .map(|_| ShardFrames::new(&[Run::BLOCK], 64, Arc::clone(&budget)))
        .collect();
    for frames in &mut all {
        let runs: Vec<_> = (0..64).filter_map(|_| frames.alloc(Run::FRAME)).collect();
        runs.into_iter()
            .for_each(|run| frames.free(run, Run::FRAME));
    }
    assert!(budget.used() <= 4 << 20, "{} wait", budget.used());
}
