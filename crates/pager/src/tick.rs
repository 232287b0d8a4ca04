//! The ticker: measures what cannot be paged, and looks for forks that failed.
//!
//! `fixed = zcache's own anonymous memory less the store + for each space its
//! anonymous memory less the pages that are charged`. The kernel's figures are
//! the truth; between two ticks the budget lives by what it charged itself.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::budget::PAGE_BYTES;
use crate::pager::Pager;

const PERIOD: Duration = Duration::from_millis(10);

/// Anonymous memory of a process in bytes, 0 when it is gone.
fn anonymous_bytes(pid: i32) -> u64 {
    let Ok(statm) = fs::read_to_string(format!("/proc/{pid}/statm")) else {
        return 0;
    };
    let mut fields = statm
        .split_ascii_whitespace()
        .skip(1)
        .map(|field| field.parse::<u64>());
    match (fields.next(), fields.next()) {
        (Some(Ok(resident)), Some(Ok(shared))) => resident.saturating_sub(shared) * PAGE_BYTES,
        _ => 0,
    }
}

impl Pager {
    /// Measures until the run ends.
    pub(crate) fn tick(self: &Arc<Self>) {
        while !self.stopping.load(Ordering::Relaxed) {
            self.measure();
            self.find_stale_windows();
            std::thread::sleep(PERIOD);
        }
    }

    /// Brings the unpageable part of the budget up to date.
    pub(crate) fn measure(&self) {
        let own = anonymous_bytes(std::process::id().cast_signed());
        let mut fixed = own.saturating_sub(self.store.ram_bytes());
        for pid in &self.own_pids {
            let pid = pid.load(Ordering::Relaxed);
            if pid > 0 {
                fixed += anonymous_bytes(pid);
            }
        }
        for space in self.all_spaces() {
            let known = {
                let core = space.core();
                core.table.resident() + core.shadow.held()
            };
            let reader = space.reader();
            if reader > 0 {
                fixed += anonymous_bytes(reader).saturating_sub(known * PAGE_BYTES);
            }
        }
        self.budget.set_fixed_bytes(fixed);
        self.store.set_pool_bytes_max(self.pool_limit_bytes());
    }
}
