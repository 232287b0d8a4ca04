//! Numbers of records, and how chains and buckets keep them.
//!
//! Stage on the data path: the vocabulary of the tables.
//!
//! Does not: say whether there is such a record.

use super::table::Token;
use crate::ids::{BlockToken, EntryToken};

macro_rules! tokens {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, PartialEq, Eq, Debug)]
            pub(crate) struct $name(pub(crate) u32);

            impl Token for $name {
                fn of(number: u32) -> Self {
                    $name(number)
                }

                fn number(self) -> u32 {
                    self.0
                }
            }
        )*
    };
}

tokens! {
    /// An object.
    ObjectToken,
    /// A pool.
    PoolToken,
    /// The entry of a page with a handle.
    HandleNumber,
    /// The entry of a page with a key.
    KeyedNumber,
}

impl Token for BlockToken {
    fn of(number: u32) -> Self {
        BlockToken(number)
    }

    fn number(self) -> u32 {
        self.0
    }
}

/// A token as a bucket and a chain keep it, below 2^31 - 1.
pub(crate) trait Link: Copy + Eq {
    fn from_link(link: u32) -> Self;
    fn to_link(self) -> u32;
}

macro_rules! links {
    ($($name:ident)*) => {
        $(impl Link for $name {
            fn from_link(link: u32) -> Self {
                $name(link)
            }

            fn to_link(self) -> u32 {
                self.0
            }
        })*
    };
}

links!(EntryToken ObjectToken PoolToken);
