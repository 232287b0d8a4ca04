//! Leaving the terminal that a mount was made from.
//!
//! Stage: once the tree is there.

use std::fs::OpenOptions;

/// Becomes a session of its own in the root directory, with nothing to read
/// from and nobody to write to. What cannot be left stays as it is: the mount
/// works all the same.
pub fn leave_terminal() {
    let _ = rustix::process::setsid();
    // The directory that the user was in may be unmounted later.
    let _ = std::env::set_current_dir("/");
    let null = OpenOptions::new().read(true).write(true).open("/dev/null");
    if let Ok(null) = null {
        let _ = rustix::stdio::dup2_stdin(&null);
        let _ = rustix::stdio::dup2_stdout(&null);
        let _ = rustix::stdio::dup2_stderr(&null);
    }
}

/// RAM of this machine in bytes.
#[must_use]
pub fn system_ram_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    u64::from(info.mem_unit) * info.totalram
}
