//! Sizes and lists as a command line gives them.
//!
//! Not on the data path. `parse(format(n)) == n` for every multiple of 1 MiB.

use std::fmt;
use std::str::FromStr;

/// Bytes in one mebibyte.
pub(crate) const MIB: u64 = 1 << 20;

/// A number of bytes that prints and parses with a binary suffix (`512M`, `2G`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Size(pub(crate) u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || format!("{text:?} is not a size such as 4096, 64K, 512M or 2G");
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let shift = match text[digits.len()..].to_ascii_uppercase().as_str() {
            "" | "B" => 0,
            "K" | "KIB" => 10,
            "M" | "MIB" => 20,
            "G" | "GIB" => 30,
            _ => return Err(error()),
        };
        let number: u64 = digits.parse().map_err(|_| error())?;
        let bytes = number.checked_mul(1 << shift).ok_or_else(error)?;
        if bytes == 0 {
            return Err(error());
        }
        Ok(Size(bytes))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            n if n % (1 << 30) == 0 => write!(f, "{}G", n >> 30),
            n if n % MIB == 0 => write!(f, "{}M", n >> 20),
            n if n % 1024 == 0 => write!(f, "{}K", n >> 10),
            n => write!(f, "{n}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_come_back_as_written() {
        for text in ["1M", "512M", "2G", "12K", "4097"] {
            assert_eq!(text.parse::<Size>().unwrap().to_string(), text);
        }
        assert_eq!("2GiB".parse::<Size>().unwrap(), Size(2 << 30));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "0", "M", "-1M", "1.5G", "3X", "99999999999G"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }
}
