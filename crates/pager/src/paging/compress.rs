//! The second step of eviction: shadow → store. What the store refuses goes back to the
//! program.

use zcache::{Handle, PAGE_SIZE, Page, Rejected};
use zcache_sys::servant::ServantError;
use zcache_sys::uffd::Outcome;

use super::evict::Evictor;
use crate::space::page_table::{Slot, State, Vpn};
use crate::space::queue::Standing;
use crate::space::shadow::Claim;
use crate::space::{Limbo, Space};

/// Pages that are tried when the store refuses most.
const PROBE_PAGES: u64 = 4;

/// What came of putting a page back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PutBack {
    Done,
    /// The map is changing, or the kernel has no memory: it may be tried again.
    NotNow,
    /// The page is lost.
    Never,
}

/// What came of a claim's pages beside those that are stored now.
#[derive(Default)]
struct Settled {
    /// The program has them back, since the store refused them.
    returned: u64,
    /// They are in their slots still, and the slots may not be freed.
    left: u64,
}

impl Evictor {
    /// Compresses at most `limit` of the oldest shadow pages. Returns how many
    /// pages of RAM became free: not those that the program got back.
    pub(crate) fn compress(&mut self, space: &Space, limit: u64) -> u64 {
        let mut core = space.core();
        if core.buried || !space.hands().can_evict() {
            return 0;
        }
        let most = match self.refusing {
            true => PROBE_PAGES,
            false => self.pages.len() as u64,
        };
        let Some(claim) = core.shadow.claim(limit.min(most)) else {
            return 0;
        };
        core.at_shadow += 1;
        let owned: Vec<Option<Vpn>> = (0..claim.count)
            .map(|ahead| core.shadow.owner(Slot(claim.first.0 + ahead as u32)))
            .collect();
        drop(core);
        let readable = self.read(space, claim, &owned);
        let stored: Vec<Option<Result<Handle, Rejected>>> = owned
            .iter()
            .zip(&readable)
            .zip(self.pages.iter())
            .map(|((owner, readable), page)| {
                (owner.is_some() && *readable).then(|| self.pager.store.insert(page))
            })
            .collect();
        let settled = self.settle(space, claim, &owned, stored);
        self.returned = settled.returned;
        self.refusing = self.returned * 2 >= claim.count;
        let freed = match settled.left {
            0 => self.free_slots(space, claim).saturating_sub(self.returned),
            _ => {
                space.core().shadow.unclaim(claim);
                0
            }
        };
        space.leave_shadow();
        freed
    }

    /// Reads the owned slots of a claim; says for each whether it was read.
    fn read(&mut self, space: &Space, claim: Claim, owned: &[Option<Vpn>]) -> Vec<bool> {
        let mut readable = vec![false; owned.len()];
        let mut index = 0;
        while index < owned.len() {
            let run = owned[index..]
                .iter()
                .take_while(|owner| owner.is_some())
                .count();
            if run == 0 {
                index += 1;
                continue;
            }
            let source = Slot(claim.first.0 + index as u32);
            let target = self.pages[index..index + run].as_flattened_mut();
            let got = space.hands().read_slots(source, target).unwrap_or(0);
            readable[index..index + got / PAGE_SIZE].fill(true);
            index += run;
        }
        readable
    }

