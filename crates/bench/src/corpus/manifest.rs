//! What a corpus consists of, as `manifest.json` in its folder says.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::host::{HostError, Machine};

const NAME: &str = "manifest.json";

/// A corpus.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// Changes when a field changes its meaning.
    pub(crate) format: u32,
    /// Which pages of each program were drawn.
    pub(crate) seed: u64,
    /// Where it was made.
    pub(crate) machine: Machine,
    /// One for each program.
    pub(crate) sources: Vec<Entry>,
}

/// The pages of one program.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// What the program is called here.
    pub(crate) name: String,
    /// Its own word on its version.
    pub(crate) version: String,
    /// What it did.
    pub(crate) work: String,
    /// When its pages were taken.
    pub(crate) moment: String,
    /// The file with its pages, in the folder of the manifest.
    pub(crate) file: String,
    /// How many these are.
    pub(crate) pages: u64,
    /// How many anonymous pages it had in RAM.
    pub(crate) resident_pages: u64,
}

impl Manifest {
    /// Writes the manifest into a corpus's folder.
    ///
    /// # Errors
    /// [`HostError::File`].
    pub(crate) fn write(&self, folder: &Path) -> Result<(), HostError> {
        let path = folder.join(NAME);
        let text = serde_json::to_string_pretty(self).map_err(|error| HostError::Format {
            path: path.clone(),
            content: error.to_string(),
        })?;
        std::fs::write(&path, text + "\n").map_err(HostError::file(&path))
    }

    /// Reads the manifest of a corpus.
    ///
    /// # Errors
    /// [`HostError::File`] when there is none, [`HostError::Format`] when it is none.
    pub(crate) fn read(folder: &Path) -> Result<Manifest, HostError> {
        let path = folder.join(NAME);
        let content = std::fs::read_to_string(&path).map_err(HostError::file(&path))?;
        serde_json::from_str(&content).map_err(|error| HostError::Format {
            path,
            content: error.to_string(),
        })
    }
}

impl fmt::Display for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| program | version | work | pages taken | of resident |"
        )?;
        writeln!(f, "|---|---|---|--:|--:|")?;
        for entry in &self.sources {
            writeln!(
                f,
                "| {} | {} | {}, {} | {} | {} |",
                entry.name,
                entry.version,
                entry.work,
                entry.moment,
                entry.pages,
                entry.resident_pages
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_comes_back_as_written() {
        let folder = std::env::temp_dir().join(format!("zcache-bench-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let entry = Entry {
            name: "python3".into(),
            version: "Python 3".into(),
            work: "works".into(),
            moment: "when ready".into(),
            file: "python3.pages".into(),
            pages: 3,
            resident_pages: 4,
        };
        let manifest = Manifest {
            format: 1,
            seed: 5,
            machine: Machine::read(),
            sources: vec![entry],
        };
        manifest.write(&folder).expect("it is written");
        let read = Manifest::read(&folder).expect("it is read");
        assert_eq!((read.seed, read.sources[0].resident_pages), (5, 4));
        assert_eq!(read.to_string(), manifest.to_string());
        std::fs::remove_dir_all(&folder).expect("it is there");
        assert!(matches!(
            Manifest::read(&folder),
            Err(HostError::File { .. })
        ));
    }
}
