//! What `zcache lend` and its borrowers agree on.
//!
//! Off the data path. A lender that wants its RAM back puts a *notice* on its
//! server: borrowers give it no more, and write what it has anew at others.

/// What a borrower sends, as an access list has it; on keys of its prefix.
pub const COMMANDS: &str =
    "+get +set +getrange +unlink +expire +wait +ping +info +cluster|slots +asking";

/// The key of the notice, among keys that begin with this prefix.
#[must_use]
pub fn notice(prefix: &str) -> String {
    format!("{prefix}:lender:leaves")
}

/// Whether a key is a segment's, which somebody may need: not the notice, nor
/// what borrowers try their rights and mark their servers with.
#[must_use]
pub fn is_segment(key: &str) -> bool {
    let last = key.rsplit(':').next().unwrap_or_default();
    u64::from_str_radix(last, 16).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::{Keys, SegmentId};

    #[test]
    fn segments_are_told_from_what_is_no_loss() {
        let keys = Keys::new("zc", "host", 7);
        for id in [0, 0xdead, u64::MAX - 1] {
            assert!(is_segment(&keys.segment(3, SegmentId(id))));
        }
        for other in [keys.marker(3), keys.trial(3), notice("zc")] {
            assert!(!is_segment(&other), "{other}");
        }
    }
}