    /// Writes the outcome of a claim's compression into the table. Nobody is waited
    /// for: a page that can neither leave nor come back now is left in its slot.
    fn settle(
        &self,
        space: &Space,
        claim: Claim,
        owned: &[Option<Vpn>],
        stored: Vec<Option<Result<Handle, Rejected>>>,
    ) -> Settled {
        let epoch = self.pager.balance.now();
        let mut core = space.core();
        let (mut evicted, mut settled) = (0, Settled::default());
        for (index, result) in stored.into_iter().enumerate() {
            let slot = Slot(claim.first.0 + index as u32);
            // The owner may have been given the page back meanwhile, or have moved.
            let owner = core
                .shadow
                .owner(slot)
                .filter(|page| core.table.get(*page) == State::Shadow(slot));
            match (owner, result) {
                (Some(page), Some(Ok(handle))) => {
                    core.table.set(page, State::Stored(handle));
                    core.table.set_epoch(page, epoch);
                    core.shadow.set_owner(slot, None);
                    evicted += 1;
                }
                (None, Some(Ok(handle))) => self.pager.store.release(handle),
                // A call that drops the page may be under way: put back behind it, the
                // page would come to life again.
                (Some(page), _) if core.is_busy(page) => settled.left += 1,
                (Some(page), Some(Err(_))) => {
                    match self.return_page(space, &mut core, page, slot, &self.pages[index]) {
                        PutBack::Done => settled.returned += 1,
                        PutBack::NotNow => settled.left += 1,
                        PutBack::Never => {}
                    }
                }
                (Some(page), None) if owned[index].is_some() && !space.is_closing() => {
                    core.shadow.set_owner(slot, None);
                    self.pager
                        .lose(space, &mut core, page, "the shadow cannot be read");
                }
                (Some(_), None) => settled.left += 1,
                (None, _) => {}
            }
        }
        self.pager.balance.evicted(evicted);
        self.pager.counters.evicted_pages.add(evicted);
        settled
    }

    /// Copies a page back to where the program has it. One that cannot come back is
    /// lost.
    pub(super) fn install_again(
        &self,
        space: &Space,
        core: &mut crate::space::Core,
        page: Vpn,
        bytes: &Page,
    ) -> PutBack {
        let errno = match space.hands().copy(page, std::slice::from_ref(bytes)) {
            // What the kernel has is the truth.
            Outcome::Done
            | Outcome::Stopped {
                errno: libc::EEXIST,
                ..
            } => {
                core.table.set(page, State::Resident);
                core.admit(page, 1, self.pager.next_stamp(), Standing::Probation);
                return PutBack::Done;
            }
            Outcome::Stopped { errno, .. } => errno,
        };
        if matches!(errno, libc::EAGAIN | libc::ENOMEM) || space.is_closing() {
            return PutBack::NotNow;
        }
        let why = std::io::Error::from_raw_os_error(errno);
        self.pager
            .lose(space, core, page, &format!("it cannot be put back: {why}"));
        PutBack::Never
    }

    /// The store refused a page: the program keeps it in RAM. Its slot is uncharged
    /// when the claim is freed.
    fn return_page(
        &self,
        space: &Space,
        core: &mut crate::space::Core,
        page: Vpn,
        slot: Slot,
        bytes: &Page,
    ) -> PutBack {
        let outcome = self.install_again(space, core, page, bytes);
        match outcome {
            PutBack::Done => {
                self.pager.counters.returned_pages.add(1);
                self.pager.budget.charge_anyway(1);
                core.shadow.set_owner(slot, None);
            }
            PutBack::Never => core.shadow.set_owner(slot, None),
            PutBack::NotNow => {}
        }
        outcome
    }

    /// Gives the slots of a claim back to the kernel. Without a servant they are
    /// kept, and charged, until there is one again.
    fn free_slots(&self, space: &Space, claim: Claim) -> u64 {
        match space.hands().free_slots(claim.first, claim.count) {
            Ok(()) => self.slots_freed(space, claim),
            Err(ServantError::Died | ServantError::Busy) => {
                space.core().shadow.unclaim(claim);
                0
            }
            Err(ServantError::Stuck) => {
                self.wait_in_limbo(space, Limbo::Slots(claim));
                0
            }
        }
    }

    pub(super) fn slots_freed(&self, space: &Space, claim: Claim) -> u64 {
        let mut core = space.core();
        let freed = core.shadow.charged(claim);
        core.shadow.finish(claim);
        drop(core);
        self.pager.budget.uncharge(freed);
        freed
    }
}
