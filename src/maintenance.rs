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
/// More files than a farm has servers.
const MOST: usize = 1024;

/// What a file's name says.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    Address(Maintained),
    Name(String, Option<u16>),
}

/// `10.0.0.11`, `10.0.0.11:25`, `2001:db8::11`, `[2001:db8::11]`, `[2001:db8::11]:25`, `mx1`, `mx1.example.com:25`.
fn parse(name: &str) -> Option<Entry> {
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
    let names = all.take(MOST).filter_map(|entry| Some(entry.ok()?.file_name().to_str()?.to_owned()));
    Ok(names.filter_map(|name| parse(&name)).collect())
}

/// What names stand for, and until when that is believed.
#[derive(Default)]
struct Names(BTreeMap<String, (Instant, Vec<IpAddr>)>);

impl Names {
    async fn addresses(&mut self, entries: Vec<Entry>) -> BTreeSet<Maintained> {
        let mut all = BTreeSet::new();
        let mut asked = BTreeSet::new();
        for entry in entries {
            match entry {
                Entry::Address(one) => drop(all.insert(one)),
                Entry::Name(name, port) => {
                    let ips = self.resolve(&name).await;
                    all.extend(ips.into_iter().map(|ip| Maintained { ip, port }));
                    asked.insert(name);
                }
            }
        }
        self.0.retain(|name, _| asked.contains(name));
        all
    }

    async fn resolve(&mut self, name: &str) -> Vec<IpAddr> {
        if let Some((until, ips)) = self.0.get(name)
            && *until > Instant::now()
        {
            return ips.clone();
        }
        let found = timeout(RESOLVE, tokio::net::lookup_host((name, 0))).await;
        let ips = match found {
            Ok(Ok(found)) => found.map(|address| address.ip()).collect(),
            // What was known of it holds on.
            Ok(Err(_)) | Err(_) => {
                let known = self.0.get(name).map(|(_, ips)| ips.clone());
                if known.is_none() {
                    warn!("{name} in the maintenance directory has no address and takes nobody out");
                }
                known.unwrap_or_default()
            }
        };
        self.0.insert(name.to_owned(), (Instant::now() + TRUST, ips.clone()));
        ips
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
