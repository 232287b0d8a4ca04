//! Files whose pages reclaim has dropped into the cache: what they take there, and what their removal costs.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::time::Instant;

use crate::pages::{self, Mix};
use crate::sys::{self, Region, TREE};
use crate::{Outcome, module};

fn said(what: &str, error: std::io::Error) -> String {
    format!("{what}: {error}")
}

/// Reads a file of holes, each page of it the same word.
pub(crate) fn read_holes(path: &str, mib: u64) -> Outcome {
    let failed = |error| said(path, error);
    let file = File::create_new(path).map_err(failed)?;
    file.set_len(mib << 20).map_err(failed)?;
    let mut buffer = vec![0; 1 << 20];
    let mut file = File::open(path).map_err(failed)?;
    for _ in 0..mib {
        file.read_exact(&mut buffer).map_err(failed)?;
        if buffer.iter().any(|byte| *byte != 0) {
            return Err(format!("{} in a hole", pages::WRONG));
        }
    }
    Ok(())
}

/// Whether tables take less than half of what the store may have.
pub(crate) fn tables_are_small(when: &str) -> Outcome {
    let c = module::counters()?;
    println!(
        "{when}: {} pages, {} frames of tables, {} of {} in use",
        c["entries"], c["metadata_frames"], c["frames_in_use"], c["limit_frames"]
    );
    if c["metadata_frames"] * 2 < c["limit_frames"] {
        Ok(())
    } else {
        Err(format!("{when} tables of file pages take the store: {c:?}"))
    }
}

/// Writes a file and has reclaim drop its pages.
fn drop_file(path: &str, first: u64, count: u64) -> Outcome {
    let failed = |error| said(path, error);
    let region = Region::new(1)?;
    let mut file = File::create_new(path).map_err(failed)?;
    for number in first..first + count {
        let words = region.page(0);
        pages::fill(words, number, Mix::Quarter);
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        file.write_all(&bytes).map_err(failed)?;
    }
    file.sync_all().map_err(failed)?;
    sys::page_out(&File::open(path).map_err(failed)?, count as usize)
}

/// Makes files of a page each, drops the pages into the cache, and removes the files: nanoseconds for each removal.
fn remove_small(files: u64, when: &str) -> Result<f64, String> {
    let path = |number: u64| format!("{TREE}/small{number}");
    let objects = module::counters()?["objects"];
    for number in 0..files {
        drop_file(&path(number), number, 1)?;
    }
    let cached = module::counters()?["objects"].saturating_sub(objects);
    if cached < files / 2 {
        return Err(format!("{when}: {cached} of {files} files are cached"));
    }
    let begun = Instant::now();
    for number in 0..files {
        fs::remove_file(path(number)).map_err(|error| said("remove", error))?;
    }
    let each = begun.elapsed().as_nanos() as f64 / files as f64;
    println!("@@ row removal of a cached file of one page, {when}: {each:.0} instructions");
    Ok(each)
}

/// A removal costs by what it drops, whatever else is stored.
pub(crate) fn removal(files: u64, beside: u64) -> Outcome {
    // What the file system does for the first time is not the cache's.
    remove_small(files, "first")?;
    let empty = remove_small(files, "empty store")?;
    let big = format!("{TREE}/big");
    drop_file(&big, files, beside)?;
    let stored = module::counters()?["eph_zpages"];
    if stored < beside / 2 {
        return Err(format!("{stored} pages of {beside} are cached"));
    }
    let full = remove_small(files, &format!("{stored} pages beside"))?;
    fs::remove_file(&big).map_err(|error| said("remove", error))?;
    if full > empty * 1.5 {
        return Err(format!(
            "a removal costs {full:.0} beside {stored} pages, {empty:.0} alone"
        ));
    }
    Ok(())
}
