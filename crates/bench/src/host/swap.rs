//! Swap for the peers: a zram device and a file on disk.
//!
//! Both are turned on with the highest priority, so that other swap of the machine is not used before
//! they are full. They are made larger than the data, so they are never full.

use std::path::{Path, PathBuf};

use super::undo::Entry;
use super::{HostError, Undo, files};

const PRIORITY: &str = "32767";
const ZRAM_CONTROL: &str = "/sys/class/zram-control";
const MM_STAT_MEM_USED: usize = 2;
const MM_STAT_MEM_USED_MAX: usize = 4;

/// A zram device.
pub(crate) struct Zram {
    number: u32,
}

impl Zram {
    /// Adds a device with the codec lz4 and swaps to it.
    ///
    /// # Errors
    /// As [`Zram::add`].
    pub(crate) fn start(undo: &mut Undo, bytes: u64) -> Result<Zram, HostError> {
        let zram = Zram::add(undo, bytes, "lz4")?;
        turn_on(undo, &zram.device())?;
        Ok(zram)
    }

    /// Adds a device with a codec.
    ///
    /// # Errors
    /// [`HostError::Missing`] when the kernel has no zram; others when it refuses a setting.
    pub(crate) fn add(undo: &mut Undo, bytes: u64, codec: &str) -> Result<Zram, HostError> {
        let control = Path::new(ZRAM_CONTROL);
        if !control.exists() {
            // Where zram is a module, loading it makes the control directory; where it is missing,
            // the check after it says so.
            let _ = files::command("modprobe", &["zram"]);
        }
        if !control.exists() {
            return Err(HostError::Missing {
                what: "this kernel has no zram (CONFIG_ZRAM)",
            });
        }
        let number = files::read_number(&control.join("hot_add"))? as u32;
        undo.note(Entry::Zram(number))?;
        let zram = Zram { number };
        files::write(&zram.sysfs().join("comp_algorithm"), codec)?;
        files::write(&zram.sysfs().join("disksize"), &bytes.to_string())?;
        Ok(zram)
    }

    /// The block device.
    pub(crate) fn device(&self) -> PathBuf {
        PathBuf::from(format!("/dev/zram{}", self.number))
    }

    fn sysfs(&self) -> PathBuf {
        PathBuf::from(format!("/sys/block/zram{}", self.number))
    }

    /// The most bytes of RAM that the device's pool has used, its allocator's overhead included.
    ///
    /// # Errors
    /// [`HostError::File`] or [`HostError::Format`].
    pub(crate) fn pool_bytes_peak(&self) -> Result<u64, HostError> {
        self.mm_stat(MM_STAT_MEM_USED_MAX)
    }

    /// The bytes of RAM that its pool uses now, its allocator's overhead included; the table of its
    /// pages is not.
    ///
    /// # Errors
    /// [`HostError::File`] or [`HostError::Format`].
    pub(crate) fn pool_bytes(&self) -> Result<u64, HostError> {
        self.mm_stat(MM_STAT_MEM_USED)
    }

    fn mm_stat(&self, field: usize) -> Result<u64, HostError> {
        let path = self.sysfs().join("mm_stat");
        let content = files::read(&path)?;
        let field = content.split_whitespace().nth(field);
        let bytes = field.and_then(|number| number.parse().ok());
        bytes.ok_or(HostError::Format { path, content })
    }
}

/// Removes a zram device; one that is gone is a success.
pub(super) fn remove_zram(number: u32) -> Result<(), HostError> {
    if !Path::new(&format!("/sys/block/zram{number}")).exists() {
        return Ok(());
    }
    files::write(
        &Path::new(ZRAM_CONTROL).join("hot_remove"),
        &number.to_string(),
    )
}

/// A swap file on disk, made once and turned on for each run.
pub(crate) struct SwapFile {
    path: PathBuf,
}

impl SwapFile {
    /// Makes a file of `bytes` bytes in a directory, its blocks allocated.
    ///
    /// # Errors
    /// [`HostError::Command`] when the disk is full or the filesystem cannot hold a swap file.
    pub(crate) fn create(
        undo: &mut Undo,
        directory: &Path,
        bytes: u64,
    ) -> Result<SwapFile, HostError> {
        let path = directory.join("zcache-bench.swap");
        undo.note(Entry::File(path.clone()))?;
        let text = path.display().to_string();
        files::command("fallocate", &["-l", &bytes.to_string(), &text])?;
        files::command("chmod", &["600", &text])?;
        Ok(SwapFile { path })
    }

    /// Swaps to the file until the journal is undone to before this.
    ///
    /// # Errors
    /// [`HostError::Command`] when the kernel refuses the file.
    pub(crate) fn start(&self, undo: &mut Undo) -> Result<(), HostError> {
        turn_on(undo, &self.path)
    }
}

fn turn_on(undo: &mut Undo, path: &Path) -> Result<(), HostError> {
    let text = path.display().to_string();
    files::command("mkswap", &[&text])?;
    undo.note(Entry::Swap(path.to_owned()))?;
    files::command("swapon", &["--priority", PRIORITY, &text])?;
    Ok(())
}

/// Stops swapping to a device or file; one that is not in use is a success.
pub(super) fn turn_off(path: &Path) -> Result<(), HostError> {
    let swaps = files::read(Path::new("/proc/swaps"))?;
    let text = path.display().to_string();
    if !swaps
        .lines()
        .any(|line| line.split_whitespace().next() == Some(&text))
    {
        return Ok(());
    }
    files::command("swapoff", &[&text])?;
    Ok(())
}
