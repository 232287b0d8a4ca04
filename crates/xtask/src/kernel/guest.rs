//! One boot: an initramfs, two disks, QEMU, and its console read line by line.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::plans::{CpusRun, Plan};
use super::verdict::Verdict;
use super::{Kind, Places, build, flips};
use crate::command;

/// Bytes of the swap disk and of the disk with the file system; they take what is written.
const DISK_BYTES: u64 = 1 << 30;

/// The files of one guest, gone with it.
struct Folder(PathBuf);

impl Folder {
    fn new(places: &Places, name: &str) -> Result<Folder, String> {
        let path = places
            .cache
            .join(format!("guest-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Folder(path))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn said(path: &Path, error: std::io::Error) -> String {
    format!("{}: {error}", path.display())
}

fn copy(from: &Path, to: &Path) -> Result<(), String> {
    fs::copy(from, to)
        .map(|_| ())
        .map_err(|error| said(from, error))
}

fn empty_disk(path: &Path) -> Result<(), String> {
    let file = File::create(path).map_err(|error| said(path, error))?;
    file.set_len(DISK_BYTES).map_err(|error| said(path, error))
}

fn disks(folder: &Folder) -> Result<(), String> {
    let (swap, files) = (folder.path("swap.img"), folder.path("files.img"));
    empty_disk(&swap)?;
    command::output(Command::new("mkswap").arg("-q").arg(&swap))?;
    empty_disk(&files)?;
    command::output(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&files)).map(|_| ())
}

/// The first file system: the module, and what is run first.
fn initramfs(
    places: &Places,
    folder: &Folder,
    fill: impl Fn(&Path) -> Result<(), String>,
) -> Result<(), String> {
    let root = folder.path("root");
    fs::create_dir_all(&root).map_err(|error| said(&root, error))?;
    if places.kind != Kind::Without {
        copy(&places.module().join("zcache.ko"), &root.join("zcache.ko"))?;
    }
    fill(&root)?;
    let image = folder.path("initramfs");
    let file = File::create(&image).map_err(|error| said(&image, error))?;
    let mut archive = Command::new("cpio")
        .args(["--create", "--format=newc", "--null", "--quiet"])
        .current_dir(&root)
        .stdin(Stdio::piped())
        .stdout(file)
        .spawn()
        .map_err(|error| format!("cpio: {error}"))?;
    let names = command::output(
        Command::new("find")
            .args([".", "-print0"])
            .current_dir(&root),
    )?;
    let mut input = archive.stdin.take().ok_or("cpio has no input")?;
    input
        .write_all(names.as_bytes())
        .map_err(|error| format!("cpio: {error}"))?;
    drop(input);
    let status = archive.wait().map_err(|error| format!("cpio: {error}"))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("cpio ended with {status}"))
    }
}

/// Software emulation: the same everywhere, and with instructions that can be counted.
fn qemu(places: &Places, folder: &Folder, ram_mib: u32, cpus: u32, run: CpusRun) -> Command {
    let mut command = Command::new("qemu-system-x86_64");
    command.args(match run {
        CpusRun::AtOnce => &["-accel", "tcg,thread=multi"][..],
        CpusRun::InTurn => &["-accel", "tcg,thread=single"],
        CpusRun::Counted => &[
            "-accel",
            "tcg,thread=single",
            "-icount",
            "shift=0,sleep=off",
        ],
    });
    let drive = |name: &str| {
        format!(
            "file={},if=virtio,format=raw,cache=unsafe",
            folder.path(name).display()
        )
    };
    command
        .args([
            "-cpu",
            "max",
            "-display",
            "none",
            "-monitor",
            "none",
            "-serial",
            "stdio",
            "-no-reboot",
            "-nic",
            "none",
        ])
        .args(["-smp", &cpus.to_string(), "-m", &ram_mib.to_string()])
        .arg("-kernel")
        .arg(places.image())
        .arg("-initrd")
        .arg(folder.path("initramfs"))
        .args(["-drive", &drive("swap.img"), "-drive", &drive("files.img")])
        .args([
            "-append",
            "console=ttyS0 panic=-1 oops=panic loglevel=5 printk.devkmsg=on",
        ]);
    command
}

