//! The ticker: measures what cannot be paged, looks for forks that failed and
//! for faults that wait in vain, and adapts the store to what loads cost.
//!
//! `fixed = zcache's own anonymous memory less the store + for each space its
//! anonymous memory less the pages that are charged, and the room kept for what
//! it is about to use`. The kernel's figures are the truth; between two ticks the
//! budget lives by what it charged itself.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::background::codec::Choice;
use crate::background::out_of_memory::Starvation;
use crate::budget::PAGE_BYTES;
use crate::budget::balance::Line;
use crate::pager::Pager;
use crate::space::Space;
use crate::sync::lock;

use zcache::CodecChoice;

const PERIOD: Duration = Duration::from_millis(10);
/// Growth by less in a tick is not waited for, and so much room lets who waits go on.
const HOLD_LEAST_BYTES: u64 = 512 << 10;
/// Ticks between two decisions about the store's share and the codec.
const BALANCE_TICKS: u64 = 25;

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

/// Of the anonymous memory of a process, what others have as well and count too; 0
/// when it is gone.
fn shared_bytes(pid: i32) -> u64 {
    let Ok(rollup) = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) else {
        return 0;
    };
    let field = |name: &str| {
        let line = rollup.lines().find_map(|line| line.strip_prefix(name))?;
        let kib = line.trim().strip_suffix(" kB")?;
        Some(kib.trim().parse::<u64>().ok()? << 10)
    };
    match (field("Anonymous:"), field("Pss_Anon:")) {
        (Some(all), Some(part)) => all.saturating_sub(part),
        _ => 0,
    }
}

impl Pager {
    /// Looks at one process after another: what forks share of memory that cannot
    /// be paged (written pages of private file mappings, most often) is there once,
    /// but each of them shows it. What they share of pages that are charged is
    /// charged to each on purpose, and does not count here.
    fn look_at_shared(&self, last: &mut u64) {
        if self.budget.fixed_bytes() < self.budget.ram_bytes() / 8 {
            return;
        }
        let mut spaces = self.all_spaces();
        spaces.sort_unstable_by_key(|space| space.id);
        let next = spaces
            .iter()
            .find(|space| space.id.0 > *last)
            .or(spaces.first());
        let Some(space) = next else { return };
        *last = space.id.0;
        let Some(reader) = space.reader() else { return };
        let known = {
            let core = space.core();
            core.table.resident() + core.shadow.held()
        };
        let shared = shared_bytes(reader).saturating_sub(known * PAGE_BYTES);
        space.shared_bytes.store(shared, Ordering::Relaxed);
    }

    /// Memory that cannot be paged comes without a fault that could wait. Where it
    /// grows so fast that it would pass the budget by the next tick, its process is
    /// held until room was made.
    fn hold_if_fast(&self, space: &Space, growth: u64) {
        let mut holds = lock(&self.holds);
        let available = self.budget.available_bytes();
        let changed = match growth {
            0 => available > HOLD_LEAST_BYTES && holds.remove(&space.id),
            _ => available < growth * 2 && growth > HOLD_LEAST_BYTES && holds.insert(space.id),
        };
        let held = !holds.is_empty();
        drop(holds);
        if changed {
            self.tracer.poke();
        }
        if held {
            self.budget.press();
        }
    }

    /// Measures until the run ends.
    pub(crate) fn tick(self: &Arc<Self>) {
        let mut ticks = 0u64;
        let mut last_looked_at = 0;
        let mut starvation = Starvation::new();
        let mut choice = Choice::new();
        while !self.stopping.load(Ordering::Relaxed) {
            self.look_at_shared(&mut last_looked_at);
            self.measure();
            starvation.look(self);
            if self.tracer_waits.load(Ordering::Relaxed) || self.tracer.is_pending() {
                self.tracer.poke();
            }
            ticks += 1;
            if ticks.is_multiple_of(BALANCE_TICKS) {
                self.adapt_store(&mut choice);
            }
            std::thread::sleep(PERIOD);
        }
    }

    /// Adapts the store's share, when the store fills it, and the codec of fresh
    /// pages, when that is left to us.
    fn adapt_store(&self, choice: &mut Choice) {
        let full = self.store.ram_bytes() >= self.pool_limit_bytes() / 10 * 9;
        let balances = !self.config.tiers.is_empty() && full;
        let chooses = self.config.codec == CodecChoice::Auto;
        if !balances && !chooses {
            return;
        }
        let prospect = self.balance.look(|| self.line());
        if balances && let Some(prospect) = &prospect {
            self.balance.adjust(prospect);
        }
        choice.look(self, prospect.as_ref());
    }

    /// The line of evicted pages as it is now.
    fn line(&self) -> Line {
        let stats = self.store.stats();
        let stored_pages = stats.stored_pages.saturating_sub(stats.swapped_pages);
        let stored_bytes = stored_pages * PAGE_BYTES;
        let ratio = stored_bytes as f64 / self.store.ram_bytes().max(PAGE_BYTES) as f64;
        let pageable = self
            .budget
            .ram_bytes()
            .saturating_sub(self.budget.fixed_bytes());
        let mut line = Line::new(stored_pages, ratio, pageable / PAGE_BYTES);
        for space in self.all_spaces() {
            let mut from = Some(0);
            while let Some(at) = from {
                let visit = |epoch| line.add(self.balance.ago(epoch));
                from = space.core().table.visit_out(at, visit);
            }
        }
        line
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
            if let Some(reader) = space.reader() {
                let used = anonymous_bytes(reader).saturating_sub(known * PAGE_BYTES);
                let before = space.unpageable_bytes.swap(used, Ordering::Relaxed);
                self.hold_if_fast(&space, used.saturating_sub(before));
                let shared = space.shared_bytes.load(Ordering::Relaxed).min(used);
                fixed += used - shared + space.advance.settle(used);
            }
        }
        for pid in lock(&self.unpaged).iter() {
            fixed += anonymous_bytes(*pid);
        }
        self.budget.set_fixed_bytes(fixed);
        self.limit_store();
    }
}
