//! Whether this machine is short, or has room to lend again. Only counts: no
//! clock, no file.
//!
//! - Between "short" and "room" lie a quarter of what stays free and what would
//!   be lent, so that lending again does not make it short.
//! - Stalls count only where little is available: a program within a limit of
//!   its own stalls whatever is given back to the machine.

use std::time::Duration;

use crate::host::Sight;

/// It is short for so long before anything is done.
const SHORT_FOR: Duration = Duration::from_secs(1);

/// Stalls from which a machine with little left is short, in percent of time.
const STALLED_SHORT: f64 = 10.0;

/// And below which it has room.
const STALLED_ROOM: f64 = 2.0;

/// So many times what stays free is little.
const LITTLE: u64 = 4;

/// What it is watched for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Bounds {
    /// What is lent.
    pub(crate) ram_bytes: u64,
    /// What stays available to this machine.
    pub(crate) keep_free_bytes: u64,
    /// For so long there must be room.
    pub(crate) room_for: Duration,
}

/// What a look says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// Nothing is to be changed.
    Stay,
    /// The machine needs its RAM.
    Short,
    /// There has been room for long enough.
    Room,
}

/// What was seen lately.
#[derive(Debug)]
pub(crate) struct Watch {
    bounds: Bounds,
    short_since: Option<Duration>,
    room_since: Option<Duration>,
}

impl Watch {
    pub(crate) fn new(bounds: Bounds) -> Watch {
        Watch {
            bounds,
            short_since: None,
            room_since: None,
        }
    }

    /// Takes one look into account; `held_bytes` of what is lent are in use now.
    pub(crate) fn look(&mut self, now: Duration, sight: Sight, held_bytes: u64) -> Verdict {
        let Bounds {
            ram_bytes,
            keep_free_bytes,
            room_for,
        } = self.bounds;
        let available = sight.available_bytes;
        let stalls = sight.stalled_percent >= STALLED_SHORT;
        let is_short = available < keep_free_bytes
            || (stalls && available < keep_free_bytes.saturating_mul(LITTLE));
        let needed = ram_bytes.saturating_sub(held_bytes) + keep_free_bytes + keep_free_bytes / 4;
        let has_room = available >= needed && sight.stalled_percent < STALLED_ROOM;
        let since = |was: Option<Duration>, is: bool| is.then(|| was.unwrap_or(now));
        self.short_since = since(self.short_since, is_short);
        self.room_since = since(self.room_since, has_room);
        let lasts =
            |since: Option<Duration>, long: Duration| since.is_some_and(|at| now - at >= long);
        if lasts(self.short_since, SHORT_FOR) {
            Verdict::Short
        } else if lasts(self.room_since, room_for) {
            Verdict::Room
        } else {
            Verdict::Stay
        }
    }

    /// Room counts from now on only.
    pub(crate) fn forget_room(&mut self) {
        self.room_since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        ram_bytes: 1000,
        keep_free_bytes: 400,
        room_for: Duration::from_secs(30),
    };

    fn sight(available_bytes: u64, stalled_percent: f64) -> Sight {
        Sight {
            available_bytes,
            stalled_percent,
        }
    }

    /// What is said last when this is seen each half second for so many seconds.
    fn after(watch: &mut Watch, from: u64, seconds: u64, seen: Sight, held: u64) -> Verdict {
        let looks =
            (0..=seconds * 2).map(|n| Duration::from_secs(from) + Duration::from_millis(500 * n));
        looks.map(|now| watch.look(now, seen, held)).last().unwrap()
    }

    #[test]
    fn a_machine_is_short_when_less_is_left_than_stays_free_for_a_while() {
        let mut watch = Watch::new(BOUNDS);
        assert_eq!(
            watch.look(Duration::ZERO, sight(399, 0.0), 0),
            Verdict::Stay
        );
        assert_eq!(after(&mut watch, 1, 0, sight(400, 0.0), 0), Verdict::Stay);
        assert_eq!(
            watch.look(Duration::from_secs(2), sight(399, 0.0), 0),
            Verdict::Stay
        );
        assert_eq!(after(&mut watch, 2, 1, sight(399, 0.0), 0), Verdict::Short);
    }

    #[test]
    fn stalls_count_where_little_is_left_and_nowhere_else() {
        let mut watch = Watch::new(BOUNDS);
        assert_eq!(after(&mut watch, 0, 5, sight(1600, 50.0), 0), Verdict::Stay);
        assert_eq!(after(&mut watch, 10, 5, sight(1599, 9.0), 0), Verdict::Stay);
        assert_eq!(
            after(&mut watch, 20, 5, sight(1599, 10.0), 0),
            Verdict::Short
        );
    }

    #[test]
    fn there_is_room_when_all_that_is_lent_would_leave_more_than_enough_for_long() {
        let mut watch = Watch::new(BOUNDS);
        assert_eq!(after(&mut watch, 0, 60, sight(1499, 0.0), 0), Verdict::Stay);
        assert_eq!(
            after(&mut watch, 100, 29, sight(1500, 0.0), 0),
            Verdict::Stay
        );
        assert_eq!(
            after(&mut watch, 130, 0, sight(1500, 3.0), 0),
            Verdict::Stay
        );
        assert_eq!(
            after(&mut watch, 131, 30, sight(1500, 0.0), 0),
            Verdict::Room
        );
        watch.forget_room();
        assert_eq!(
            after(&mut watch, 170, 29, sight(1500, 0.0), 0),
            Verdict::Stay
        );
        // What is in use already does not have to be there once more.
        assert_eq!(
            after(&mut watch, 200, 30, sight(500, 0.0), 1000),
            Verdict::Room
        );
    }
}
