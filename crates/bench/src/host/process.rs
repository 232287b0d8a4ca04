//! One contender's run: started inside a cgroup, watched, ended, its output and CPU time collected.
//!
//! The child joins the cgroup by itself before it becomes the program, so that no page is charged
//! elsewhere. Every wait has a bound: a run that takes longer than its time is killed and said to be.

use std::ffi::OsString;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::cpu::CpuTime;
use super::{HostError, cgroup};

/// Joins the cgroup, then becomes the program.
const JOIN: &str = "echo $$ > \"$0\" && exec \"$@\"";
/// How often a run is looked at.
const POLL: Duration = Duration::from_millis(20);

/// A flag that Ctrl-C and a request to terminate set.
#[derive(Clone)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Catches SIGINT, SIGTERM and SIGHUP from now on.
    ///
    /// # Errors
    /// What the kernel says to the handler.
    pub(crate) fn catch() -> std::io::Result<Interrupt> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [
            signal_hook::consts::SIGINT,
            signal_hook::consts::SIGTERM,
            signal_hook::consts::SIGHUP,
        ] {
            signal_hook::flag::register(signal, Arc::clone(&flag))?;
        }
        Ok(Interrupt(flag))
    }

    /// Whether one of the signals came.
    pub(crate) fn came(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// By itself, with this status.
    Status(ExitStatus),
    /// It was killed because its time was up.
    TimeUp,
}

/// A run that ended.
pub(crate) struct Ended {
    /// How it ended.
    pub(crate) end: End,
    /// What it printed.
    pub(crate) stdout: String,
    /// What it printed as errors.
    pub(crate) stderr: String,
    /// From start to end, in seconds.
    pub(crate) wall_seconds: f64,
    /// User and system time of all its processes, in seconds.
    pub(crate) cpu_seconds: f64,
}

/// Runs a command line inside a cgroup and calls `sample` while it runs.
///
/// # Errors
/// [`HostError::Command`] when it does not start; [`HostError::Interrupted`] after Ctrl-C.
pub(crate) fn run(
    procs: &Path,
    line: &[OsString],
    time_max: Duration,
    interrupt: &Interrupt,
    mut sample: impl FnMut(),
) -> Result<Ended, HostError> {
    let failed = |error: std::io::Error| HostError::Command {
        line: line
            .join(&OsString::from(" "))
            .to_string_lossy()
            .into_owned(),
        detail: error.to_string(),
    };
    let mut cpu = CpuTime::default();
    let start = Instant::now();
    let mut child = Command::new("/bin/sh")
        .arg("-c")
        .arg(JOIN)
        .arg(procs)
        .args(line)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let end = watch(&mut child, start + time_max, interrupt, || {
        cpu.sample(procs);
        sample();
    })
    .map_err(failed)?;
    // Whatever the run left behind would keep the pipes open.
    cgroup::kill_members(procs)?;
    let ended = Ended {
        end,
        stdout: stdout.join().unwrap_or_default(),
        stderr: stderr.join().unwrap_or_default(),
        wall_seconds: start.elapsed().as_secs_f64(),
        cpu_seconds: cpu.seconds(),
    };
    if interrupt.came() {
        Err(HostError::Interrupted)
    } else {
        Ok(ended)
    }
}

/// Runs a command line as it is, in no cgroup, so without root; its CPU time is not known.
///
/// # Errors
/// As [`run`].
pub(crate) fn run_alone(
    line: &[OsString],
    time_max: Duration,
    interrupt: &Interrupt,
) -> Result<Ended, HostError> {
    let failed = |error: std::io::Error| HostError::Command {
        line: line
            .join(&OsString::from(" "))
            .to_string_lossy()
            .into_owned(),
        detail: error.to_string(),
    };
    let start = Instant::now();
    let mut child = Command::new(&line[0])
        .args(&line[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let end = watch(&mut child, start + time_max, interrupt, || ()).map_err(failed)?;
    let wall_seconds = start.elapsed().as_secs_f64();
    if interrupt.came() {
        return Err(HostError::Interrupted);
    }
    Ok(Ended {
        end,
        stdout: stdout.join().unwrap_or_default(),
        stderr: stderr.join().unwrap_or_default(),
        wall_seconds,
        cpu_seconds: 0.0,
    })
}

fn watch(
    child: &mut Child,
    deadline: Instant,
    interrupt: &Interrupt,
    mut sample: impl FnMut(),
) -> std::io::Result<End> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(End::Status(status));
        }
        if interrupt.came() || Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(End::TimeUp);
        }
        sample();
        std::thread::sleep(POLL);
    }
}

/// Reads a pipe to its end in a thread of its own, so that a full pipe stops nobody.
fn collect(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What was read before an error is still worth showing.
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
