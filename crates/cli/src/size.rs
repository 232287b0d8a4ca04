//! Sizes on the command line: a number and a power of 1024.

/// Reads `512M`, `2G`, `1.5GiB`, `65536` as bytes.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let wrong = || {
        format!("'{text}' is no size; write a number and K, M, G or T, for example 512M or 1.5G")
    };
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(wrong()),
    };
    let bytes = number * (1u64 << shift) as f64;
    if !(0.0..(1u64 << 60) as f64).contains(&bytes) {
        return Err(format!("'{text}' is more than any machine has"));
    }
    Ok(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, bytes) in [
            ("512M", 512 << 20),
            ("2G", 2 << 30),
            ("1.5GiB", 3 << 29),
            ("65536", 65536),
            ("4k", 4096),
            ("1T", 1 << 40),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused_with_an_example() {
        for text in ["", "M", "12X", "-5M", "1.2.3G", "99999999T"] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(text), "{error}");
        }
    }
}
