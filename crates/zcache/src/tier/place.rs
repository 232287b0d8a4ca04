//! Chooses and opens the swap file that a client's [`SwapConfig`] asks for.

use std::path::{Path, PathBuf};

use zcache_sys::swapfile::{self, SwapFileError};

use super::disk::DiskTier;
use crate::config::SwapConfig;
use crate::error::OpenError;

/// A tier and what to call it in messages.
type Named = (DiskTier, String);

/// Opens the swap file.
///
/// # Errors
/// [`OpenError::Swap`], [`OpenError::SwapRefused`] or
/// [`OpenError::NoSwapDirectory`].
pub(crate) fn open(config: &SwapConfig) -> Result<Named, OpenError> {
    match &config.path {
        Some(path) => open_at(path),
        None => open_default(default_directories()),
    }
}

fn open_at(path: &Path) -> Result<Named, OpenError> {
    let name = match path.is_dir() {
        true => format!("a nameless file in {}", path.display()),
        false => path.display().to_string(),
    };
    let open = |direct| {
        swapfile::open(path, direct).map_err(|error| match error {
            SwapFileError::Io(source) => OpenError::Swap {
                path: path.to_owned(),
                source,
            },
            SwapFileError::Refused(what) => OpenError::SwapRefused {
                path: path.to_owned(),
                what,
            },
        })
    };
    let tier = DiskTier::new(open(true)?);
    if tier.works() {
        return Ok((tier, name));
    }
    // Some filesystems accept O_DIRECT and then refuse every transfer.
    Ok((DiskTier::new(open(false)?), name))
}

fn default_directories() -> Vec<PathBuf> {
    let mut directories = vec![PathBuf::from("/var/tmp")];
    directories.extend(std::env::current_dir());
    directories.extend(std::env::var_os("HOME").map(PathBuf::from));
    directories
}

fn open_default(directories: Vec<PathBuf>) -> Result<Named, OpenError> {
    directories
        .iter()
        .filter(|directory| !swapfile::is_in_ram(directory).unwrap_or(true))
        .find_map(|directory| open_at(directory).ok())
        .ok_or(OpenError::NoSwapDirectory { tried: directories })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ram_and_unwritable_places_are_passed_over() {
        let bad = vec![PathBuf::from("/dev/shm"), PathBuf::from("/proc")];
        let Err(error) = open_default(bad.clone()) else {
            panic!("made a swap file in RAM");
        };
        assert_eq!(
            error.to_string(),
            "no directory for the swap file; tried: /dev/shm /proc"
        );
        let mut good = bad;
        let directory = env!("CARGO_MANIFEST_DIR");
        good.push(PathBuf::from(directory));
        let (_, name) = open_default(good).unwrap();
        assert_eq!(name, format!("a nameless file in {directory}"));
    }

    #[test]
    fn a_refusal_names_the_path_and_the_reason() {
        let path = Some(PathBuf::from("/dev/null"));
        let Err(error) = open(&SwapConfig {
            path,
            bytes_max: None,
        }) else {
            panic!("swapping to a device");
        };
        let text = error.to_string();
        assert!(
            text.contains("/dev/null") && text.contains("neither"),
            "{text}"
        );
    }
}
