//! Which programs are run, with how much memory.
//!
//! What is left out, and why: tests that need huge pages set aside or that change settings of the machine's memory
//! (`hugetlb*`, `khugepaged`, `compaction_test`), its clock (the destructive ones of `timers`), or need a module (`gup_test`,
//! `hmm-tests`, `test_vmalloc.sh`); those that measure how late a timer is (`*-lat`), which says nothing on a busy machine; and
//! those of `seccomp_bpf` that trace a child or end it by a signal in a wait that only death ends: zcache is its tracer, a
//! signal to a traced process is not deadly before the tracer has seen it, and each of them waits half a minute for that.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

/// The name of the suite that is not the kernel's.
pub(super) const STRESS: &str = "stress-ng";

/// A program with its arguments and surroundings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Test {
    pub(super) suite: &'static str,
    /// The program and its arguments; of stress-ng, the stressor and its options.
    command: &'static str,
    /// The budget.
    pub(super) ram_mib: u32,
    /// Memory that `filler` holds beside it; 0 for none.
    pub(super) filler_mib: u32,
    /// The budget has a swap file.
    pub(super) swap: bool,
    /// After this time it hangs.
    pub(super) bound: Duration,
    /// Part of the short set; how long a stressor runs there.
    short: Option<u32>,
    /// How long a stressor runs.
    seconds: u32,
    /// Run as the user nobody.
    nobody: bool,
}

/// How long a stressor runs.
const STRESS_SECONDS: u32 = 3;

impl Test {
    /// A selftest, beside a filler that is larger than the budget and yet fits into it when it is compressed.
    const fn new(suite: &'static str, command: &'static str) -> Test {
        Test {
            suite,
            command,
            ram_mib: 32,
            filler_mib: 48,
            swap: false,
            bound: Duration::from_secs(60),
            short: None,
            seconds: STRESS_SECONDS,
            nobody: false,
        }
    }

    const fn stress(command: &'static str) -> Test {
        Test::new(STRESS, command)
    }

    const fn short(self) -> Test {
        self.short_for(1)
    }

    const fn short_for(mut self, seconds: u32) -> Test {
        self.short = Some(seconds);
        self
    }

    const fn ram(mut self, mib: u32) -> Test {
        self.ram_mib = mib;
        self
    }

    const fn filler(mut self, mib: u32) -> Test {
        self.filler_mib = mib;
        self
    }

    const fn bound(mut self, seconds: u64) -> Test {
        self.bound = Duration::from_secs(seconds);
        self
    }

    const fn by_nobody(mut self) -> Test {
        self.nobody = true;
        self
    }

    /// With a swap file, and a filler of which that is needed.
    const fn swapping(mut self) -> Test {
        self.swap = true;
        self.filler_mib = 160;
        self
    }

    pub(super) fn is_selftest(&self) -> bool {
        self.suite != STRESS
    }

    /// The program, without its arguments.
    pub(super) fn program(&self) -> &'static str {
        self.command.split(' ').next().unwrap_or(self.command)
    }

    /// As it is called in the report and in the list of what is expected.
    pub(super) fn name(&self) -> String {
        let swap = if self.swap { " (swap)" } else { "" };
        // Which tests it is told to leave out makes the name no clearer.
        let command = match self.command {
            SECCOMP => self.program(),
            command => command,
        };
        format!("{}/{command}{swap}", self.suite)
    }

    /// The words of the command after its surroundings.
    pub(super) fn words(&self, folder: &Path) -> Vec<OsString> {
        if !self.is_selftest() {
            return self.stress_words();
        }
        let mut words: Vec<OsString> = Vec::new();
        if self.nobody {
            words.extend(
                [
                    "setpriv",
                    "--reuid=65534",
                    "--regid=65534",
                    "--clear-groups",
                ]
                .map(OsString::from),
            );
        }
        words.push(folder.join(self.program()).into());
        words.extend(self.command.split(' ').skip(1).map(OsString::from));
        words
    }

    fn stress_words(&self) -> Vec<OsString> {
        let (stressor, options) = self.command.split_once(' ').unwrap_or((self.command, ""));
        let words = format!(
            "--{stressor} 1 --timeout {} --verify --metrics-brief --oomable --seed 1",
            self.seconds
        );
        words
            .split(' ')
            .chain(options.split(' ').filter(|option| !option.is_empty()))
            .map(OsString::from)
            .collect()
    }
}

/// All tests, or the short set.
pub(super) fn tests(short: bool) -> Vec<Test> {
    let all = [MM, FUTEX, SIGNALS, TIMERS, PTRACE, STRESSORS];
    let tests = all.into_iter().flatten().cloned();
    if !short {
        return tests.collect();
    }
    let short = tests.filter_map(|mut test| {
        test.seconds = test.short?;
        Some(test)
    });
    short.collect()
}

