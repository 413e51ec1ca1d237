//! EDGE: the daemon, put together: log, dataplane, HTTP, signals, checks, director.
//!
//! Owns the order of the start, and what a signal or a change of the file sets in motion. All that can fail at the start fails before
//! the first change of the table; afterwards nothing in here ends the daemon but a request.
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use super::{Exit, Threads, read, runtime};
use crate::arp::watch::Watch;
use crate::config::load::load;
use crate::config::{Config, DataplaneChoice};
use crate::dataplane::Dataplane as _;
use crate::dataplane::choose::{Chosen, choose};
use crate::dataplane::ipvs::sysctl;
use crate::director::{Director, Event, Inbox};
use crate::http::{self, View};
use crate::log;
use crate::metrics::Exporter;
use crate::prober::Prober;
use crate::vip::settings;

/// How often the file is looked at with `autoreload`.
const POLL: Duration = Duration::from_secs(1);
/// Events and reports that may wait; who sends more waits too.
const QUEUE: usize = 256;

pub(super) fn run(path: &Path) -> Result<(), Exit> {
    // Checks wait more than they work: between threads, each of them would cost two switches more.
    let asking = runtime(Threads::One)?;
    // First of all: a SIGHUP that nobody catches ends the process.
    let hangup = {
        let _inside = asking.enter();
        signal(SignalKind::hangup())
            .map_err(|error| Exit::new(Exit::OS, format!("cannot catch SIGHUP: {error}")))?
    };
    // Before it is read: a change from now on is one to notice.
    let seen = look(path);
    let config = read(path)?;
    log::start(&config, &log::instance(path));
    raise_descriptor_limit();
    let chosen = asking.block_on(choose(config.dataplane))?;
    let runtime = match chosen.0 {
        Chosen::Ipvs(_) => asking,
        // The mail itself is work for all cores.
        Chosen::Proxy(_) => runtime(Threads::Cores)?,
    };
    runtime.block_on(daemon((path.to_owned(), seen), config, chosen, hangup))
}

/// As far as it goes without asking anybody: each check under way takes a descriptor, each session of the proxy two.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    // Without it the soft limit goes on to hold, and what it costs is said where it is felt.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

async fn daemon(
    (path, seen): (PathBuf, Look),
    config: Config,
    (mut dataplane, why): (Chosen, String),
    hangup: Signal,
) -> Result<(), Exit> {
    let os = |what: &str, error: &dyn std::fmt::Display| Exit::new(Exit::OS, format!("{what}: {error}"));
    let listener = match config.http {
        None => None,
        Some(address) => Some(TcpListener::bind(address).await.map_err(|error| {
            os(&format!("cannot listen on http = \"{address}\" (is another smtp-director running?)"), &error)
        })?),
    };
    let mut terminate =
        signal(SignalKind::terminate()).map_err(|error| os("cannot catch SIGTERM", &error))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| os("cannot catch SIGINT", &error))?;
    info!("smtp-director {} with {}: {}", env!("CARGO_PKG_VERSION"), path.display(), config.extent());
    match (&dataplane, config.dataplane) {
        // Somebody may count on the kernel, and on real servers that see the clients' addresses.
        (Chosen::Proxy(_), DataplaneChoice::Auto) => warn!("{why}"),
        _ => info!("{why}"),
    }
    if matches!(dataplane, Chosen::Ipvs(_)) {
        for advice in sysctl::advise(&config) {
            warn!("{advice}");
        }
        for need in settings::needs(&config) {
            warn!("{need}");
        }
        // Whoever it belongs to would lose its clients to one server.
        if let Some(why) = config.vip.refusal(&dataplane.dump().await?.table) {
            return Err(Exit::new(Exit::CONFIG, why));
        }
    } else if !config.vip.services.is_empty() {
        warn!("vip_check is for IPVS: nobody is asked through the VIP");
    }

    let (report, reports) = mpsc::channel(QUEUE);
    let (event, events) = mpsc::channel(QUEUE);
    let (pictures, picture) = watch::channel(Arc::default());
    if let Some(listener) = listener {
        let exporter = Exporter::install().map_err(|error| os("cannot record metrics", &error))?;
        let view = View { pictures: picture, director: event.clone(), exporter: Arc::new(exporter) };
        tokio::spawn(http::serve(listener, view));
    }
    let watch = matches!(dataplane, Chosen::Ipvs(_)).then(|| Watch::start(event.clone()));
    tokio::spawn(reload((path, seen), config.autoreload, hangup, event.clone()));
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if event.send(Event::Stop).await.is_err() {
                return;
            }
        }
    });
    let mut director = Director::new(config, dataplane, Prober::new(report), pictures);
    if let Some(watch) = watch {
        director = director.watching(watch);
    }
    director.run(Inbox { reports, events }).await;
    Ok(())
}

/// Reads the file again on SIGHUP and, with `autoreload`, when it has changed and rested.
async fn reload(
    (path, mut seen): (PathBuf, Look),
    mut autoreload: bool,
    mut hangup: Signal,
    director: mpsc::Sender<Event>,
) {
    loop {
        tokio::select! {
            _ = hangup.recv() => {}
            () = change(&path, seen), if autoreload => info!("{} has changed", path.display()),
        }
        seen = look(&path);
        let file = path.clone();
        let loaded = tokio::task::spawn_blocking(move || load(&file, std::env::vars_os())).await;
        let event = match loaded {
            Ok(Ok(config)) => {
                autoreload = config.autoreload;
                Event::Reload(Ok(Box::new(config)))
            }
            Ok(Err(error)) => Event::Reload(Err(error.to_string())),
            Err(panic) => Event::Reload(Err(panic.to_string())),
        };
        if director.send(event).await.is_err() {
            return;
        }
    }
}

/// What tells one version of a file from another.
type Look = Option<(SystemTime, u64, u64)>;

fn look(path: &Path) -> Look {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
}

/// Ends when the file is another one than `before` and has been the same for two looks: an editor may need
/// more than one write. A file that is gone is no new version.
async fn change(path: &Path, before: Look) {
    let mut last = before;
    loop {
        tokio::time::sleep(POLL).await;
        let now = look(path);
        if now.is_some() && now != before && now == last {
            return;
        }
        last = now;
    }
}