/// Runs the plans one after the other, and says which went wrong.
pub(super) fn run_all(places: &Places, plans: &[Plan]) -> Result<(), String> {
    let mut failed = Vec::new();
    for plan in plans {
        let begun = Instant::now();
        println!(
            "guest {}: {} MiB, {} CPUs",
            plan.name, plan.ram_mib, plan.cpus
        );
        let verdict = boot(places, plan)?;
        let seconds = begun.elapsed().as_secs();
        match verdict.judge(plan.lines.len()) {
            Ok(()) => println!("guest {}: ok, {seconds} s", plan.name),
            Err(reasons) => {
                println!("guest {}: FAILED, {seconds} s\n  {reasons}", plan.name);
                failed.push(plan.name.as_str());
            }
        }
        for row in &verdict.rows {
            println!("{row}");
        }
    }
    if failed.is_empty() {
        println!("kernel result: ok. {} guests", plans.len());
        Ok(())
    } else {
        Err(format!("kernel result: FAILED: {}", failed.join(", ")))
    }
}

fn boot(places: &Places, plan: &Plan) -> Result<Verdict, String> {
    let folder = Folder::new(places, &plan.name)?;
    disks(&folder)?;
    initramfs(places, &folder, |root| {
        copy(&build::guest_program_path(places), &root.join("init"))?;
        let path = root.join("plan");
        fs::write(&path, plan.lines.join("\n")).map_err(|error| said(&path, error))
    })?;
    let ram = folder.path("ram");
    let mut command = qemu(places, &folder, plan.ram_mib, plan.cpus, plan.cpus_run);
    if plan.is_damaged() {
        let backend = format!(
            "memory-backend-file,id=ram,share=on,size={}M,mem-path={}",
            plan.ram_mib,
            ram.display()
        );
        command.args(["-object", &backend, "-machine", "memory-backend=ram"]);
    }
    let mut guest = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("qemu-system-x86_64: {error}"))?;
    let console = guest.stdout.take().ok_or("the guest has no console")?;
    let log = places.cache.join(format!("{}.log", plan.name));
    let limit = Duration::from_secs(plan.minutes * 60);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| listen(console, &log, &ram));
        wait(&mut guest, limit)?;
        reader
            .join()
            .map_err(|_| "the reader of the console panicked".to_owned())?
    })
}

/// Reads the console, keeps it in a file, and shows what the tests say.
fn listen(console: impl std::io::Read, log: &Path, ram: &Path) -> Result<Verdict, String> {
    let mut file = File::create(log).map_err(|error| said(log, error))?;
    let mut verdict = Verdict::default();
    let mut lines = BufReader::new(console);
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        let read = lines
            .read_until(b'\n', &mut bytes)
            .map_err(|error| format!("console: {error}"))?;
        if read == 0 {
            return Ok(verdict);
        }
        file.write_all(&bytes).map_err(|error| said(log, error))?;
        let line = String::from_utf8_lossy(&bytes);
        let line = line.trim_end();
        verdict.read(line);
        flips::answer(ram, line);
        if let Some(said) = line.strip_prefix("@@ pass ") {
            println!("  {said}");
        }
    }
}

/// Waits for the guest's end, and brings it about when its time is over.
fn wait(guest: &mut Child, limit: Duration) -> Result<(), String> {
    let begun = Instant::now();
    loop {
        if guest
            .try_wait()
            .map_err(|error| format!("qemu: {error}"))?
            .is_some()
        {
            return Ok(());
        }
        if begun.elapsed() > limit {
            let _ = guest.kill();
            let _ = guest.wait();
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// What the shell's guest runs first.
const SHELL: &str = "#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc none /proc; mount -t sysfs none /sys; mount -t devtmpfs none /dev 2>/dev/null
mount -t debugfs none /sys/kernel/debug; mount -t tmpfs none /tmp
swapon /dev/vda; mount -t ext4 /dev/vdb /mnt
insmod /zcache.ko
echo 'counters: cat /sys/kernel/debug/zcache/all   parameters: /sys/module/zcache/parameters   end: poweroff -f'
exec setsid cttyhack sh
";

/// A guest with a shell on this terminal.
pub(super) fn shell(places: &Places) -> Result<(), String> {
    let folder = Folder::new(places, "shell")?;
    disks(&folder)?;
    initramfs(places, &folder, |root| {
        for name in ["bin", "proc", "sys", "dev", "tmp", "mnt"] {
            let path = root.join(name);
            fs::create_dir_all(&path).map_err(|error| said(&path, error))?;
        }
        copy(Path::new("/bin/busybox"), &root.join("bin/busybox"))?;
        let init = root.join("init");
        fs::write(&init, SHELL).map_err(|error| said(&init, error))?;
        command::output(Command::new("chmod").arg("+x").arg(&init)).map(|_| ())
    })?;
    command::run(&mut qemu(places, &folder, 256, 2, CpusRun::AtOnce))
}
