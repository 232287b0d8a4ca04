//! zswap's settings and its pool.
//!
//! The other peers run with zswap off, whatever the machine has. The old settings are in the journal
//! before they are changed.

use std::path::{Path, PathBuf};

use super::undo::Entry;
use super::{HostError, Undo, files};

const PARAMETERS: &str = "/sys/module/zswap/parameters";

/// Compressors in the order of preference; a kernel may lack the crypto interface to lz4 although it
/// has lz4 itself.
const COMPRESSORS: [&str; 3] = ["lz4", "lzo-rle", "lzo"];

/// zswap, turned on.
pub(crate) struct Zswap {
    compressor: &'static str,
    pool_bytes_peak: u64,
}

impl Zswap {
    /// Turns zswap on with lz4, or the next best codec that the kernel has, over zsmalloc.
    ///
    /// # Errors
    /// [`HostError::Missing`] when the kernel has no zswap.
    pub(crate) fn start(undo: &mut Undo) -> Result<Zswap, HostError> {
        if !Path::new(PARAMETERS).exists() {
            return Err(HostError::Missing {
                what: "this kernel has no zswap (CONFIG_ZSWAP)",
            });
        }
        if parameter("zpool").exists() {
            change(undo, "zpool", "zsmalloc")?;
        }
        // Before it is turned on the first time, zswap accepts any name and checks it later.
        change(undo, "enabled", "Y")?;
        let found = COMPRESSORS
            .into_iter()
            .find(|name| change(undo, "compressor", name).is_ok());
        let missing = HostError::Missing {
            what: "zswap accepts neither lz4 nor lzo",
        };
        let compressor = found.ok_or(missing)?;
        Ok(Zswap {
            compressor,
            pool_bytes_peak: 0,
        })
    }

    /// The codec in use.
    pub(crate) fn compressor(&self) -> &'static str {
        self.compressor
    }

    /// Reads the size of the pool now; to be called often during a run.
    pub(crate) fn sample(&mut self) {
        if let Ok((pool_bytes, _)) = Zswap::usage() {
            self.pool_bytes_peak = self.pool_bytes_peak.max(pool_bytes);
        }
    }

    /// The bytes of RAM of the pool, and of the pages that it holds.
    ///
    /// # Errors
    /// [`HostError::File`] or [`HostError::Format`].
    pub(crate) fn usage() -> Result<(u64, u64), HostError> {
        let field = |name| files::read_field(Path::new("/proc/meminfo"), name).map(|kib| kib << 10);
        Ok((field("Zswap:")?, field("Zswapped:")?))
    }

    /// The largest size of the pool seen by [`Zswap::sample`].
    pub(crate) fn pool_bytes_peak(&self) -> u64 {
        self.pool_bytes_peak
    }
}

/// Turns zswap off for the peers that have to do without it.
///
/// # Errors
/// [`HostError::File`] when the kernel refuses.
pub(crate) fn turn_off(undo: &mut Undo) -> Result<(), HostError> {
    if parameter("enabled").exists() {
        change(undo, "enabled", "N")
    } else {
        Ok(())
    }
}

fn change(undo: &mut Undo, name: &str, value: &str) -> Result<(), HostError> {
    let path = parameter(name);
    let old = files::read(&path)?;
    if old != value {
        undo.note(Entry::Setting(path.clone(), old))?;
        files::write(&path, value)?;
    }
    Ok(())
}

fn parameter(name: &str) -> PathBuf {
    Path::new(PARAMETERS).join(name)
}
