//! What may be answered for a page, and whether an answer is among it.

use zcache::{LoadError, Page};

use crate::complaints::one_more;
use crate::shared::Shared;
use crate::support::pages::page;

/// What is known of a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Expected {
    /// It is there: this one.
    Page(u64),
    /// This one, or none.
    Maybe(u64),
    /// None is there.
    None,
}

/// What a model has learned from an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Learned {
    Hit,
    Miss,
    /// It could not be read, as a fault explains.
    Unreadable,
}

/// # Panics
/// When the answer is wrong.
pub(crate) fn judge(
    shared: &Shared<'_>,
    name: &dyn std::fmt::Debug,
    expected: Expected,
    answer: Result<Option<&Page>, LoadError>,
    since: usize,
) -> Learned {
    let context = || format!("{name:?}, expected {expected:?}, in {:?}", shared.shape);
    let seen = &shared.complaints.seen;
    match answer {
        Ok(Some(got)) => {
            match expected {
                Expected::None => panic!("a page came back that is gone: {}", context()),
                Expected::Page(number) | Expected::Maybe(number) => {
                    assert!(*got == page(number), "wrong bytes: {}", context());
                }
            }
            one_more(&seen.hits);
            Learned::Hit
        }
        Ok(None) => {
            let lost = matches!(expected, Expected::Page(_));
            assert!(!lost, "a page is lost without a word: {}", context());
            one_more(&seen.misses);
            Learned::Miss
        }
        Err(error) => {
            assert_ne!(
                expected,
                Expected::None,
                "{error} for a page that is gone: {}",
                context()
            );
            let tier = shared.tier.as_ref();
            assert!(
                tier.is_some_and(|tier| tier.explains(&error, since)),
                "no fault explains {error:?}: {}",
                context()
            );
            one_more(&seen.unreadable);
            Learned::Unreadable
        }
    }
}
