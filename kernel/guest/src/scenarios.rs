//! The scenarios, by name, and the processes that they run.

use std::process::{Child, Command};
use std::time::Duration;

use crate::anon::{self, Torture};
use crate::files::{self, Tree};
use crate::{Outcome, bench, damage, dropped, module, sys};

/// Runs one line of the plan: a name, and words that the scenario understands.
pub(crate) fn run(words: &[&str]) -> Outcome {
    let (name, rest) = words.split_first().ok_or("an empty line")?;
    match *name {
        "torture" => torture(rest),
        "files" => tree(rest),
        "swapoff" => swapoff(rest),
        "cycle" => cycle(rest),
        "oom" => oom(rest),
        "inject" => inject(rest),
        "remount" => remount(rest),
        "refuse" => refuse(),
        "zswap" => zswap(),
        "sparse" => sparse(rest),
        "removal" => removal(rest),
        "damage" => damage(rest),
        "bench" => bench::run(rest),
        _ => Err(format!("there is no scenario {name:?}")),
    }
}

/// What a process of a scenario does.
pub(crate) fn work(words: &[String]) -> Outcome {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["torture", share, threads, seconds, forks, seed] => {
            let operations = anon::torture(&Torture {
                pages: sys::meminfo_pages("MemTotal") * number(share)? as usize / 100,
                threads: number(threads)? as usize,
                time: Duration::from_secs(number(seconds)?),
                forks: forks == "forks",
                seed: number(seed)?,
            })?;
            println!("{operations} touches");
            Ok(())
        }
        ["files", share, seconds, seed] => {
            let pages = sys::meminfo_pages("MemTotal") * number(share)? as usize / 100;
            let reads = files::churn(&Tree {
                files: pages / 256,
                pages: 256,
                time: Duration::from_secs(number(seconds)?),
                seed: number(seed)?,
            })?;
            println!("{reads} reads");
            Ok(())
        }
        ["damage", what, pages] => {
            let errors = damage::suffer(what, number(pages)? as usize)?;
            let counters = module::counters()?;
            // Links alone are made good.
            if counters["damaged"] + counters["repairs"] == 0 || errors > counters["damaged"] {
                return Err(format!("{errors} errors: {counters:?}"));
            }
            Ok(())
        }
        ["devour"] => {
            sys::write("/proc/self/oom_score_adj", "1000")?;
            anon::devour()
        }
        ["bench", ..] => bench::work(&words[1..]),
        _ => Err("no such work".into()),
    }
}

pub(crate) fn number(word: &str) -> Result<u64, String> {
    word.parse()
        .map_err(|_| format!("{word:?} is not a number"))
}

pub(crate) fn spawn(words: &[&str]) -> Result<Child, String> {
    Command::new("/init")
        .args(words)
        .spawn()
        .map_err(|error| format!("{words:?}: {error}"))
}

/// How a process ended: well, killed (for want of memory, or by an error of a device), or wrongly.
fn ended(mut child: Child, may_die: bool) -> Outcome {
    let status = child.wait().map_err(|error| error.to_string())?;
    match status.code() {
        Some(0) => Ok(()),
        Some(99) => Err("wrong bytes".into()),
        None if may_die => Ok(()),
        _ => Err(format!("a process ended with {status}")),
    }
}

/// The words `key=value` go to the module, the others are the scenario's.
fn split<'a>(words: &[&'a str]) -> (String, Vec<&'a str>) {
    let (parameters, rest): (Vec<&str>, Vec<&str>) =
        words.iter().partition(|word| word.contains('='));
    (parameters.join(" "), rest)
}

/// Runs `body` with the module loaded, checks the counters, and unloads it.
fn with_module(parameters: &str, body: impl FnOnce() -> Outcome) -> Outcome {
    module::load(parameters)?;
    let result = body();
    let checked = if result.is_ok() {
        module::check()
    } else {
        Ok(())
    };
    let unloaded = module::unload();
    result.and(checked).and(unloaded)
}

/// `torture SHARE THREADS SECONDS forks|none [PARAMETER=VALUE…]`
fn torture(words: &[&str]) -> Outcome {
    let (parameters, rest) = split(words);
    let [share, threads, seconds, forks] = rest[..] else {
        return Err("SHARE THREADS SECONDS forks|none".into());
    };
    with_module(&parameters, || {
        ended(
            spawn(&["torture", share, threads, seconds, forks, "1"])?,
            false,
        )?;
        let counters = module::counters()?;
        println!(
            "stored {} refused {} loaded {} written {} incompressible {} no frames {}",
            counters["swap_stored"],
            counters["swap_refused"],
            counters["swap_loaded"],
            counters["written_pages"],
            counters["incompressible"],
            counters["rejected_no_frames"],
        );
        used(
            &counters,
            &[
                "swap_stored",
                "swap_loaded",
                "written_pages",
                "written_blocks",
            ],
        )
    })
}

