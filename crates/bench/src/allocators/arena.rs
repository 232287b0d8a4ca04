//! Frames for a shard of the core: memory that is touched before anything is timed.

use zcache_core::{FRAME_SIZE, FrameId, Frames, Run};

/// Frames on the heap, up to a fixed number.
pub(super) struct Arena {
    memory: Vec<u8>,
    /// Frames below this one have been handed out at least once.
    fresh: usize,
    /// Runs that came back, by their length less one.
    free: [Vec<u32>; Run::FRAMES_MAX as usize],
}

impl Arena {
    /// Room for so many frames.
    pub(super) fn new(frames: usize) -> Arena {
        Arena {
            // Not zero, which the system would give without memory behind it.
            memory: vec![0xa5; frames * FRAME_SIZE],
            fresh: 0,
            free: Default::default(),
        }
    }

    /// Makes all frames fresh again, for another shard.
    pub(super) fn reset(&mut self) {
        self.fresh = 0;
        self.free.iter_mut().for_each(Vec::clear);
    }
}

fn range(frame: FrameId, run: Run) -> std::ops::Range<usize> {
    let start = frame.0 as usize * FRAME_SIZE;
    start..start + run.bytes()
}

impl Frames for Arena {
    fn alloc(&mut self, run: Run) -> Option<FrameId> {
        let frames = run.frames() as usize;
        if let Some(frame) = self.free[frames - 1].pop() {
            return Some(FrameId(frame));
        }
        let frame = self.fresh;
        if (frame + frames) * FRAME_SIZE > self.memory.len() {
            return None;
        }
        self.fresh += frames;
        Some(FrameId(frame as u32))
    }

    fn free(&mut self, frame: FrameId, run: Run) {
        self.free[run.frames() as usize - 1].push(frame.0);
    }

    #[inline]
    fn bytes(&self, frame: FrameId, run: Run) -> &[u8] {
        &self.memory[range(frame, run)]
    }

    #[inline]
    fn bytes_mut(&mut self, frame: FrameId, run: Run) -> &mut [u8] {
        &mut self.memory[range(frame, run)]
    }
}
