//! The borrowers' password: made once, kept in a file that its owner alone reads.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};

use crate::error::LendError;

/// Shorter ones could be guessed.
const LENGTH_MIN: usize = 16;

/// A password. Shown by no `Debug`.
pub(crate) struct Password(String);

/// Those of everybody who comes from outside.
pub(crate) struct Passwords {
    pub(crate) borrower: Password,
    /// Where a replica has what is kept too.
    pub(crate) replica: Option<Password>,
}

impl Password {
    /// A new one of 256 random bits.
    pub(crate) fn new() -> Result<Password, LendError> {
        let mut bytes = [0; 32];
        let filled = SystemRandom::new().fill(&mut bytes);
        filled.map_err(|_| LendError::NoRandom)?;
        Ok(Password(hexadecimal(&bytes)))
    }

    /// The first line of the file; a new one in a new file if there is none.
    pub(crate) fn at(path: &Path) -> Result<Password, LendError> {
        let failed = |error| LendError::File(path.to_owned(), error);
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let password = Password::new()?;
                write_private(path, &format!("{}\n", password.0)).map_err(failed)?;
                Ok(password)
            }
            Err(error) => Err(failed(error)),
            Ok(about) if about.permissions().mode() & 0o077 != 0 => Err(LendError::Secret(
                path.to_owned(),
                "others may read this password: remove the file, and a new one is made",
            )),
            Ok(_) => {
                let text = fs::read_to_string(path).map_err(failed)?;
                let line = text.lines().next().unwrap_or_default();
                let is_plain = line.bytes().all(|byte| byte.is_ascii_graphic());
                match line.len() >= LENGTH_MIN && is_plain {
                    true => Ok(Password(line.to_owned())),
                    false => Err(LendError::Secret(
                        path.to_owned(),
                        "its first line is no password of 16 characters or more without blanks",
                    )),
                }
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn known(text: &str) -> Password {
        Password(text.to_owned())
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }

    /// As an access list has it.
    pub(crate) fn sha256(&self) -> String {
        hexadecimal(digest(&SHA256, self.0.as_bytes()).as_ref())
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Makes a file that its owner alone can read, also where there was one.
pub(crate) fn write_private(path: &Path, text: &str) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_made_once_and_others_cannot_read_it() {
        let folder =
            std::env::temp_dir().join(format!("zcache-lend-password-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("password");
        let made = Password::at(&path).unwrap();
        assert_eq!(made.reveal().len(), 64);
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(Password::at(&path).unwrap().reveal(), made.reveal());
        assert_ne!(Password::new().unwrap().reveal(), made.reveal());
        fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        let refused = Password::at(&path).err().unwrap().to_string();
        assert!(refused.contains("others may read"), "{refused}");
        write_private(&path, "short\n").unwrap();
        assert!(Password::at(&path).is_err());
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn the_hash_is_sha_256() {
        let hash = Password::known("abc").sha256();
        assert_eq!(
            hash,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
