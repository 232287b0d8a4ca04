//! Rings of io_uring: what a ring does no filter sees, so each is restricted when it is
//! made, to all but advice about memory. It is made disabled, restricted and enabled by
//! calls of the thread that makes it.

use std::sync::OnceLock;

use zcache_sys::process::{read_memory, write_memory};
use zcache_sys::uring::{
    self, PARAMETER_FLAGS, REGISTER_ENABLE, REGISTER_RESTRICTIONS, Restrictions, SETUP_DISABLED,
    SETUP_NO_DESCRIPTOR,
};

use super::Watched;
use crate::process::inject::Held;

/// Restrictions of this kernel; `None` where we have no rings ourselves.
fn restrictions() -> Option<&'static Restrictions> {
    static KNOWN: OnceLock<Option<Restrictions>> = OnceLock::new();
    KNOWN.get_or_init(|| uring::all_but_advice().ok()).as_ref()
}

impl Watched<'_> {
    async fn ring_flags(&self, address: u64) -> Option<u32> {
        let thread = self.thread();
        let mut flags = [0u8; 4];
        let read = self.tracer.elsewhere(move |_| {
            let got = read_memory(thread, address + PARAMETER_FLAGS as u64, &mut flags);
            got.map(|_| flags)
        });
        read.await.ok().map(u32::from_ne_bytes)
    }

    async fn set_ring_flags(&self, address: u64, flags: u32) -> bool {
        let thread = self.thread();
        let written = self.tracer.elsewhere(move |_| {
            let at = address + PARAMETER_FLAGS as u64;
            write_memory(thread, at, &flags.to_ne_bytes())
        });
        written.await.is_ok()
    }

    /// Sees a call through that makes a ring.
    pub(super) async fn make_ring(self, address: u64) {
        let Some(flags) = self.ring_flags(address).await else {
            // The kernel cannot read its arguments either.
            return self.resume();
        };
        let places = self.space.hands().kernel().map(|kernel| kernel.places);
        let (Some(places), Some(restrictions)) = (places, restrictions()) else {
            return self.refuse(libc::ENOSYS);
        };
        if flags & SETUP_NO_DESCRIPTOR != 0 {
            // As kernels that have it not.
            return self.refuse(libc::EINVAL);
        }
        if flags & SETUP_DISABLED != 0 {
            // The program means to restrict it, which can be done once.
            return self.refuse(libc::ENOSYS);
        }
        if !self.set_ring_flags(address, flags | SETUP_DISABLED).await {
            return self.resume();
        }
        let result = self.make().await;
        self.set_ring_flags(address, flags).await;
        let mut held = Held::default();
        if let Some(ring) = result.and_then(|result| u64::try_from(result).ok()) {
            let at = places.ring + restrictions_at(&self, restrictions);
            let taken = [ring, REGISTER_RESTRICTIONS, at, restrictions.count(), 0, 0];
            let enabled = [ring, REGISTER_ENABLE, 0, 0, 0, 0];
            let mut whole = at > places.ring;
            for arguments in [taken, enabled] {
                let (result, stopped) = self
                    .inject("io_uring_register", libc::SYS_io_uring_register, arguments)
                    .await;
                held = held.or(stopped);
                whole &= result.is_some();
            }
            if !whole {
                let (_, stopped) = self
                    .inject("close", libc::SYS_close, [ring, 0, 0, 0, 0, 0])
                    .await;
                held = held.or(stopped);
                self.answer(-i64::from(libc::ENOSYS));
            }
        }
        if result.is_some() {
            self.resume_by(held);
        }
    }
}

/// Writes the restrictions to where the program can read them, and nobody but us can
/// write; returns how far into the ring.
fn restrictions_at(call: &Watched<'_>, restrictions: &Restrictions) -> u64 {
    let kernel = call.space.hands().kernel();
    kernel.map_or(0, |kernel| kernel.put_beside(&restrictions.bytes))
}