/// A scenario that did not do what it is there for proves nothing.
fn used(counters: &std::collections::BTreeMap<String, u64>, names: &[&str]) -> Outcome {
    match names.iter().find(|name| counters[**name] == 0) {
        Some(name) => Err(format!(
            "{name} is 0: the scenario tested nothing: {counters:?}"
        )),
        None => Ok(()),
    }
}

/// `files SHARE SECONDS [PARAMETER=VALUE…]`, with anonymous memory that grows and goes beside it.
fn tree(words: &[&str]) -> Outcome {
    let (parameters, rest) = split(words);
    let [share, seconds] = rest[..] else {
        return Err("SHARE SECONDS".into());
    };
    with_module(&parameters, || {
        let pressure = spawn(&["torture", "60", "1", seconds, "none", "2"])?;
        let result = ended(spawn(&["files", share, seconds, "3"])?, false);
        let pressed = ended(pressure, false);
        let counters = module::counters()?;
        println!(
            "kept {} ignored {} given back {} missed {} invalidated {}",
            counters["clean_kept"],
            counters["nonactive_puts_ignored"],
            counters["clean_gets"],
            counters["clean_missed"],
            counters["clean_invalidated"],
        );
        result.and(pressed)?;
        used(
            &counters,
            &["clean_kept", "clean_gets", "clean_invalidated"],
        )
    })
}

/// `swapoff ROUNDS`: the device goes and comes while its pages are in use.
fn swapoff(words: &[&str]) -> Outcome {
    let rounds = number(words.first().ok_or("ROUNDS")?)?;
    with_module("", || {
        let load = spawn(&[
            "torture",
            "55",
            "2",
            &(rounds * 4).to_string(),
            "forks",
            "4",
        ])?;
        for _ in 0..rounds {
            std::thread::sleep(Duration::from_secs(2));
            // Where RAM cannot hold it all, the device stays.
            if sys::swapoff(sys::SWAP).is_ok() {
                sys::swapon(sys::SWAP)?;
            }
        }
        ended(load, false)
    })
}

/// `cycle ROUNDS`: the module goes and comes while swap and files are in use.
fn cycle(words: &[&str]) -> Outcome {
    let rounds = number(words.first().ok_or("ROUNDS")?)?;
    let seconds = (rounds * 3).to_string();
    let load = spawn(&["torture", "150", "2", &seconds, "forks", "5"])?;
    let tree = spawn(&["files", "30", &seconds, "6"])?;
    let mut result = Ok(());
    for round in 0..rounds {
        result = module::load("").and_then(|()| {
            std::thread::sleep(Duration::from_millis(1500));
            if let Ok(()) = sys::unload_module("zcache") {
                return Err("rmmod did not say that the module is in use".into());
            }
            module::unload()
        });
        if let Err(error) = &mut result {
            *error = format!("round {round}: {error}");
            break;
        }
    }
    let ends = ended(load, false).and(ended(tree, false));
    result.and(ends)
}

/// `oom`: who takes all is killed, and nobody else loses a byte.
fn oom(_: &[&str]) -> Outcome {
    with_module("", || {
        let bystander = spawn(&["torture", "40", "1", "20", "none", "7"])?;
        let mut glutton = spawn(&["devour"])?;
        let status = glutton.wait().map_err(|error| error.to_string())?;
        if status.success() || status.code().is_some() {
            return Err(format!("who takes all ended with {status}"));
        }
        ended(bystander, false)
    })
}

/// More faults than a scenario brings about.
const FAULTS_MAX: u64 = 1_000_000;

/// `inject failslab|fail_page_alloc|fail_make_request`: the kernel's own faults, while memory is tortured.
fn inject(words: &[&str]) -> Outcome {
    let what = *words.first().ok_or("WHAT")?;
    let directory = format!("/sys/kernel/debug/{what}");
    let set = |name: &str, value: &str| sys::write(&format!("{directory}/{name}"), value);
    let device = "/sys/block/vda/make-it-fail";
    // So little that pages go on to the device all the time.
    with_module("max_pool_percent=3", || {
        set("interval", "1")?;
        // Counts down with each fault.
        set("times", &FAULTS_MAX.to_string())?;
        set("verbose", "0")?;
        if what == "fail_page_alloc" {
            set("ignore-gfp-wait", "N")?;
            set("min-order", "0")?;
        }
        if what == "failslab" {
            set("ignore-gfp-wait", "N")?;
        }
        if what == "fail_make_request" {
            sys::write(device, "1")?;
        }
        let load = spawn(&["torture", "110", "2", "20", "none", "8"])?;
        std::thread::sleep(Duration::from_secs(3));
        set("probability", "1")?;
        let result = ended(load, true);
        set("probability", "0")?;
        if what == "fail_make_request" {
            sys::write(device, "0")?;
        }
        let left = std::fs::read_to_string(format!("{directory}/times")).unwrap_or_default();
        let injected = FAULTS_MAX - number(left.trim())?;
        println!("{injected} faults");
        if injected == 0 {
            return Err("no fault was injected".into());
        }
        // Pages that could not be written are still there and can be now.
        result
    })
}

