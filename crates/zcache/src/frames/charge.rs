//! RAM beside the frames that is counted for as long as its owner lives.

use super::budget::Budget;
use crate::sync::Arc;

/// So many bytes of a store's overhead. Gives them back when it is dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    bytes: u64,
    budget: Arc<Budget>,
}

impl Charge {
    pub(crate) fn new(budget: &Arc<Budget>, bytes: u64) -> Charge {
        budget.charge_overhead(bytes);
        Charge {
            bytes,
            budget: Arc::clone(budget),
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Counts so many from now on.
    pub(crate) fn set(&mut self, bytes: u64) {
        self.budget.charge_overhead(bytes);
        self.budget.discharge_overhead(self.bytes);
        self.bytes = bytes;
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.discharge_overhead(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_charged_follows_its_owner_and_goes_with_it() {
        let budget = Arc::new(Budget::new(0));
        let mut charge = Charge::new(&budget, 100);
        let other = Charge::new(&budget, 7);
        charge.set(40);
        assert_eq!((charge.bytes(), budget.overhead()), (40, 47));
        drop(charge);
        drop(other);
        assert_eq!(budget.overhead(), 0);
    }
}
