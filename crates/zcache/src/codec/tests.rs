use super::*;

#[test]
fn names_parse_and_errors_list_them() {
    for codec in Codec::ALL {
        assert_eq!(codec.name().parse::<Codec>(), Ok(codec));
    }
    let error = "lz5".parse::<Codec>().unwrap_err().to_string();
    assert_eq!(error, "unknown codec \"lz5\"; known are: lz4, zstd, raw");
}
