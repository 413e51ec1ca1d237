//! What `/proc` says of a process and of those that it started.

use std::fs;
use std::time::Duration;

/// User and system time so far; counted in hundredths of a second.
pub(crate) fn cpu(pid: u32) -> Duration {
    let [user, system] = user_and_system(pid);
    user + system
}

/// The two apart.
pub(crate) fn user_and_system(pid: u32) -> [Duration; 2] {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat");
    let after_name = stat.rsplit_once(')').expect("name").1;
    [11, 12].map(|index| {
        let ticks: u64 = after_name.split_whitespace().nth(index).expect("field").parse().expect("ticks");
        Duration::from_millis(ticks * 10)
    })
}

/// Time on a processor so far, of all threads that still run; as exact as the kernel's clock.
pub(crate) fn ran(pid: u32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("task");
    let times = threads.map(|thread| {
        let text = fs::read_to_string(thread.expect("thread").path().join("schedstat")).expect("schedstat");
        let nanos = text.split(' ').next().expect("three numbers").parse().expect("nanoseconds");
        Duration::from_nanos(nanos)
    });
    times.sum()
}

/// A process and all below it.
pub(crate) fn tree(root: u32) -> Vec<u32> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let after_name = stat.rsplit_once(')').expect("name").1;
        let parent: u32 = after_name.split_whitespace().nth(1).expect("field").parse().expect("pid");
        parents.push((pid, parent));
    }
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&pid) = found.get(next) {
        found.extend(parents.iter().filter(|(_, parent)| *parent == pid).map(|(child, _)| *child));
        next += 1;
    }
    found
}

/// Resident memory in KiB: as `ps` shows it, and with what is shared divided among those who share it.
pub(crate) fn memory(pid: u32) -> [u64; 2] {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("smaps_rollup");
    ["Rss:", "Pss:"].map(|name| {
        let line = text.lines().find(|line| line.starts_with(name)).expect("a line");
        line.split_whitespace().nth(1).expect("a number").parse().expect("KiB")
    })
}