const MM: &[Test] = &[
    Test::new("mm", "cow").short(),
    Test::new("mm", "cow").swapping(),
    Test::new("mm", "droppable").short(),
    Test::new("mm", "gup_longterm").short(),
    Test::new("mm", "ksm_functional_tests"),
    Test::new("mm", "ksm_tests -M -p 10").short(),
    Test::new("mm", "ksm_tests -U"),
    Test::new("mm", "ksm_tests -Z -p 10 -z 0"),
    Test::new("mm", "ksm_tests -Z -p 10 -z 1"),
    Test::new("mm", "madv_populate").short(),
    Test::new("mm", "map_fixed_noreplace").short(),
    Test::new("mm", "map_populate").short(),
    Test::new("mm", "mdwe_test").short(),
    Test::new("mm", "memfd_secret").short(),
    Test::new("mm", "migration"),
    Test::new("mm", "mkdirty").short(),
    Test::new("mm", "mlock-random-test").short(),
    Test::new("mm", "mlock2-tests").short(),
    Test::new("mm", "mrelease_test").short(),
    Test::new("mm", "mremap_dontunmap").short(),
    Test::new("mm", "mremap_dontunmap").swapping(),
    // It fills tens of MiB with random bytes.
    Test::new("mm", "mremap_test").ram(96).filler(128).short(),
    Test::new("mm", "mremap_test").swapping().bound(180),
    Test::new("mm", "mseal_test").short(),
    Test::new("mm", "on-fault-limit").by_nobody(),
    // A program that uses userfaultfd itself is not paged, so its own memory has to fit.
    Test::new("mm", "pagemap_ioctl").ram(96).filler(128).short(),
    Test::new("mm", "pkey_sighandler_tests_64"),
    Test::new("mm", "protection_keys_64"),
    Test::new("mm", "seal_elf"),
    Test::new("mm", "soft-dirty"),
    Test::new("mm", "thuge-gen"),
    Test::new("mm", "uffd-stress anon 20 4")
        .ram(128)
        .filler(192),
    Test::new("mm", "uffd-stress shmem 20 4")
        .ram(128)
        .filler(192),
    Test::new("mm", "uffd-stress shmem-private 20 4")
        .ram(128)
        .filler(192),
    Test::new("mm", "uffd-unit-tests").ram(96).filler(128),
    Test::new("mm", "va_high_addr_switch"),
    Test::new("mm", "virtual_address_range")
        .ram(128)
        .filler(192),
];

const FUTEX: &[Test] = &[
    Test::new("futex", "futex_requeue").short(),
    Test::new("futex", "futex_requeue_pi").short(),
    Test::new("futex", "futex_requeue_pi -b").short(),
    Test::new("futex", "futex_requeue_pi -b -l -t 5000").short(),
    Test::new("futex", "futex_requeue_pi -b -o -t 500000"),
    Test::new("futex", "futex_requeue_pi -l -t 2000000000"),
    Test::new("futex", "futex_requeue_pi_mismatched_ops"),
    Test::new("futex", "futex_requeue_pi_signal_restart").short(),
    Test::new("futex", "futex_wait").short(),
    Test::new("futex", "futex_wait_private_mapped_file"),
    Test::new("futex", "futex_wait_timeout").short(),
    Test::new("futex", "futex_wait_uninitialized_heap"),
    Test::new("futex", "futex_wait_wouldblock").short(),
    Test::new("futex", "futex_waitv").short(),
];

const SECCOMP: &str = "seccomp_bpf -F TRACE_poke -F TRACE_syscall -T syscall_restart -T user_notification_wait_killable_fatal";

const SIGNALS: &[Test] = &[
    Test::new("seccomp", SECCOMP).short(),
    Test::new("seccomp", SECCOMP).swapping(),
    Test::new("sigaltstack", "sas").short(),
    Test::new("pidfd", "pidfd_fdinfo_test").short(),
    Test::new("pidfd", "pidfd_getfd_test").short(),
    Test::new("pidfd", "pidfd_open_test").short(),
    Test::new("pidfd", "pidfd_poll_test").bound(120),
    Test::new("pidfd", "pidfd_setns_test").short(),
    Test::new("pidfd", "pidfd_test"),
    Test::new("pidfd", "pidfd_wait").short(),
    Test::new("clone3", "clone3").short(),
    Test::new("clone3", "clone3_cap_checkpoint_restore").short(),
    Test::new("clone3", "clone3_clear_sighand").short(),
    Test::new("clone3", "clone3_set_tid").short(),
];

const TIMERS: &[Test] = &[
    Test::new("timers", "inconsistency-check -t 2"),
    Test::new("timers", "nanosleep"),
    Test::new("timers", "posix_timers").bound(120),
    Test::new("timers", "threadtest -t 5"),
];

const PTRACE: &[Test] = &[
    Test::new("ptrace", "get_set_sud").short(),
    Test::new("ptrace", "get_syscall_info").short(),
    Test::new("ptrace", "peeksiginfo").short(),
    Test::new("ptrace", "vmaccess").bound(120),
];

