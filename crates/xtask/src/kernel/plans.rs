//! Which guests there are, and what each is told to do.

use super::Kind;

/// One boot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Plan {
    pub(super) name: String,
    pub(super) ram_mib: u32,
    pub(super) cpus: u32,
    /// Scenarios, a line each; see kernel/guest/src/scenarios.rs.
    pub(super) lines: Vec<String>,
    /// After this time the guest hangs.
    pub(super) minutes: u64,
    pub(super) cpus_run: CpusRun,
    /// The kernel that it needs, where it is not the one that was asked for.
    pub(super) kind: Kind,
}

/// How the emulator runs a guest's CPUs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum CpusRun {
    /// A thread each.
    AtOnce,
    /// On one thread, for guests whose code is changed under load, as static keys are when the module comes and goes: of
    /// threads one may translate an instruction while another writes it, and keep the old one for good. The guest then
    /// dies of "Oops: int3" where its memory has no such instruction.
    InTurn,
    /// One CPU, whose clock counts instructions: one a nanosecond.
    Counted,
}

impl Plan {
    fn new(name: &str, ram_mib: u32, cpus: u32, lines: &[&str]) -> Plan {
        Plan {
            name: name.to_owned(),
            ram_mib,
            cpus,
            lines: lines.iter().map(|line| (*line).to_owned()).collect(),
            minutes: 10,
            cpus_run: if lines.iter().any(|line| line.starts_with("cycle")) {
                CpusRun::InTurn
            } else {
                CpusRun::AtOnce
            },
            kind: Kind::Plain,
        }
    }
}

impl Plan {
    /// Whether bits of its memory are to be flipped from outside.
    pub(super) fn is_damaged(&self) -> bool {
        self.lines.iter().any(|line| line.starts_with("damage"))
    }
}

const ALLOCATORS: [&str; 4] = ["block", "zbud", "ztri", "zsmalloc"];
const COMPRESSORS: [&str; 2] = ["lz4", "zstd"];

/// The tests, short (within minutes) or all.
pub(super) fn tests(full: bool, debug: bool) -> Vec<Plan> {
    if debug {
        return with_checks(full);
    }
    let mut plans = vec![
        Plan::new(
            "swap",
            256,
            2,
            &["refuse", "torture 300 2 15 forks", "swapoff 3", "zswap"],
        ),
        Plan::new(
            "files",
            256,
            2,
            &["files 150 15", "files 150 8 admit=all", "remount 2"],
        ),
        Plan::new("unload", 256, 2, &["cycle 3", "oom"]),
    ];
    plans.push(Plan::new(
        "settings",
        256,
        2,
        &[
            "torture 150 2 5 none allocator=zbud compressor=zstd",
            "torture 150 2 5 forks allocator=ztri max_pool_percent=10",
            "torture 150 2 5 none allocator=zsmalloc compressor=zstd high_percent=50 low_percent=30",
        ],
    ));
    plans.push(Plan::new("sparse", 128, 2, &["sparse 400"]));
    plans.push(Plan::new(
        "damage",
        128,
        2,
        &["damage zpages 12000", "damage records 12000"],
    ));
    let mut removal = Plan::new("removal", 256, 1, &["removal 300 16000"]);
    removal.cpus_run = CpusRun::Counted;
    plans.push(removal);
    if full {
        plans.extend(long());
    }
    plans
}

fn long() -> Vec<Plan> {
    let mut plans = vec![
        Plan::new(
            "one-cpu",
            128,
            1,
            &["torture 300 2 60 forks", "files 200 60"],
        ),
        Plan::new(
            "four-cpus",
            512,
            4,
            &["torture 200 4 60 forks", "files 150 60", "swapoff 10"],
        ),
        Plan::new("hundred-unloads", 256, 2, &["cycle 100"]),
        Plan::new("remounts", 256, 2, &["remount 10", "oom"]),
    ];
    for compressor in COMPRESSORS {
        let lines: Vec<String> = ALLOCATORS
            .iter()
            .map(|allocator| {
                format!("torture 300 2 30 forks allocator={allocator} compressor={compressor}")
            })
            .collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        plans.push(Plan::new(
            &format!("allocators-{compressor}"),
            256,
            2,
            &lines,
        ));
    }
    for plan in &mut plans {
        plan.minutes = 30;
    }
    plans
}

/// With KASAN and lockdep, which need memory and time themselves, and with the kernel's own faults.
fn with_checks(full: bool) -> Vec<Plan> {
    let seconds = if full { 60 } else { 10 };
    let torture = format!("torture 120 2 {seconds} forks");
    // So slow is this kernel that few pages are wanted again.
    let files = format!("files 40 {seconds} admit=all");
    let cycle = if full { "cycle 10" } else { "cycle 2" };
    let mut plans = vec![
        Plan::new("checked", 512, 2, &[&torture, &files, cycle, "swapoff 2"]),
        Plan::new(
            "faults",
            512,
            2,
            &[
                "inject failslab",
                "inject fail_page_alloc",
                "inject fail_make_request",
            ],
        ),
    ];
    for plan in &mut plans {
        plan.minutes = 30;
    }
    plans
}

/// The measurements.
pub(super) fn measurements() -> Vec<Plan> {
    let mut loads = Plan::new("loads", 256, 2, &["bench loads"]);
    loads.minutes = 60;
    let mut stream = Plan::new("stream", 256, 2, &["bench stream"]);
    stream.minutes = 30;
    let mut instructions = Plan::new("instructions", 256, 1, &["bench instructions"]);
    instructions.minutes = 30;
    instructions.cpus_run = CpusRun::Counted;
    let mut without = Plan::new("instructions-without", 256, 1, &["bench instructions disk"]);
    without.minutes = 30;
    without.cpus_run = CpusRun::Counted;
    without.kind = Kind::Without;
    vec![loads, stream, instructions, without]
}
