//! EDGE: which servers the files of a directory take out of service.
//!
//! Owns the directory, its limits, and the names in it. Refuses to know what follows for a table. A directory that vanishes
//! changes nothing: who was out stays out, and it is said once. A name is asked for its addresses, the addresses never for
//! their names; one without an address takes nobody out.
#![expect(clippy::disallowed_methods, reason = "EDGE: an address is believed for a while")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::director::Event;
use crate::state::Maintained;

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the addresses of a name are believed.
const TRUST: Duration = Duration::from_secs(60);
/// How long a name may take to be found.
const RESOLVE: Duration = Duration::from_secs(5);
/// More files than anybody puts there.
const MOST: usize = 100_000;
/// More files with names of servers than a farm has servers.
const MOST_SERVERS: usize = 1024;
/// How many host names are asked for: all of them at once, so that none waits for another.
const MOST_NAMES: usize = 64;

/// What a file's name says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A server, or all of a host.
    Address(Maintained),
    /// A host and perhaps a port of it.
    Name(String, Option<u16>),
}

/// `10.0.0.11`, `10.0.0.11:25`, `2001:db8::11`, `[2001:db8::11]`, `[2001:db8::11]:25`, `mx1`, `mx1.example.com:25`.
/// `None` where it is no name of a server.
#[must_use]
pub fn parse(name: &str) -> Option<Entry> {
    let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Some(Entry::Address(Maintained { ip, port: None }));
    }
    if let Ok(address) = name.parse::<SocketAddr>() {
        return Some(Entry::Address(Maintained { ip: address.ip(), port: Some(address.port()) }));
    }
    let (host, port) = match name.split_once(':') {
        Some((host, port)) => (host, Some(port.parse().ok()?)),
        None => (name, None),
    };
    crate::config::is_host_name(host).then(|| Entry::Name(host.to_owned(), port))
}

/// Tells the director who is out, whenever that changes, until nobody can be told.
pub async fn watch(mut directory: watch::Receiver<Option<PathBuf>>, director: mpsc::Sender<Event>) {
    let mut told = BTreeSet::new();
    let mut names = Names::default();
    let mut missing = false;
    loop {
        let path = directory.borrow_and_update().clone();
        let found = match path.clone() {
            None => Some(BTreeSet::new()),
            Some(path) => match read(path.clone()).await {
                Ok(entries) => {
                    missing = false;
                    Some(names.addresses(entries).await)
                }
                Err(why) => {
                    if !missing {
                        warn!("maintenance directory {}: {why}; who was out stays out", path.display());
                    }
                    missing = true;
                    None
                }
            },
        };
        if let Some(found) = found.filter(|found| *found != told) {
            for one in found.difference(&told) {
                info!("{one} is in maintenance");
            }
            for one in told.difference(&found) {
                info!("{one} is no longer in maintenance");
            }
            if director.send(Event::Maintenance(found.clone())).await.is_err() {
                return;
            }
            told = found;
        }
        let changed = match path {
            Some(_) => timeout(PAUSE, directory.changed()).await.unwrap_or(Ok(())),
            None => directory.changed().await,
        };
        if changed.is_err() {
            return;
        }
    }
}

async fn read(path: PathBuf) -> Result<Vec<Entry>, String> {
    tokio::task::spawn_blocking(move || entries(&path)).await.map_err(|error| error.to_string())?
}

fn entries(path: &Path) -> Result<Vec<Entry>, String> {
    let all = std::fs::read_dir(path).map_err(|error| error.to_string())?;
    let entry = |entry: std::io::Result<std::fs::DirEntry>| parse(entry.ok()?.file_name().to_str()?);
    Ok(all.take(MOST).filter_map(entry).take(MOST_SERVERS).collect())
}

/// What names stand for, and until when that is believed.
#[derive(Default)]
struct Names(BTreeMap<String, (Instant, Vec<IpAddr>)>);

impl Names {
    async fn addresses(&mut self, entries: Vec<Entry>) -> BTreeSet<Maintained> {
        let mut all = BTreeSet::new();
        let mut asked: BTreeMap<String, Vec<Option<u16>>> = BTreeMap::new();
        for entry in entries {
            match entry {
                Entry::Address(one) => drop(all.insert(one)),
                Entry::Name(name, port) if asked.len() < MOST_NAMES || asked.contains_key(&name) => {
                    asked.entry(name).or_default().push(port);
                }
                Entry::Name(..) => {}
            }
        }
        self.0.retain(|name, _| asked.contains_key(name));
        self.resolve(asked.keys()).await;
        for (name, ports) in asked {
            let ips = self.0.get(&name).map_or(&[][..], |(_, ips)| ips);
            all.extend(
                ips.iter().flat_map(|ip| ports.iter().map(|port| Maintained { ip: *ip, port: *port })),
            );
        }
        all
    }

    /// Asks for those that are not known, or have been for too long.
    async fn resolve(&mut self, names: impl Iterator<Item = &String>) {
        let now = Instant::now();
        let mut answers = JoinSet::new();
        for name in names.filter(|name| self.0.get(*name).is_none_or(|(until, _)| *until <= now)).cloned() {
            answers.spawn(async move {
                let found = timeout(RESOLVE, tokio::net::lookup_host((name.as_str(), 0))).await;
                let found = found.ok().and_then(Result::ok);
                let ips: Option<Vec<IpAddr>> = found.map(|found| found.map(|address| address.ip()).collect());
                (name, ips)
            });
        }
        while let Some(answer) = answers.join_next().await {
            let Ok((name, ips)) = answer else { continue };
            let known = self.0.get(&name).map(|(_, ips)| ips.clone());
            if ips.is_none() && known.is_none() {
                warn!("{name} in the maintenance directory has no address and takes nobody out");
            }
            // What was known of it holds on.
            let ips = ips.or(known).unwrap_or_default();
            self.0.insert(name, (Instant::now() + TRUST, ips));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_called_like_a_server() {
        let address = |ip: &str, port| Some(Entry::Address(Maintained { ip: ip.parse().unwrap(), port }));
        let named = |name: &str, port| Some(Entry::Name(name.to_owned(), port));
        for (text, want) in [
            ("10.0.0.11", address("10.0.0.11", None)),
            ("10.0.0.11:25", address("10.0.0.11", Some(25))),
            ("2001:db8::1", address("2001:db8::1", None)),
            ("[2001:db8::1]", address("2001:db8::1", None)),
            ("[2001:db8::1]:25", address("2001:db8::1", Some(25))),
            ("mx1.example.com", named("mx1.example.com", None)),
            ("mx1:25", named("mx1", Some(25))),
            (".swp", None),
            ("10.0.0.11:x", None),
            ("README file", None),
        ] {
            assert_eq!(parse(text), want, "{text}");
        }
    }
}