/// `remount ROUNDS`: the file system goes and comes; another one's pages never show.
fn remount(words: &[&str]) -> Outcome {
    let rounds = number(words.first().ok_or("ROUNDS")?)?;
    with_module("admit=all", || {
        for round in 0..rounds {
            ended(spawn(&["files", "60", "4", &round.to_string()])?, false)?;
            sys::umount(sys::TREE)?;
            if module::counters()?["eph_zpages"] != 0 {
                return Err("pages of a file system are left after umount".into());
            }
            sys::mount(sys::DISK, sys::TREE, "ext4")?;
        }
        Ok(())
    })
}

/// `sparse MIB`: a file of holes costs nothing on its disk, and no more in the store than what may be dropped.
fn sparse(words: &[&str]) -> Outcome {
    let mib = number(words.first().ok_or("MIB")?)?;
    let path = format!("{}/holes", sys::TREE);
    with_module("max_pool_percent=1 admit=all", || {
        dropped::read_holes(&path, mib)?;
        dropped::tables_are_small("after holes were read")?;
        let before = module::counters()?;
        used(&before, &["clean_kept", "eph_zpages"])?;
        ended(spawn(&["torture", "120", "1", "3", "none", "12"])?, false)?;
        dropped::tables_are_small("after pressure")?;
        let after = module::counters()?;
        used(&after, &["swap_stored", "evicted_eph_zpages"])?;
        std::fs::remove_file(&path).map_err(|error| format!("{path}: {error}"))?;
        let left = module::counters()?["eph_zpages"];
        if left != 0 {
            return Err(format!("{left} pages of a removed file are left"));
        }
        Ok(())
    })
}

/// `removal FILES PAGES`: what the removal of a cached file costs, alone and beside that many pages.
fn removal(words: &[&str]) -> Outcome {
    let [files, beside] = words else {
        return Err("FILES PAGES".into());
    };
    let (files, beside) = (number(files)?, number(beside)?);
    with_module("admit=all max_pool_percent=60", || {
        dropped::removal(files, beside)
    })
}

/// `damage records|zpages PAGES`: bits of what is stored flip. Where names of pages are lost the module stays until no
/// swap device may have older ones.
fn damage(words: &[&str]) -> Outcome {
    let [what, pages] = words else {
        return Err("records|zpages PAGES".into());
    };
    module::load("max_pool_percent=60")?;
    let result = ended(spawn(&["damage", what, pages])?, false).and_then(|()| {
        let c = module::counters()?;
        println!(
            "damaged {} repairs {} lost {} and {} entries, {} blocks, {} frames",
            c["damaged"],
            c["repairs"],
            c["lost_pages"],
            c["lost_entries"],
            c["lost_blocks"],
            c["lost_frames"]
        );
        module::check_sums()?;
        if (c["lost_pages"] != 0) != module::set("active", "N").is_err() {
            return Err(format!("active=N with lost pages: {c:?}"));
        }
        if c["lost_pages"] != 0 {
            sys::swapoff(sys::SWAP)?;
            sys::swapon(sys::SWAP)?;
        }
        Ok(())
    });
    result.and(module::unload())
}

/// `refuse`: bad parameters are refused with a message, and nothing stays behind.
fn refuse() -> Outcome {
    for parameters in [
        "allocator=best",
        "compressor=none",
        "admit=some",
        "max_pool_percent=0",
        "max_pool_percent=101",
    ] {
        if module::load(parameters).is_ok() {
            return Err(format!("{parameters} was accepted"));
        }
        if module::is_loaded() {
            return Err(format!("{parameters} was refused and the module is there"));
        }
    }
    with_module("active=N", || {
        if module::set("compressor", "none").is_ok() || module::set("active", "maybe").is_ok() {
            return Err("a bad value was accepted".into());
        }
        module::set("active", "Y")?;
        module::set("compressor", "zstd")
    })
}

/// `zswap`: one store at a time, and each takes the other's place once that is empty.
fn zswap() -> Outcome {
    let enabled = "/sys/module/zswap/parameters/enabled";
    sys::write(enabled, "1")?;
    if module::load("").is_ok() {
        return Err("two stores at once".into());
    }
    ended(spawn(&["torture", "130", "2", "5", "none", "9"])?, false)?;
    // Disabled is not empty: this program's own pages may be in it.
    sys::write(enabled, "0")?;
    sys::swapoff(sys::SWAP)?;
    sys::swapon(sys::SWAP)?;
    with_module("", || {
        if sys::write(enabled, "1").is_ok() {
            return Err("zswap was enabled beside zcache".into());
        }
        ended(spawn(&["torture", "130", "2", "5", "none", "10"])?, false)
    })?;
    // And back.
    sys::write(enabled, "1")?;
    ended(spawn(&["torture", "130", "2", "5", "none", "11"])?, false)?;
    sys::write(enabled, "0")
}
