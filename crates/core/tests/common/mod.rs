//! A home for tests: an arena of frames that counts, fails on demand and notices misuse, and a seeded generator.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::HashMap;

use zcache_core::{FRAME_SIZE, FrameId, Frames, Run};

/// Frames on the heap, up to a budget.
pub(crate) struct Arena {
    memory: Vec<u8>,
    free: HashMap<Run, Vec<u32>>,
    /// First frame and length of every run handed out.
    handed_out: HashMap<u32, Run>,
    /// Frames that may be handed out at once.
    pub(crate) frames_max: u32,
    pub(crate) frames_used: u32,
    /// Counts down; the allocation that finds it at 0 fails, and all after it until it is reset.
    pub(crate) fail_after: Option<u64>,
    pub(crate) allocations: u64,
    pub(crate) refusals: u64,
    strict: bool,
}

impl Arena {
    pub(crate) fn new(frames_max: u32) -> Arena {
        Arena {
            memory: Vec::new(),
            free: HashMap::new(),
            handed_out: HashMap::new(),
            frames_max,
            frames_used: 0,
            fail_after: None,
            allocations: 0,
            refusals: 0,
            strict: true,
        }
    }

    /// Without the check on each access, for measurements.
    pub(crate) fn fast(frames_max: u32) -> Arena {
        let mut arena = Arena::new(frames_max);
        arena.memory.reserve_exact(frames_max as usize * FRAME_SIZE);
        arena.strict = false;
        arena
    }

    /// Flips one bit of one of the runs that are handed out, or of one of no more frames than this.
    pub(crate) fn flip_any_bit(&mut self, random: &mut Random, longest: Run) {
        let mut runs: Vec<_> = self
            .handed_out
            .iter()
            .map(|(frame, run)| (*frame, *run))
            .filter(|(_, run)| *run <= longest)
            .collect();
        runs.sort_unstable();
        let (frame, run) = runs[random.below(runs.len() as u64) as usize];
        let at = frame as usize * FRAME_SIZE + random.below(run.bytes() as u64) as usize;
        self.memory[at] ^= 1 << random.below(8);
    }

    /// Flips a bit of a byte, or of one behind it.
    pub(crate) fn flip(&mut self, at: usize, bit: u32) {
        self.memory[at + bit as usize / 8] ^= 1 << (bit % 8);
    }

    /// Where these bytes, which are in one place only, lie in runs of a frame.
    pub(crate) fn find_in_tables(&self, bytes: &[u8]) -> usize {
        let mut found = Vec::new();
        for (frame, _) in self
            .handed_out
            .iter()
            .filter(|(_, run)| **run == Run::FRAME)
        {
            let start = *frame as usize * FRAME_SIZE;
            let frame = &self.memory[start..start + FRAME_SIZE];
            // What is looked for is a number of whole words.
            let words = (0..FRAME_SIZE - bytes.len()).step_by(4);
            found.extend(
                words
                    .filter(|at| frame[*at..].starts_with(bytes))
                    .map(|at| start + at),
            );
        }
        assert!(matches!(found[..], [_]), "{found:?}");
        found[0]
    }

    /// Where bytes lie that were given out.
    pub(crate) fn position(&self, bytes: &[u8]) -> usize {
        bytes.as_ptr().addr() - self.memory.as_ptr().addr()
    }

    fn range(&self, frame: FrameId, run: Run) -> std::ops::Range<usize> {
        if self.strict {
            assert_eq!(
                self.handed_out.get(&frame.0),
                Some(&run),
                "{frame:?} is not such a run of the core"
            );
        }
        let start = frame.0 as usize * FRAME_SIZE;
        start..start + run.bytes()
    }
}

impl Frames for Arena {
    fn alloc(&mut self, run: Run) -> Option<FrameId> {
        self.allocations += 1;
        let failing = match &mut self.fail_after {
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        };
        if failing || self.frames_used + run.frames() > self.frames_max {
            self.refusals += 1;
            return None;
        }
        let frame = match self.free.entry(run).or_default().pop() {
            Some(frame) => frame,
            None => {
                let frame = self.memory.len() / FRAME_SIZE;
                self.memory.resize(self.memory.len() + run.bytes(), 0xa5);
                frame as u32
            }
        };
        self.frames_used += run.frames();
        self.handed_out.insert(frame, run);
        Some(FrameId(frame))
    }

    fn free(&mut self, frame: FrameId, run: Run) {
        let range = self.range(frame, run);
        if self.strict {
            self.memory[range].fill(0x5a);
        }
        assert_eq!(self.handed_out.remove(&frame.0), Some(run));
        self.free.entry(run).or_default().push(frame.0);
        self.frames_used -= run.frames();
    }

    #[inline]
    fn bytes(&self, frame: FrameId, run: Run) -> &[u8] {
        &self.memory[self.range(frame, run)]
    }

    #[inline]
    fn bytes_mut(&mut self, frame: FrameId, run: Run) -> &mut [u8] {
        let range = self.range(frame, run);
        &mut self.memory[range]
    }
}

/// SplitMix64: seeded, so that a failure can be replayed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Uniform below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Bytes that tell two zpages apart.
    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut word = self.next();
        let mut bytes = vec![0; len];
        for chunk in bytes.chunks_mut(8) {
            word = word.wrapping_mul(0x2545_f491_4f6c_dd1d).wrapping_add(1);
            chunk.copy_from_slice(&word.to_le_bytes()[..chunk.len()]);
        }
        bytes
    }

    /// A length like those of real pages under a fast codec, mean about 4096 / 2.6: mostly small ones, a broad middle, a
    /// few that do not shrink.
    pub(crate) fn zpage_len(&mut self) -> usize {
        let len = match self.below(100) {
            0..20 => 64 + self.below(600),
            20..55 => 500 + self.below(1200),
            55..85 => 1400 + self.below(1400),
            85..99 => 2600 + self.below(1200),
            _ => 4096,
        };
        len as usize
    }
}

/// The seeds to run: one from `ZCACHE_SEED` to replay a failure, otherwise `count` fixed ones.
pub(crate) fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("ZCACHE_SEED") {
        Ok(seed) => vec![seed.parse().expect("ZCACHE_SEED is a number")],
        Err(_) => (1..=count).collect(),
    }
}

/// Prints the seed when the test panics while this lives.
pub(crate) struct SeedOnPanic(pub(crate) u64);

impl Drop for SeedOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay with ZCACHE_SEED={}", self.0);
        }
    }
}
