//! Which page an access touches: sweep, uniform or scrambled zipf.
//!
//! Second stage of the workload. Invariants: every index is below `pages`; [`scramble`] is a
//! bijection of `0..pages`, so the popularity of pages is exactly the sampler's, only spread over the
//! address space. It does not know what pages hold.

use super::data::mix;

/// The exponent of the zipf pattern, as in YCSB.
pub(crate) const ZIPF_EXPONENT: f64 = 0.99;

/// The order of accesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Pattern {
    /// Sweeps over the memory again and again.
    Seq,
    /// Every page is as likely as any other.
    Uniform,
    /// Zipf with exponent 0.99; the hot pages are spread over the address space.
    Zipf,
}

impl Pattern {
    /// The name on the command line and in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Pattern::Seq => "seq",
            Pattern::Uniform => "uniform",
            Pattern::Zipf => "zipf",
        }
    }
}

/// A stream of 64-bit numbers (splitmix64).
pub(crate) struct Rng(u64);

impl Rng {
    /// A stream for a seed.
    pub(crate) fn new(seed: u64) -> Self {
        Rng(mix(seed))
    }

    /// The next 64 bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `bound`, by multiplication (bias below `bound / 2^64`).
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// A number in `[0, 1)`.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Draws page indices.
pub(crate) struct Sampler {
    pattern: Pattern,
    pages: u64,
    next: u64,
    zipf: Zipf,
}

impl Sampler {
    /// A sampler over `pages` pages.
    ///
    /// # Panics
    /// When `pages` is 0.
    pub(crate) fn new(pattern: Pattern, pages: u64) -> Self {
        assert!(pages > 0, "a sampler over no pages");
        Sampler {
            pattern,
            pages,
            next: 0,
            zipf: Zipf::new(pages, ZIPF_EXPONENT),
        }
    }

    /// The index of the next page.
    pub(crate) fn next(&mut self, rng: &mut Rng) -> u64 {
        match self.pattern {
            Pattern::Seq => {
                let page = self.next;
                self.next = if page + 1 == self.pages { 0 } else { page + 1 };
                page
            }
            Pattern::Uniform => rng.below(self.pages),
            Pattern::Zipf => scramble(self.zipf.rank(rng) - 1, self.pages),
        }
    }
}

/// A bijection of `0..bound` that leaves no neighbours together: mixes within the next power of two
/// and walks on while the result is out of bounds.
fn scramble(value: u64, bound: u64) -> u64 {
    let bits = u64::BITS - (bound - 1).leading_zeros();
    if bits < 2 {
        return value;
    }
    let mask = (1u64 << bits) - 1;
    let shift = bits / 2;
    let mut x = value;
    loop {
        for multiplier in [
            0xd6e8_feb8_6659_fd93,
            0xa076_1d64_78bd_642f,
            0xe703_7ed1_a0b4_28db_u64,
        ] {
            x = (x ^ (x >> shift)).wrapping_mul(multiplier) & mask;
        }
        x ^= x >> shift;
        if x < bound {
            return x;
        }
    }
}

/// Ranks `1..=n` with probability proportional to `rank^-s`, by rejection inversion
/// (Hörmann and Derflinger 1996), which needs no table.
struct Zipf {
    n: f64,
    s: f64,
    h_first: f64,
    h_last: f64,
    accept: f64,
}

impl Zipf {
    fn new(n: u64, s: f64) -> Self {
        let mut zipf = Zipf {
            n: n as f64,
            s,
            h_first: 0.0,
            h_last: 0.0,
            accept: 0.0,
        };
        zipf.h_first = zipf.h(1.5) - 1.0;
        zipf.h_last = zipf.h(zipf.n + 0.5);
        zipf.accept = 2.0 - zipf.h_inverse(zipf.h(2.5) - 2f64.powf(-s));
        zipf
    }

    /// Antiderivative of `x^-s`, for `s != 1`.
    fn h(&self, x: f64) -> f64 {
        (x.powf(1.0 - self.s) - 1.0) / (1.0 - self.s)
    }

    fn h_inverse(&self, y: f64) -> f64 {
        (1.0 + y * (1.0 - self.s)).powf(1.0 / (1.0 - self.s))
    }

    fn rank(&self, rng: &mut Rng) -> u64 {
        loop {
            let u = self.h_last + rng.unit() * (self.h_first - self.h_last);
            let x = self.h_inverse(u);
            let k = (x + 0.5).floor().clamp(1.0, self.n);
            if k - x <= self.accept || u >= self.h(k + 0.5) - k.powf(-self.s) {
                return k as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zipf_draws_the_exact_probabilities() {
        let (n, draws) = (1000u64, 1_000_000);
        let mut counts = vec![0u64; n as usize + 1];
        let (zipf, mut rng) = (Zipf::new(n, ZIPF_EXPONENT), Rng::new(3));
        for _ in 0..draws {
            counts[zipf.rank(&mut rng) as usize] += 1;
        }
        let total: f64 = (1..=n).map(|k| (k as f64).powf(-ZIPF_EXPONENT)).sum();
        for rank in [1usize, 2, 3, 10, 100] {
            let expected = f64::from(draws) * (rank as f64).powf(-ZIPF_EXPONENT) / total;
            let error = (counts[rank] as f64 - expected).abs();
            assert!(
                error < 5.0 * expected.sqrt(),
                "rank {rank}: {} of {expected}",
                counts[rank]
            );
        }
        assert_eq!(counts[0], 0);
    }

    #[test]
    fn scrambling_is_a_bijection_without_neighbours() {
        for bound in [1u64, 2, 3, 64, 1000, 131_072] {
            let mut seen = vec![false; bound as usize];
            for value in 0..bound {
                let page = scramble(value, bound) as usize;
                assert!(!seen[page], "bound {bound}, value {value}");
                seen[page] = true;
            }
        }
        let near =
            (0..1000).filter(|&v| scramble(v, 131_072).abs_diff(scramble(v + 1, 131_072)) < 16);
        assert!(near.count() < 10);
    }

    #[test]
    fn sweeps_wrap_and_uniform_stays_in_bounds() {
        let mut rng = Rng::new(1);
        let mut sampler = Sampler::new(Pattern::Seq, 3);
        let order: Vec<u64> = (0..7).map(|_| sampler.next(&mut rng)).collect();
        assert_eq!(order, [0, 1, 2, 0, 1, 2, 0]);
        let mut sampler = Sampler::new(Pattern::Uniform, 10);
        assert!((0..1000).all(|_| sampler.next(&mut rng) < 10));
    }
}
