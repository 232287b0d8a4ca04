//! A browser with its sandbox on: namespaces, seccomp filters of its own, a zygote that forks, and code made while it runs.

use crate::support::{Job, User, agrees, tests_file};
use std::time::Duration;

/// Chromium without a window. Its sandbox does not allow root, so an ordinary user runs it.
fn chromium(user: &User, what: &str, page: &str) -> Job {
    Job::new("chromium")
        .args(["--headless", "--disable-gpu", "--no-first-run"])
        .arg(format!(
            "--user-data-dir={}",
            user.file("profile").display()
        ))
        .arg("--virtual-time-budget=20000")
        .args([what, page])
        .linger(Duration::from_secs(5))
}

fn page(user: &User) -> String {
    let page = user.brings(&tests_file("programs/page.html"));
    format!("file://{}", page.display())
}

#[test]
#[ignore = "long: needs the package chromium"]
fn chromium_runs_a_page() {
    let user = User::nobody();
    let (plain, _) = agrees(
        &chromium(&user, "--dump-dom", &page(&user)).by(&user),
        || std::fs::remove_dir_all(user.file("profile")).expect("the profile can be removed"),
    );
    assert!(plain.out().contains("sorted"), "{}", plain.out());
}

#[test]
#[ignore = "long: needs the package chromium"]
fn chromium_has_its_sandbox_on() {
    let user = User::nobody();
    let job = Job::new("sh")
        .arg(user.brings(&tests_file("programs/chromium_sandbox.sh")))
        .arg(user.file("work"))
        .arg(page(&user));
    let (plain, _) = agrees(&job.by(&user), || ());
    for line in [
        "a renderer has Seccomp: 2",
        "a renderer is in an inner PID namespace",
    ] {
        assert!(plain.out().contains(line), "{line}: {}", plain.out());
    }
}

#[test]
#[ignore = "long: needs the package chromium"]
fn chromium_prints_a_page() {
    let user = User::nobody();
    let pdf = user.file("page.pdf");
    let to = format!("--print-to-pdf={}", pdf.display());
    // The file holds the time of its making.
    let read = || {
        let bytes = std::fs::read(&pdf).expect("chromium wrote a file");
        let dates: [&[u8]; 2] = [b"/CreationDate", b"/ModDate"];
        let lines = bytes.split(|byte| *byte == b'\n');
        lines
            .filter(|line| !dates.iter().any(|date| line.starts_with(date)))
            .map(<[u8]>::to_vec)
            .collect::<Vec<_>>()
    };
    let mut plain = Vec::new();
    agrees(&chromium(&user, &to, &page(&user)).by(&user), || {
        plain = read();
        std::fs::remove_file(&pdf).expect("the file can be removed");
        std::fs::remove_dir_all(user.file("profile")).expect("the profile can be removed");
    });
    assert!(plain == read(), "the printed page differs");
}
