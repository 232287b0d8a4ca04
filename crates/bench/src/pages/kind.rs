//! Kinds of pages, each made from its number.
//!
//! A page begins with bytes that no codec shrinks and ends with zeros, so that the first decide how long its zpage is.

use zcache::{PAGE_SIZE, Page, PoolKind};

use crate::workload::Rng;

/// What pages of one row have in common.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Incompressible,
    ThreeQuarters,
    Half,
    Fifth,
    Mixed,
    SamePersistent,
    SameEphemeral,
}

impl Kind {
    pub(super) const ALL: [Kind; 7] = [
        Kind::Incompressible,
        Kind::ThreeQuarters,
        Kind::Half,
        Kind::Fifth,
        Kind::Mixed,
        Kind::SamePersistent,
        Kind::SameEphemeral,
    ];

    /// Those that are measured in a tier too.
    pub(super) const IN_TIER: [Kind; 2] = [Kind::Incompressible, Kind::Mixed];

    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Incompressible => "incompressible",
            Kind::ThreeQuarters => "three quarters",
            Kind::Half => "half",
            Kind::Fifth => "a fifth",
            Kind::Mixed => "mixed",
            Kind::SamePersistent => "same-filled",
            Kind::SameEphemeral => "same-filled, ephemeral",
        }
    }

    /// The kind of the pools that such pages are put into.
    pub(super) fn pool(self) -> PoolKind {
        match self {
            Kind::SameEphemeral => PoolKind::Ephemeral,
            _ => PoolKind::Persistent,
        }
    }

    /// The page of a number.
    pub(super) fn page(self, number: u32) -> Page {
        let mut rng = Rng::new(u64::from(number));
        let noise_bytes = match self {
            Kind::Incompressible => PAGE_SIZE,
            Kind::ThreeQuarters => PAGE_SIZE * 3 / 4,
            Kind::Half => PAGE_SIZE / 2,
            Kind::Fifth => PAGE_SIZE / 5,
            Kind::Mixed => mixed(&mut rng),
            Kind::SamePersistent | Kind::SameEphemeral => 0,
        };
        let mut page = [0; PAGE_SIZE];
        for word in page[..noise_bytes].chunks_mut(8) {
            word.copy_from_slice(&rng.next().to_le_bytes()[..word.len()]);
        }
        page
    }
}

/// A length as zpages of real programs have under a fast codec: mostly small ones, a broad middle, a few that do not shrink.
/// The core's tests draw from the same.
fn mixed(rng: &mut Rng) -> usize {
    let len = match rng.below(100) {
        0..20 => 64 + rng.below(600),
        20..55 => 500 + rng.below(1200),
        55..85 => 1400 + rng.below(1400),
        85..99 => 2600 + rng.below(1200),
        _ => PAGE_SIZE as u64,
    };
    len as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use zcache::codec::{self, Codec};

    #[test]
    fn zpages_are_as_long_as_the_names_say() {
        let len = |kind: Kind| codec::encode(Codec::FAST, &kind.page(7), |zpage| zpage.bytes.len());
        assert_eq!(len(Kind::Incompressible), PAGE_SIZE);
        for (kind, part) in [
            (Kind::ThreeQuarters, 0.75),
            (Kind::Half, 0.5),
            (Kind::Fifth, 0.2),
        ] {
            let found = len(kind) as f64 / PAGE_SIZE as f64;
            assert!((part..part + 0.02).contains(&found), "{kind:?}: {found}");
        }
        assert_eq!(len(Kind::SamePersistent), 8);
        let lens: std::collections::BTreeSet<_> = (0..100)
            .map(|number| Kind::Mixed.page(number))
            .map(|page| codec::encode(Codec::FAST, &page, |zpage| zpage.bytes.len()))
            .collect();
        assert!(lens.len() > 80, "{lens:?}");
    }
}
