//! Which addresses may be asked, whoever names them.
//!
//! Off the data path: asked once for each node. A server may name others: by a redirect,
//! and in a cluster's map.

use crate::endpoint::Address;

/// See the module's description.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reach {
    /// Other machines in plaintext.
    pub(crate) plaintext: bool,
    /// Other machines at all: not where what they keep is for this one's eyes alone
    /// and is not sealed.
    pub(crate) off_host: bool,
}

impl Reach {
    pub(crate) fn allows(self, address: &Address) -> bool {
        (self.plaintext || !address.is_plaintext_off_host())
            && (self.off_host || !address.is_off_host())
    }
}
