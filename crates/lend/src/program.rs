//! Which server there is: Valkey before Redis.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::LendError;

/// In the order of preference.
const NAMES: [&str; 2] = ["valkey-server", "redis-server"];

/// The oldest version of either.
const MAJOR_MIN: u32 = 7;

/// A server that is installed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    /// Its name and version, for people.
    pub(crate) version: String,
}

impl Program {
    /// The one that is named, or whichever is installed.
    pub(crate) fn find(named: Option<&Path>) -> Result<Program, LendError> {
        let path = match named {
            Some(path) => path.to_owned(),
            None => {
                let folders = std::env::var_os("PATH").unwrap_or_default();
                let found = NAMES.iter().find_map(|name| {
                    let paths = std::env::split_paths(&folders).map(|folder| folder.join(name));
                    paths.into_iter().find(|path| path.is_file())
                });
                found.ok_or(LendError::NoServer)?
            }
        };
        let mut asked = Command::new(&path);
        let asked = asked.arg("--version").stdin(Stdio::null()).output();
        let asked = asked.map_err(|error| LendError::Start(path.clone(), error))?;
        let said = String::from_utf8_lossy(&asked.stdout);
        let said = said.lines().next().unwrap_or_default().trim();
        match version(said) {
            Some((name, version)) => Ok(Program {
                version: format!("{name} {version}"),
                path,
            }),
            None => Err(LendError::Version(path, format!("it says '{said}'"))),
        }
    }
}

/// Name and version in what `--version` prints, if the version will do.
fn version(said: &str) -> Option<(String, String)> {
    let mut words = said.split_whitespace();
    let name = words
        .next()
        .filter(|name| ["Redis", "Valkey"].contains(name))?;
    let version = words.find_map(|word| word.strip_prefix("v="))?;
    let major: u32 = version.split('.').next()?.parse().ok()?;
    (major >= MAJOR_MIN).then(|| (name.to_owned(), version.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn versions_of_both_are_read() {
        let of = |said| version(said).map(|(name, version)| format!("{name} {version}"));
        let redis =
            "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=ae4d7c";
        assert_eq!(of(redis).as_deref(), Some("Redis 7.0.15"));
        assert_eq!(
            of("Valkey server v=8.1.1 sha=0:0").as_deref(),
            Some("Valkey 8.1.1")
        );
        for bad in [
            "",
            "Redis server v=6.2.1 sha",
            "nginx v=9.0",
            "Redis server",
        ] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}