/// Stressors with sizes need twice the budget or more themselves; the others run beside the filler. Left out are `vm-segv`, which
/// waits for ever for the child that it could not trace, and those that take as much memory as there is (`env`, `mmapfork`).
const STRESSORS: &[Test] = &[
    Test::stress("vm --vm-bytes 64M").filler(0).short_for(3),
    Test::stress("vm --vm-bytes 96M").swapping().filler(0),
    Test::stress("vm --vm-bytes 128M --vm-method rand-set")
        .ram(64)
        .filler(0),
    Test::stress("vm --vm-bytes 64M --vm-method zero-one").filler(0),
    Test::stress("vm-addr").ram(64).filler(96),
    Test::stress("vm-rw --vm-rw-bytes 16M"),
    Test::stress("vm-splice"),
    Test::stress("bad-altstack"),
    Test::stress("bigheap --bigheap-ops 2000")
        .ram(64)
        .filler(96),
    Test::stress("brk --brk-ops 5000").short(),
    Test::stress("clone"),
    Test::stress("daemon"),
    Test::stress("exit-group"),
    Test::stress("fork").short(),
    Test::stress("fork").swapping(),
    Test::stress("fork --fork-vm"),
    Test::stress("forkheavy --forkheavy-procs 64")
        .ram(96)
        .filler(128),
    Test::stress("futex"),
    Test::stress("io-uring"),
    Test::stress("madvise").ram(64).filler(96),
    Test::stress("malloc --malloc-bytes 4M --malloc-max 64 --malloc-touch")
        .filler(0)
        .short(),
    Test::stress("mcontend"),
    Test::stress("membarrier"),
    Test::stress("memcpy"),
    Test::stress("memfd --memfd-bytes 16M"),
    Test::stress("memthrash").ram(64).filler(96),
    Test::stress("mergesort --mergesort-size 500000"),
    Test::stress("mincore"),
    Test::stress("misaligned"),
    Test::stress("mlock"),
    Test::stress("mmap --mmap-bytes 32M --mmap-mprotect")
        .ram(64)
        .filler(96)
        .short(),
    Test::stress("mmap --mmap-bytes 32M --mmap-file"),
    Test::stress("mmapaddr"),
    Test::stress("mmapfixed"),
    Test::stress("mmapmany"),
    Test::stress("mprotect"),
    Test::stress("mremap --mremap-bytes 8M").short(),
    Test::stress("mremap --mremap-bytes 8M").swapping(),
    Test::stress("msync"),
    Test::stress("munmap"),
    Test::stress("nanosleep"),
    Test::stress("pagemove"),
    Test::stress("pageswap"),
    Test::stress("pkey"),
    Test::stress("poll"),
    Test::stress("procfs"),
    Test::stress("pthread").short(),
    Test::stress("ptrace"),
    Test::stress("randlist"),
    Test::stress("remap"),
    Test::stress("resched").ram(96).filler(128),
    Test::stress("rmap").ram(96).filler(128),
    Test::stress("schedpolicy"),
    Test::stress("seccomp").short(),
    Test::stress("session"),
    Test::stress("shm"),
    Test::stress("shm-sysv"),
    Test::stress("sigfd"),
    Test::stress("signest"),
    Test::stress("sigsegv").short(),
    Test::stress("sigtrap"),
    Test::stress("splice"),
    Test::stress("stack").ram(64).filler(96),
    Test::stress("stackmmap"),
    Test::stress("stream --stream-l3-size 2M")
        .ram(96)
        .filler(128),
    Test::stress("switch"),
    Test::stress("tlb-shootdown").ram(96).filler(128),
    Test::stress("tree --tree-size 20000"),
    Test::stress("tsearch"),
    Test::stress("userfaultfd --userfaultfd-bytes 8M")
        .ram(64)
        .filler(96),
    Test::stress("vecmath"),
    Test::stress("vfork").short(),
    Test::stress("vforkmany"),
    Test::stress("wait"),
    Test::stress("yield"),
    Test::stress("zlib"),
    Test::stress("zombie"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_different() {
        let names: Vec<String> = tests(false).iter().map(Test::name).collect();
        let distinct: std::collections::HashSet<&String> = names.iter().collect();
        assert_eq!(distinct.len(), names.len());
        assert!(tests(true).len() * 5 > names.len());
    }

    #[test]
    fn budgets_are_too_small_for_what_is_held() {
        // What a stressor without a filler holds is in its options.
        let held = |test: &Test| {
            let sizes = test.command.split(' ').filter_map(|word| {
                let (number, unit) = word.split_at(word.len() - 1);
                (unit == "M").then(|| number.parse::<u32>().ok())?
            });
            let factor = if test.command.starts_with("malloc") {
                64
            } else {
                1
            };
            test.filler_mib + sizes.max().unwrap_or(0) * factor
        };
        for test in tests(false) {
            assert!(held(&test) * 4 >= test.ram_mib * 5, "{}", test.name());
        }
    }
}
