use super::*;

fn frames(limit_frames: u64) -> (ShardFrames, Arc<Budget>) {
    let budget = Arc::new(Budget::new(limit_frames * 4096));
    (
        ShardFrames::new(&[Run::BLOCK], 64 << 20, Arc::clone(&budget)).unwrap(),
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
fn address_space_ends_before_the_budget() {
    let budget = Arc::new(Budget::new(1 << 30));
    let mut frames = ShardFrames::new(&[Run::BLOCK], 8 * 4096, budget).unwrap();
    assert!(frames.alloc(Run::BLOCK).is_some());
    assert!(frames.alloc(Run::BLOCK).is_some());
    assert!(frames.alloc(Run::BLOCK).is_none());
    assert_eq!(frames.shortage, Some(Shortage::Space));
}
