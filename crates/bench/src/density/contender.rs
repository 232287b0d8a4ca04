//! Who is compared.

use std::fmt;
use std::str::FromStr;

use zcache::{Allocator, Codec, CodecChoice};

use super::{Corpus, Options, Run, zcache_store, zram, zswap};
use crate::host::{HostError, Undo};

/// Codecs of zram that are compared.
const ZRAM_CODECS: [&str; 2] = ["lz4", "lzo-rle"];

/// How far zcache goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// The codec alone.
    Plain,
    /// With dictionaries, trained on the pages as they come.
    Trained,
    /// And after the cold pages were compressed harder.
    Cold,
}

/// One contender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contender {
    /// zram with a codec.
    Zram(&'static str),
    /// zswap with what the kernel offers.
    Zswap,
    /// zcache.
    Zcache(CodecChoice, Way, Allocator),
}

impl Contender {
    /// Every contender.
    pub(super) fn all() -> Vec<Contender> {
        let mut all: Vec<Contender> = ZRAM_CODECS.into_iter().map(Contender::Zram).collect();
        all.push(Contender::Zswap);
        for allocator in Allocator::ALL {
            for codec in Codec::shrinking() {
                all.push(Contender::Zcache(codec.into(), Way::Plain, allocator));
            }
        }
        for (codec, way) in [
            (CodecChoice::Auto, Way::Trained),
            (CodecChoice::Auto, Way::Cold),
            (Codec::DENSE.into(), Way::Trained),
            (Codec::DENSE.into(), Way::Cold),
            (Codec::FAST.into(), Way::Cold),
        ] {
            all.push(Contender::Zcache(codec, way, Allocator::Block));
        }
        all
    }

    /// Whether this is one of ours.
    pub(super) fn is_zcache(self) -> bool {
        matches!(self, Contender::Zcache(..))
    }

    /// Stores the corpus, measures, loads it and compares.
    pub(super) fn run(
        self,
        options: &Options,
        corpus: &Corpus,
        undo: &mut Undo,
    ) -> Result<Run, HostError> {
        match self {
            Contender::Zram(codec) => zram::run(codec, corpus, undo),
            Contender::Zswap => zswap::run(options, corpus, undo),
            Contender::Zcache(codec, way, allocator) => {
                zcache_store::run(codec, way, allocator, corpus)
            }
        }
    }
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Contender::Zram(codec) => write!(f, "zram-{codec}"),
            Contender::Zswap => write!(f, "zswap"),
            Contender::Zcache(codec, way, allocator) => {
                let way = match way {
                    Way::Plain => "",
                    Way::Trained => "dict-",
                    Way::Cold => "cold-",
                };
                write!(f, "zcache-{codec}-{way}{}", allocator.name())
            }
        }
    }
}

impl FromStr for Contender {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let all = Contender::all();
        let found = all.iter().find(|contender| contender.to_string() == name);
        found.copied().ok_or_else(|| {
            let known: Vec<String> = all.iter().map(Contender::to_string).collect();
            format!("known are: {}", known.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contenders_are_found_by_their_names() {
        for contender in Contender::all() {
            assert_eq!(contender.to_string().parse(), Ok(contender));
        }
        assert!("zcache".parse::<Contender>().is_err());
    }
}
