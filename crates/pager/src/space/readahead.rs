//! Which faults are part of a sweep: how many pages to bring at once.
//!
//! Stage on the data path: fault-around. A fault that continues a recent one
//! opens a window of 16 pages, which doubles while the sweep goes on; any other
//! fault brings its own page only, so that random access pays for nothing else.

const STREAMS: usize = 8;
const FIRST_WINDOW: u64 = 16;

#[derive(Clone, Copy, Default)]
struct Stream {
    next: u64,
    window: u64,
    used: u64,
}

/// The recent sweeps of one address space.
#[derive(Default)]
pub(crate) struct Streams {
    streams: [Stream; STREAMS],
    clock: u64,
}

impl Streams {
    /// How many pages from `page` on are wanted, at most `limit`.
    pub(crate) fn window(&mut self, page: u64, limit: u64) -> u64 {
        self.clock += 1;
        let clock = self.clock;
        let known = self
            .streams
            .iter_mut()
            .find(|stream| stream.window > 0 && (stream.next..=stream.next + 1).contains(&page));
        if let Some(stream) = known {
            stream.window = match stream.window {
                1 => FIRST_WINDOW,
                window => window * 2,
            }
            .min(limit)
            .max(1);
            stream.next = page + stream.window;
            stream.used = clock;
            return stream.window;
        }
        if let Some(stalest) = self.streams.iter_mut().min_by_key(|stream| stream.used) {
            *stalest = Stream {
                next: page + 1,
                window: 1,
                used: clock,
            };
        }
        1
    }

    /// The last window from `page` on turned out to be only `got` pages long.
    pub(crate) fn shortened(&mut self, page: u64, wanted: u64, got: u64) {
        for stream in &mut self.streams {
            if stream.window > 0 && stream.next == page + wanted {
                stream.next = page + got;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_opens_the_window_and_random_faults_do_not() {
        let mut streams = Streams::default();
        assert_eq!(streams.window(100, 64), 1);
        assert_eq!(streams.window(101, 64), 16);
        assert_eq!(streams.window(117, 64), 32);
        assert_eq!(streams.window(5000, 64), 1);
        assert_eq!(streams.window(149, 64), 64);
        assert_eq!(streams.window(213, 64), 64);
        assert_eq!(streams.window(9000, 64), 1);
    }

    #[test]
    fn a_shortened_window_continues_where_it_ended() {
        let mut streams = Streams::default();
        streams.window(100, 64);
        let wanted = streams.window(101, 64);
        streams.shortened(101, wanted, 4);
        assert_eq!(streams.window(105, 64), 32);
    }
}
