//! What a thread is inside of, so that a tier or a hook that uses its own store
//! comes to an end.
//!
//! Stage on the data path: around every transfer and every call of a hook.
//!
//! - A thread that is inside a reclaim or a transfer of a store writes no other
//!   block of it, and waits for none.
//! - One value is entered at most [`DEPTH_MAX`] deep.
//!
//! Does not know of other threads: a tier that waits for one is not found out.

use std::cell::Cell;
use std::marker::PhantomData;

/// What a thread is inside of at once: stores over stores, each as a reclaim and
/// a transfer, and lookups from within transfers.
const DEPTH_MAX: usize = 32;

/// The addresses of what a thread is inside of; zero for none.
type Stack = [usize; DEPTH_MAX];

crate::sync::thread_local! {
    // Needs no destructor, so it can be used from those of other thread-locals.
    static STACK: Cell<Stack> = const { Cell::new([0; DEPTH_MAX]) };
}

/// This thread is inside of something until this is dropped.
#[must_use]
pub(in crate::store) struct Inside {
    depth: usize,
    /// Stays with its thread.
    _thread: PhantomData<*const ()>,
}

impl Inside {
    /// Enters `what`; `None` when this thread is too deep in anything.
    pub(in crate::store) fn enter<T>(what: &T) -> Option<Inside> {
        let mut stack = STACK.with(Cell::get);
        let depth = stack.iter().position(|address| *address == 0)?;
        stack[depth] = address(what);
        STACK.with(|cell| cell.set(stack));
        Some(Inside {
            depth,
            _thread: PhantomData,
        })
    }

    /// Enters `what`, unless this thread is inside of it already.
    pub(in crate::store) fn enter_once<T>(what: &T) -> Option<Inside> {
        match Inside::is_inside(what) {
            true => None,
            false => Inside::enter(what),
        }
    }

    /// Whether this thread is inside of `what`.
    pub(in crate::store) fn is_inside<T>(what: &T) -> bool {
        STACK.with(Cell::get).contains(&address(what))
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let mut stack = STACK.with(Cell::get);
        stack[self.depth] = 0;
        STACK.with(|cell| cell.set(stack));
    }
}

fn address<T>(what: &T) -> usize {
    std::ptr::from_ref(what).addr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_knows_what_it_is_inside_of_and_no_other_does() {
        let (one, other) = (1, 2);
        let inside = Inside::enter_once(&one).unwrap();
        assert!(Inside::is_inside(&one) && !Inside::is_inside(&other));
        assert!(Inside::enter_once(&one).is_none());
        std::thread::scope(|scope| {
            scope.spawn(|| assert!(!Inside::is_inside(&one)));
        });
        let deeper: Vec<_> = std::iter::from_fn(|| Inside::enter(&other)).collect();
        assert_eq!(deeper.len(), DEPTH_MAX - 1);
        drop(inside);
        assert!(!Inside::is_inside(&one) && Inside::is_inside(&other));
        drop(deeper);
        assert!(!Inside::is_inside(&other) && Inside::enter_once(&one).is_some());
    }
}
