//! Looks at `--swap` and `--swap-max` before anything starts, to name what the
//! user can change. The engine has the last word when it makes the file.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use zcache_sys::swapfile::is_in_ram;

/// What leaves RAM at least: one block, at its longest.
const BYTES_LEAST: u64 = 32 << 10;

/// `path` is `None` for no swap file and `Some(None)` for one in the default
/// place.
pub(crate) fn check(path: Option<&Option<PathBuf>>, bytes_max: Option<u64>) -> Result<(), String> {
    match (path, bytes_max) {
        (None, Some(_)) => {
            return Err("--swap-max needs a swap file, but --swap is none".into());
        }
        (Some(_), Some(bytes)) if bytes < BYTES_LEAST => {
            return Err(format!(
                "--swap-max {bytes} holds not even one block; give 32K or more, or --swap none"
            ));
        }
        _ => {}
    }
    match path {
        Some(Some(path)) => check_place(path),
        _ => Ok(()),
    }
}

fn check_place(path: &Path) -> Result<(), String> {
    let folder = folder_of(path);
    let problem = match is_in_ram(folder) {
        Ok(false) => return Ok(()),
        Ok(true) => {
            "lies in RAM (tmpfs), where swapping frees nothing; name a place on a disk, or none"
                .to_owned()
        }
        Err(error) => format!("cannot be used ({error}); name a folder that exists, or none"),
    };
    Err(format!(
        "--swap {}: {} {problem}",
        path.display(),
        folder.display()
    ))
}

/// The folder in which the file will be made.
fn folder_of(path: &Path) -> &Path {
    if path.is_dir() || path.as_os_str().as_bytes().ends_with(b"/") {
        return path;
    }
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(path: &str) -> String {
        check(Some(&Some(path.into())), None).expect_err(path)
    }

    #[test]
    fn a_place_in_ram_is_refused() {
        for path in ["/dev/shm", "/dev/shm/", "/dev/shm/swap"] {
            let said = refusal(path);
            assert!(said.contains(path) && said.contains("RAM"), "{said}");
        }
    }

    #[test]
    fn a_missing_folder_is_named() {
        for path in ["/nonexistent/", "/nonexistent/swap"] {
            let said = refusal(path);
            assert!(said.contains("/nonexistent"), "{said}");
            assert!(said.contains("folder that exists"), "{said}");
        }
    }

    #[test]
    fn folders_and_files_on_a_disk_are_let_pass() {
        for path in ["/", "swap", "./swap", "/etc/passwd"] {
            assert_eq!(check(Some(&Some(path.into())), None), Ok(()), "{path}");
        }
        assert_eq!(check(Some(&None), Some(32 << 10)), Ok(()));
        assert_eq!(check(None, None), Ok(()));
    }

    #[test]
    fn a_limit_that_means_nothing_is_refused() {
        assert!(check(None, Some(1 << 30)).is_err());
        assert!(check(Some(&None), Some(0)).is_err());
        assert!(check(Some(&None), Some(16 << 10)).is_err());
    }
}
