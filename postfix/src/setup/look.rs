//! EDGE: looks at the box: what `ip` and `/proc/sys` say.
//!
//! Owns the commands and paths. Refuses to change anything, and to know what is right. What cannot be read of `/proc`
//! is left out; where `ip` fails, the look does.

use std::fs;
use std::path::Path;

use super::command::run_line;
use super::observed::{Observed, conf, parse_defaults, parse_links};

/// Where settings of the kernel are.
pub(crate) const SETTINGS: &str = "/proc/sys";

/// Looks once.
pub(crate) fn look() -> Result<Observed, String> {
    let links = parse_links(&run_line("ip -json -details address show")?)?;
    let mut observed = Observed { links, ..Observed::default() };
    let names = observed.links.iter().map(|link| link.name.clone());
    for name in names.chain(["all", "default"].map(str::to_owned)).collect::<Vec<_>>() {
        let four = ["arp_ignore", "arp_announce", "rp_filter"].map(|setting| conf(&name, setting));
        for key in four.into_iter().chain([format!("net/ipv6/conf/{name}/disable_ipv6")]) {
            if let Some(value) = setting(&key) {
                observed.settings.insert(key, value);
            }
        }
    }
    observed.defaults = parse_defaults(&run_line("ip -4 route show default")?, false);
    // A kernel without IPv6 has none.
    if Path::new("/proc/sys/net/ipv6").exists() {
        observed.defaults.extend(parse_defaults(&run_line("ip -6 route show default")?, true));
    }
    observed.shared = shared();
    Ok(observed)
}

/// Whether a process lives in another network namespace. What cannot be seen is taken for one.
fn shared() -> bool {
    let Ok(own) = fs::read_link("/proc/self/ns/net") else { return true };
    let Ok(entries) = fs::read_dir("/proc") else { return true };
    let pid = |name: &std::ffi::OsStr| name.to_str().is_some_and(|name| name.parse::<u32>().is_ok());
    let processes = entries.flatten().filter(|entry| pid(&entry.file_name()));
    // One that has ended meanwhile has no network.
    processes.filter_map(|entry| fs::read_link(entry.path().join("ns/net")).ok()).any(|other| other != own)
}

pub(crate) fn setting(key: &str) -> Option<String> {
    Some(fs::read_to_string(Path::new(SETTINGS).join(key)).ok()?.trim().to_owned())
}
