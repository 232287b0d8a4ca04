//! Pages by handle: whoever holds one gets its page back, until the last
//! reference is released.

use zcache::{Handle, LoadError, PAGE_SIZE, PageName, Rejected};

use crate::client::{Client, Held};
use crate::expect::{Expected, Learned, judge};
use crate::support::pages::page;
use crate::support::quiet::caught;

/// Handles loaded at once.
const MANY: u64 = 120;

impl Client<'_> {
    fn any_held(&mut self) -> Option<usize> {
        let count = self.handles.len() as u64;
        (count > 0).then(|| self.random.below(count) as usize)
    }

    pub(crate) fn insert(&mut self) {
        let number = self.next_page();
        let inserted = self.shared.call(|store| store.insert(&page(number)));
        match inserted {
            Some(Ok(handle)) => {
                assert_eq!(Handle::from_bits(handle.to_bits()), handle);
                let taken = self.handles.iter().any(|held| held.handle == handle);
                assert!(!taken, "{handle:?} names two pages");
                self.handles.push(Held {
                    handle,
                    number,
                    references: 1,
                });
            }
            Some(Err(Rejected::NoSuchPool)) => panic!("a handle has no pool"),
            Some(Err(refused)) => {
                if refused == Rejected::PoolFull {
                    self.shared.refused_as_full();
                }
                self.shared.call(|store| store.reclaim(128 << 10));
            }
            None => {}
        }
    }

    pub(crate) fn retain(&mut self) {
        if let Some(at) = self.any_held() {
            self.shared.store.retain(self.handles[at].handle);
            self.handles[at].references += 1;
        }
    }

    pub(crate) fn release(&mut self) {
        let Some(at) = self.any_held() else { return };
        let handle = self.handles[at].handle;
        self.shared.store.release(handle);
        self.handles[at].references -= 1;
        if self.handles[at].references > 0 {
            return;
        }
        self.handles.swap_remove(at);
        // Another thread may have its number by now.
        if !self.shared.alone() {
            return;
        }
        let mut out = [0; PAGE_SIZE];
        let loaded = self.shared.store.load(handle, &mut out);
        assert_eq!(loaded, Err(LoadError::Gone), "a handle that was released");
        assert!(!self.shared.store.in_ram(handle));
    }

    pub(crate) fn load(&mut self) {
        let Some(at) = self.any_held() else { return };
        let Held { handle, number, .. } = self.handles[at];
        let since = self.shared.now();
        let in_ram = self.shared.alone() && self.shared.store.in_ram(handle);
        let reads = || self.shared.tier.as_ref().map_or(0, |tier| tier.reads());
        let before = reads();
        let mut out = [0xa5; PAGE_SIZE];
        let Some(loaded) = self.shared.call(|store| store.load(handle, &mut out)) else {
            return;
        };
        let answer = loaded.map(|()| Some(&out));
        let name = PageName::Handle(handle);
        let learned = judge(self.shared, &name, Expected::Page(number), answer, since);
        if in_ram {
            assert_eq!((learned, reads()), (Learned::Hit, before), "it is in RAM");
        }
    }

    pub(crate) fn load_many(&mut self) {
        if self.handles.is_empty() {
            return;
        }
        let count = 1 + self.random.below(MANY);
        let held: Vec<Held> = (0..count)
            .map(|_| self.random.pick(&self.handles))
            .collect();
        self.load_these(&held);
    }

    pub(crate) fn load_these(&mut self, held: &[Held]) {
        let handles: Vec<Handle> = held.iter().map(|held| held.handle).collect();
        let mut out = vec![[0xa5; PAGE_SIZE]; held.len()];
        let mut results = vec![Err(LoadError::Gone); held.len()];
        let since = self.shared.now();
        let loaded = self
            .shared
            .call(|store| store.load_many(&handles, &mut out, &mut results));
        if loaded.is_none() {
            return;
        }
        for ((held, out), result) in held.iter().zip(&out).zip(results) {
            let name = PageName::Handle(held.handle);
            let answer = result.map(|()| Some(out));
            judge(
                self.shared,
                &name,
                Expected::Page(held.number),
                answer,
                since,
            );
        }
    }

    /// Uses a handle that names no page, as a client with a bug would: that
    /// panics, and nothing else is changed by it. Only while nobody else acts.
    pub(crate) fn misuse_a_handle(&mut self) {
        let Some(at) = self.any_held() else { return };
        let Held {
            handle, references, ..
        } = self.handles.swap_remove(at);
        for _ in 0..references {
            self.shared.store.release(handle);
        }
        let store = &self.shared.store;
        let released = caught(|| store.release(handle));
        let retained = caught(|| store.retain(handle));
        assert!(released.is_err() && retained.is_err());
        assert_eq!(store.validate(), Ok(()));
    }
}
