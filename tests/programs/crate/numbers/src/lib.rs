//! Arithmetic that the other crates of this sample depend on.

/// A generator of numbers with a known sequence.
pub struct Sequence(pub u64);

impl Iterator for Sequence {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        Some(self.0 >> 33)
    }
}

macro_rules! folds {
    ($($name:ident $by:literal),*) => {$(
        /// Folds the values in its own way.
        pub fn $name(values: &[u64]) -> u64 {
            values.iter().enumerate().fold($by, |sum, (i, v)| (sum ^ v).rotate_left(i as u32 % 64).wrapping_mul($by | 1))
        }
    )*};
}

folds!(fold_1 1, fold_2 2, fold_3 3, fold_4 4, fold_5 5, fold_6 6, fold_7 7, fold_8 8, fold_9 9, fold_10 10);
