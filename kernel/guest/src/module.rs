//! Loading and unloading the module, and whether its counters agree with each other.

use std::collections::BTreeMap;

use crate::sys;

const FILE: &str = "/zcache.ko";
const PARAMETERS: &str = "/sys/module/zcache/parameters";

pub(crate) fn load(parameters: &str) -> Result<(), String> {
    sys::load_module(FILE, parameters)
}

pub(crate) fn is_loaded() -> bool {
    std::path::Path::new(PARAMETERS).exists()
}

pub(crate) fn set(name: &str, value: &str) -> Result<(), String> {
    sys::write(&format!("{PARAMETERS}/{name}"), value)
}

/// Frames of tables that an empty store may have: the first buckets of three indices, in each of its shards.
const TABLES_MAX: u64 = 3 * 16;

/// Drains the module and takes it away.
pub(crate) fn unload() -> Result<(), String> {
    set("active", "N")?;
    let left = counters()?;
    let frames = left["block_frames"] + left["stock_frames"];
    let tables = left["metadata_frames"];
    if left["entries"] != 0 || frames != 0 || tables > TABLES_MAX {
        return Err(format!(
            "{} pages in {frames} frames are left after the drain, and {tables} frames of tables",
            left["entries"]
        ));
    }
    sys::unload_module("zcache")
}

pub(crate) fn counters() -> Result<BTreeMap<String, u64>, String> {
    let text = std::fs::read_to_string("/sys/kernel/debug/zcache/all")
        .map_err(|error| format!("counters: {error}"))?;
    Ok(text
        .lines()
        .filter_map(|line| {
            let (name, value) = line.split_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        })
        .collect())
}

/// Checks the counters and the store itself, where nothing was damaged. At rest: nothing may be on its way.
pub(crate) fn check() -> Result<(), String> {
    let c = counters()?;
    match ["damaged", "repairs", "lost_pages"]
        .iter()
        .find(|name| c[**name] != 0)
    {
        Some(name) => Err(format!("counters: {name}: {c:?}")),
        None => check_sums(),
    }
}

/// Checks the equations of the counters and the store itself.
pub(crate) fn check_sums() -> Result<(), String> {
    let c = counters()?;
    let equations = [
        (
            "stored",
            c["stored"],
            c["entries"]
                + c["overwritten"]
                + c["put_to_flush"]
                + c["flushed"]
                + c["evicted_eph_zpages"]
                + c["lost_pages"],
        ),
        (
            "entries",
            c["entries"],
            c["same_filled_pages"] + c["pers_zpages"] + c["eph_zpages"] + c["lost_entries"],
        ),
        (
            "puts",
            c["puts"],
            c["stored"]
                + c["rejected_no_frames"]
                + c["rejected_no_metadata"]
                + c["rejected_damaged"],
        ),
        (
            "stored by doors",
            c["stored"],
            c["swap_stored"] + c["clean_kept"],
        ),
        (
            "frames",
            c["frames_in_use"],
            c["block_frames"] + c["metadata_frames"] + c["stock_frames"],
        ),
    ];
    for (name, left, right) in equations {
        if left != right {
            return Err(format!("counters: {name}: {left} is not {right}: {c:?}"));
        }
    }
    if c["frames_in_use"] > c["limit_frames"] {
        return Err(format!(
            "{} frames are more than the limit of {}",
            c["frames_in_use"], c["limit_frames"]
        ));
    }
    let valid = std::fs::read_to_string("/sys/kernel/debug/zcache/valid").unwrap_or_default();
    if valid.trim() != "1" {
        return Err("the store is not as it must be: /sys/kernel/debug/zcache/valid".into());
    }
    Ok(())
}
