//! What help texts say of codecs.

use zcache_pager::{Codec, CodecChoice};

/// Help of the option that chooses one.
pub(crate) fn help() -> String {
    let all = Codec::ALL.map(|codec| format!("{codec} ({})", codec.about()));
    format!(
        "How pages are compressed: {} ({}, and {} while pages come and go so fast that its speed \
         is worth more), or by one for all: {}",
        CodecChoice::Auto,
        Codec::DENSE,
        Codec::FAST,
        all.join(", ")
    )
}
