//! `cargo xtask kernel`.
//!
//! Stages: `packages` and `bindgen` (what the machine needs) → `source` (Linux, unpacked and patched) → `build` (kernel, module, guest
//! program) → `guest` (one boot) → `verdict` (what its console says). `plans` says which guests there are.

mod bindgen;
mod build;
mod flips;
mod guest;
mod plans;
mod source;
mod verdict;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::packages;

#[derive(Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    task: Task,

    /// A kernel with KASAN, lockdep, VM checks and fault injection
    #[arg(long, global = true)]
    debug: bool,
}

#[derive(Subcommand)]
enum Task {
    /// Build the kernel, the module and the program that runs in the guest
    Build,
    /// Test the module in guests; with --debug also with the kernel's own faults
    Test {
        /// Everything: all sizes, allocators and compressors, a hundred loads and unloads
        #[arg(long)]
        full: bool,
        /// Only the guests whose name contains this
        name: Option<String>,
    },
    /// A guest with the module loaded, and a shell
    Shell,
    /// Measure the module beside zswap, zram and the bare disk, in one boot
    Bench {
        /// Only the measurements whose name contains this
        name: Option<String>,
    },
}

/// Which kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// As it is used.
    Plain,
    /// With KASAN, lockdep, VM checks and fault injection.
    Debug,
    /// Without the front ends, to measure what they cost.
    Without,
}

/// Where things are.
pub(crate) struct Places {
    /// The repository.
    repository: PathBuf,
    /// Everything that is built here; it may be deleted at any time.
    cache: PathBuf,
    kind: Kind,
}

impl Places {
    fn find(kind: Kind) -> Result<Places, String> {
        let repository = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("../..")
            .canonicalize()
            .map_err(|error| format!("the repository: {error}"))?;
        let cache = std::env::var_os("ZCACHE_KERNEL_CACHE")
            .map(PathBuf::from)
            .or_else(|| {
                Some(PathBuf::from(std::env::var_os("XDG_CACHE_HOME")?).join("zcache-kernel"))
            })
            .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/zcache-kernel")))
            .ok_or("no place to build in: set ZCACHE_KERNEL_CACHE")?;
        std::fs::create_dir_all(&cache).map_err(|error| format!("{}: {error}", cache.display()))?;
        Ok(Places {
            repository,
            cache,
            kind,
        })
    }

    /// The patches, the module, the configurations and the guest program.
    fn kernel(&self) -> PathBuf {
        self.repository.join("kernel")
    }

    /// Linux, with the patches.
    fn linux(&self) -> PathBuf {
        self.cache.join("linux-source-6.12")
    }

    /// Programs that are not packaged.
    fn tools(&self) -> PathBuf {
        self.cache.join("tools")
    }

    /// What is of this kind of kernel.
    fn of_kind(&self, name: &str) -> PathBuf {
        let suffix = match self.kind {
            Kind::Plain => "",
            Kind::Debug => "-debug",
            Kind::Without => "-without",
        };
        self.cache.join(format!("{name}{suffix}"))
    }

    /// Where the kernel is built.
    fn kernel_build(&self) -> PathBuf {
        self.of_kind("build")
    }

    /// Where the module is.
    fn module(&self) -> PathBuf {
        self.of_kind("module")
    }

    fn image(&self) -> PathBuf {
        self.kernel_build().join("arch/x86/boot/bzImage")
    }
}

pub(crate) fn run(options: &Options) -> Result<(), String> {
    let kind = if options.debug {
        Kind::Debug
    } else {
        Kind::Plain
    };
    let places = Places::find(kind)?;
    packages::install(&places.kernel().join("packages.txt"))?;
    bindgen::install(&places.tools())?;
    source::prepare(&places)?;
    build::everything(&places)?;
    match &options.task {
        Task::Build => {
            println!("kernel: {}", places.image().display());
            println!("module: {}", places.module().join("zcache.ko").display());
            Ok(())
        }
        Task::Test { full, name } => {
            let plans = plans::tests(*full, options.debug);
            guest::run_all(&places, &chosen(plans, name.as_deref())?)
        }
        Task::Bench { name } => {
            let plans = chosen(plans::measurements(), name.as_deref())?;
            let (without, with): (Vec<_>, Vec<_>) = plans
                .into_iter()
                .partition(|plan| plan.kind == Kind::Without);
            guest::run_all(&places, &with)?;
            if without.is_empty() {
                return Ok(());
            }
            let places = Places::find(Kind::Without)?;
            build::everything(&places)?;
            guest::run_all(&places, &without)
        }
        Task::Shell => guest::shell(&places),
    }
}

fn chosen(plans: Vec<plans::Plan>, name: Option<&str>) -> Result<Vec<plans::Plan>, String> {
    let Some(name) = name else {
        return Ok(plans);
    };
    let names: Vec<String> = plans.iter().map(|plan| plan.name.clone()).collect();
    let chosen: Vec<plans::Plan> = plans
        .into_iter()
        .filter(|plan| plan.name.contains(name))
        .collect();
    if chosen.is_empty() {
        Err(format!(
            "no guest is named like {name:?}; there are: {}",
            names.join(", ")
        ))
    } else {
        Ok(chosen)
    }
}
