//! A shard of the core, driven by bytes: zpages of any length in a home whose
//! allocations fail as the bytes say, a tier that is a map, and every packing.
//! Unlike in a store, lengths need no page that compresses to them.

use std::collections::HashMap;

use zcache_core::{
    Allocator, CodecId, EntryToken, FRAME_SIZE, Found, FrameId, Frames, Kind, Run as FrameRun, Shard,
    Slot, WriteFailed, WritebackPlan, Zpage,
};

/// Operations of one run; longer inputs only repeat what shorter ones find.
const STEPS_MAX: usize = 4096;

/// Runs of frames at most: tables and blocks of some hundred zpages.
const RUNS_MAX: usize = 512;

/// Lengths at which packings change what they do.
const EDGES: [usize; 8] = [1, 2040, 2041, 2049, 3073, 4088, 4089, 4095];

#[derive(Default)]
struct Home {
    runs: HashMap<u32, Vec<u8>>,
    next: u32,
    /// So many allocations succeed; then all fail until this is set again.
    left: Option<u8>,
}

impl Frames for Home {
    fn alloc(&mut self, run: FrameRun) -> Option<FrameId> {
        if self.runs.len() >= RUNS_MAX {
            return None;
        }
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(1)?;
        }
        let number = self.next;
        self.next += 1;
        // Fresh runs hold any bytes; these look like headers of the first entries.
        let bytes = (0..run.bytes()).map(|at| u8::from(at % 64 == 4)).collect();
        self.runs.insert(number, bytes);
        Some(FrameId(number))
    }

    fn free(&mut self, frame: FrameId, run: FrameRun) {
        let bytes = self.runs.remove(&frame.0).expect("a run is freed once");
        assert_eq!(bytes.len(), run.bytes());
    }

    fn bytes(&self, frame: FrameId, run: FrameRun) -> &[u8] {
        let bytes = &self.runs[&frame.0];
        assert_eq!(bytes.len(), run.bytes());
        bytes
    }

    fn bytes_mut(&mut self, frame: FrameId, run: FrameRun) -> &mut [u8] {
        let bytes = self.runs.get_mut(&frame.0).expect("a run in use");
        assert_eq!(bytes.len(), run.bytes());
        bytes
    }
}

struct Run {
    home: Home,
    shard: Shard,
    /// Handle, and the number and length of its zpage.
    held: Vec<(EntryToken, u64, usize)>,
    tier: HashMap<Slot, Vec<u8>>,
    writing: Vec<WritebackPlan>,
    next: u64,
}

/// Runs the operations that the bytes spell.
///
/// # Panics
/// When a zpage comes back wrong, is lost, or an equation of the core breaks.
pub fn fuzz_shard_ops(data: &[u8]) {
    let mut bytes = data.iter().copied();
    let Some(head) = bytes.next() else { return };
    let mut run = Run {
        home: Home::default(),
        shard: Shard::new(Allocator::ALL[usize::from(head) % Allocator::ALL.len()]),
        held: Vec::new(),
        tier: HashMap::new(),
        writing: Vec::new(),
        next: 0,
    };
    for _ in 0..STEPS_MAX {
        let Some(op) = bytes.next() else { break };
        let argument = u16::from_le_bytes([bytes.next().unwrap_or(0), bytes.next().unwrap_or(0)]);
        run.step(op, argument);
    }
    run.check();
    run.shard.destroy(&mut run.home);
    assert!(run.home.runs.is_empty(), "destroy gives every run back");
}

impl Run {
    fn step(&mut self, op: u8, argument: u16) {
        let argument = usize::from(argument);
        match op % 16 {
            0..4 => self.insert(argument % 4096 + 1),
            4 => self.insert(EDGES[argument % EDGES.len()]),
            5..8 if !self.held.is_empty() => {
                let (token, ..) = self.held.swap_remove(argument % self.held.len());
                assert_eq!(self.shard.release(&mut self.home, token), Some(0));
            }
            8 | 9 => self
                .writing
                .extend(self.shard.begin_writeback(&mut self.home, Kind::Persistent)),
            10 | 11 if !self.writing.is_empty() => self.finish(argument),
            12 => {
                self.shard.evacuate(&mut self.home, argument as u32 % 8);
            }
            13 => self.readmit(),
            14 => self.home.left = (argument & 1 == 0).then_some((argument >> 1) as u8),
            15 => self.check(),
            _ => {}
        }
        while let Some((slot, run)) = self.shard.take_freed_slot(&mut self.home) {
            let bytes = self.tier.remove(&slot).expect("a slot is freed once");
            assert_eq!(bytes.len(), run.bytes());
        }
    }

    fn insert(&mut self, len: usize) {
        self.next += 1;
        let bytes = zpage(self.next, len);
        let page = Zpage::Bytes {
            bytes: &bytes,
            codec: CodecId::new(1),
            checksum: 0,
        };
        if let Ok(token) = self.shard.insert(&mut self.home, page) {
            self.held.push((token, self.next, len));
        }
    }

    fn finish(&mut self, argument: usize) {
        let plan = self.writing.swap_remove(argument % self.writing.len());
        self.next += 1;
        let slot = Slot(self.next as u32);
        let result = match argument >> 8 & 3 {
            0 => Err(WriteFailed),
            _ => {
                let bytes = self.home.bytes(plan.frame, plan.run).to_vec();
                self.tier.insert(slot, bytes);
                Ok(slot)
            }
        };
        self.shard
            .finish_writeback(&mut self.home, plan.block, result);
    }

    fn readmit(&mut self) {
        if let Some(from) = self.shard.sparsest_tier_block(&self.home) {
            let bytes = self.tier[&from.slot].clone();
            assert_eq!(bytes.len(), from.run.bytes());
            if let Ok(moved) = self.shard.readmit(&mut self.home, &from, &bytes) {
                assert_eq!(moved, from.zpages);
            }
        }
    }

    fn check(&self) {
        self.shard.validate(&self.home).expect("the equations hold");
        assert_eq!(self.shard.usage().entries as usize, self.held.len());
        for (token, number, len) in &self.held {
            let found = match self.shard.load(&self.home, *token) {
                Some(Found::InRam { bytes, .. }) => bytes,
                Some(Found::InTier { at, .. }) => {
                    &self.tier[&at.slot][at.offset_bytes as usize..][..at.len_bytes as usize]
                }
                other => panic!("a zpage is {other:?}"),
            };
            assert!(found == zpage(*number, *len), "wrong bytes");
        }
    }
}

/// Bytes that tell two zpages apart.
fn zpage(number: u64, len: usize) -> Vec<u8> {
    assert!(len <= FRAME_SIZE);
    let words = (0..).map(|at: u64| (number << 32 | at).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    words.flat_map(u64::to_le_bytes).take(len).collect()
}
