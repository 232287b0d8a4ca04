//! What shuttle's thread-locals lack of the standard library's.

use shuttle::thread::LocalKey;
use std::cell::Cell;

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
