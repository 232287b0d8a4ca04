//! What shuttle's thread-locals lack of the standard library's.

use shuttle::thread::LocalKey;
use std::cell::{Cell, RefCell};

pub(crate) trait LocalCell<T> {
    fn get(&'static self) -> T;
    fn set(&'static self, value: T);
}

impl<T: Copy> LocalCell<T> for LocalKey<Cell<T>> {
    fn get(&'static self) -> T {
        self.with(Cell::get)
    }

    fn set(&'static self, value: T) {
        self.with(|cell| cell.set(value));
    }
}

pub(crate) trait LocalRefCell<T> {
    fn with_borrow_mut<R>(&'static self, f: impl FnOnce(&mut T) -> R) -> R;
    fn take(&'static self) -> T
    where
        T: Default;
    fn set(&'static self, value: T);
}

impl<T> LocalRefCell<T> for LocalKey<RefCell<T>> {
    fn with_borrow_mut<R>(&'static self, f: impl FnOnce(&mut T) -> R) -> R {
        self.with(|cell| f(&mut cell.borrow_mut()))
    }

    fn take(&'static self) -> T
    where
        T: Default,
    {
        self.with(RefCell::take)
    }

    fn set(&'static self, value: T) {
        self.with(|cell| cell.replace(value));
    }
}
