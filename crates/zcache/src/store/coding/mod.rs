//! How pages become zpages in this store: the codec of fresh pages, dictionaries and the second speed.
//!
//! Stage on the data path: between the client's page and the core's zpage.
//!
//! - `fresh`: the codec of fresh pages, which may change
//! - `costs`: what each codec costs here and now
//! - `tags`: what is kept beside the bytes of a zpage
//! - `dictionaries`: which dictionary a zpage was made with
//! - `training`: when a dictionary is trained, and whether it is taken
//! - `cold`: pages that stay are compressed harder

pub(in crate::store) mod cold;
pub(in crate::store) mod costs;
pub(in crate::store) mod dictionaries;
pub(in crate::store) mod fresh;
pub(in crate::store) mod tags;
pub(in crate::store) mod training;
