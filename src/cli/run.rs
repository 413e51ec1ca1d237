//! EDGE: the daemon, put together: log, dataplane, HTTP, signals, checks, director.
//!
//! Owns the order of the start, and what a signal or a change of the file sets in motion. All that can fail at the start fails before
//! the first change of the table; afterwards nothing in here ends the daemon but a request.
use std::hash::{Hash as _, Hasher as _};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{info, warn};

use super::{Exit, Threads, read, runtime};
use crate::arp::watch::Watch;
use crate::children::Children;
use crate::config::load::{MAX_SIZE, load};
use crate::config::{Config, DataplaneChoice, LogFormat};
use crate::dataplane::Dataplane as _;
use crate::dataplane::choose::{Chosen, choose};
use crate::dataplane::ipvs::sysctl;
use crate::director::{Director, Event, Inbox};
use crate::http::{self, View};
use crate::metrics::Exporter;
use crate::news::Desk;
use crate::news::errand::{self, Errand};
use crate::prober::Prober;
use crate::snapshot::Snapshot;
use crate::systemd::Manager;
use crate::vip::settings;
use crate::{log, maintenance};

/// How often the file is looked at with `autoreload`.
const POLL: Duration = Duration::from_secs(1);
/// How long a callback may take.
const CALLBACK: Duration = Duration::from_secs(60);
/// Events and reports that may wait; who sends more waits too.
const QUEUE: usize = 256;

/// A daemon that has done nothing yet but to catch SIGHUP, which would end it, and to look at its file.
pub(super) struct Preparation {
    path: PathBuf,
    asking: Runtime,
    hangup: Signal,
    seen: Look,
}

/// What differs between the ways to start a daemon.
pub(super) struct Manner {
    /// What the lines of ldirectord call it.
    pub(super) instance: String,
    /// What is logged, where that is not what the configuration says, too.
    pub(super) log: log::Plan,
    /// What to do without a port for metrics and status.
    pub(super) port: PortInUse,
    /// Called once, when the table is right for the first time.
    pub(super) ready: Box<dyn FnOnce() + Send>,
}

/// When the port of `http` is taken.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum PortInUse {
    /// Nothing is started: somebody counts on it.
    Fatal,
    /// The daemon goes on without: a file of ldirectord has no word for it, and there may be many daemons.
    Tolerated,
}

pub(super) fn run(path: &Path) -> Result<(), Exit> {
    let preparation = Preparation::new(path)?;
    let config = read(path)?;
    let instance = log::instance(path);
    let port = match config.log_format {
        LogFormat::Ldirectord => PortInUse::Tolerated,
        LogFormat::Text | LogFormat::Json => PortInUse::Fatal,
    };
    let manner = Manner { instance, log: log::Plan::of(&config), port, ready: Box::new(|| ()) };
    preparation.serve(config, manner)
}

impl Preparation {
    pub(super) fn new(path: &Path) -> Result<Self, Exit> {
        // Checks wait more than they work: between threads, each of them would cost two switches more.
        let asking = runtime(Threads::One)?;
        let hangup = {
            let _inside = asking.enter();
            signal(SignalKind::hangup())
                .map_err(|error| Exit::new(Exit::OS, format!("cannot catch SIGHUP: {error}")))?
        };
        // Before it is read: a change from now on is one to notice.
        Ok(Self { path: path.to_owned(), asking, hangup, seen: look(path) })
    }

    /// Directs by `config` until somebody asks for an end.
    pub(super) fn serve(self, config: Config, manner: Manner) -> Result<(), Exit> {
        log::start(&manner.log, &manner.instance);
        raise_descriptor_limit();
        let chosen = self.asking.block_on(choose(config.dataplane))?;
        let runtime = match chosen.0 {
            Chosen::Ipvs(_) => self.asking,
            // The mail itself is work for all cores.
            Chosen::Proxy(_) => runtime(Threads::Cores)?,
        };
        runtime.block_on(daemon((self.path, self.seen, self.hangup), (config, manner), chosen))
    }
}

/// As far as it goes without asking anybody: each check under way takes a descriptor, each session of the proxy two.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    // Without it the soft limit goes on to hold, and what it costs is said where it is felt.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

async fn daemon(
    (path, seen, hangup): (PathBuf, Look, Signal),
    (config, manner): (Config, Manner),
    (mut dataplane, why): (Chosen, String),
) -> Result<(), Exit> {
    let os = |what: &str, error: &dyn std::fmt::Display| Exit::new(Exit::OS, format!("{what}: {error}"));
    let listener = listen(config.http, manner.port).await?;
    let mut ends = Vec::new();
    for (kind, name) in
        [(SignalKind::terminate(), "TERM"), (SignalKind::interrupt(), "INT"), (SignalKind::quit(), "QUIT")]
    {
        let end = signal(kind).map_err(|error| os(&format!("cannot catch SIG{name}"), &error))?;
        ends.push((end, name));
    }
    info!("smtp-director {} with {}: {}", env!("CARGO_PKG_VERSION"), path.display(), config.extent());
    let speaks = config.log_format == LogFormat::Ldirectord;
    if speaks {
        info!("Starting Linux Director of smtp-director with pid: {}", std::process::id());
    }
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

    let manager = Arc::new(Manager::from_environment());
    let (report, reports) = mpsc::channel(QUEUE);
    let (event, events) = mpsc::channel(QUEUE);
    let (pictures, picture) = watch::channel(Arc::default());
    tokio::spawn(announce(picture.clone(), manner.ready, Arc::clone(&manager)));
    if let Some(pulse) = manager.pulse() {
        tokio::spawn(live(pulse, Arc::clone(&manager), event.clone()));
    }
    if let Some(listener) = listener {
        let exporter = Exporter::install().map_err(|error| os("cannot record metrics", &error))?;
        let view = View { pictures: picture, director: event.clone(), exporter: Arc::new(exporter) };
        tokio::spawn(http::serve(listener, view));
    }
    let watch = matches!(dataplane, Chosen::Ipvs(_)).then(|| Watch::start(event.clone()));
    let (maintenance, directory) = watch::channel(config.maintenance_dir.clone());
    tokio::spawn(maintenance::watch(directory, event.clone()));
    let (family, wanted) = mpsc::channel(QUEUE);
    let family_ends = tokio::spawn(follow(Children::of(&path), wanted));
    let _ = family.try_send(config.execute.clone());
    let reloads = Reloads {
        content: content(&path),
        path,
        seen,
        autoreload: config.autoreload,
        speaks,
        callback: config.callback.clone(),
        director: event.clone(),
        maintenance,
        children: family,
    };
    let reloads = tokio::spawn(reloads.serve(hangup, Arc::clone(&manager)));
    let (reason, ended) = watch::channel("");
    for (mut end, name) in ends {
        let (event, manager, reason) = (event.clone(), Arc::clone(&manager), reason.clone());
        tokio::spawn(async move {
            while end.recv().await.is_some() {
                reason.send_replace(name);
                manager.stopping();
                if event.send(Event::Stop).await.is_err() {
                    return;
                }
            }
        });
    }
    drop(event);
    let mut director = Director::new(config, dataplane, Prober::new(report), pictures).telling(Desk::open());
    if let Some(watch) = watch {
        director = director.watching(watch);
    }
    director.run(Inbox { reports, events }).await;
    // It holds the other end of what the children listen to.
    reloads.abort();
    let _ = reloads.await;
    let _ = family_ends.await;
    if speaks {
        info!("Linux Director Daemon terminated on signal: {}", *ended.borrow());
    }
    Ok(())
}

async fn listen(http: Option<SocketAddr>, port: PortInUse) -> Result<Option<TcpListener>, Exit> {
    let Some(address) = http else { return Ok(None) };
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if port == PortInUse::Tolerated => {
            warn!("no metrics and no status: cannot listen on {address}: {error}");
            Ok(None)
        }
        Err(error) => {
            let why =
                format!("cannot listen on http = \"{address}\" (is another smtp-director running?): {error}");
            Err(Exit::new(Exit::OS, why))
        }
    }
}

/// Says once that the table is right.
async fn announce(
    mut picture: watch::Receiver<Arc<Snapshot>>,
    ready: Box<dyn FnOnce() + Send>,
    manager: Arc<Manager>,
) {
    if picture.changed().await.is_ok() {
        manager.ready();
        ready();
    }
}

/// Says that we are alive each time that the director has proved it.
async fn live(pulse: Duration, manager: Arc<Manager>, director: mpsc::Sender<Event>) {
    loop {
        tokio::time::sleep(pulse).await;
        if !asked(&director).await {
            return;
        }
        manager.alive();
    }
}

/// Whether the director looked at its table; it does so at once.
async fn asked(director: &mpsc::Sender<Event>) -> bool {
    let (looker, looked) = oneshot::channel();
    director.send(Event::Look(looker)).await.is_ok() && looked.await.is_ok()
}

/// Who reads the file again on SIGHUP and, with `autoreload`, when it has changed and rested.
struct Reloads {
    path: PathBuf,
    seen: Look,
    /// What tells one content of the file from another.
    content: u64,
    autoreload: bool,
    /// Whether the log is in the words of ldirectord, too.
    speaks: bool,
    callback: Option<PathBuf>,
    director: mpsc::Sender<Event>,
    /// The maintenance directory, for those who watch it.
    maintenance: watch::Sender<Option<PathBuf>>,
    children: mpsc::Sender<Vec<PathBuf>>,
}

impl Reloads {
    async fn serve(mut self, mut hangup: Signal, manager: Arc<Manager>) {
        let calls = callbacks(self.path.clone());
        loop {
            let watched = self.autoreload || self.callback.is_some();
            tokio::select! {
                _ = hangup.recv() => {
                    self.seen = look(&self.path);
                    if self.speaks {
                        info!("Reloading Linux Director Daemon config on signal");
                    }
                }
                () = change(&self.path, self.seen), if watched => {
                    self.seen = look(&self.path);
                    let content = content(&self.path);
                    if std::mem::replace(&mut self.content, content) == content {
                        continue; // somebody has touched it
                    }
                    info!("Configuration file '{}' has changed on disk", self.path.display());
                    if let Some(callback) = &self.callback {
                        // One that waits for its turn is for this change, too.
                        let _ = calls.try_send(callback.clone());
                    }
                    if !self.autoreload {
                        info!(" - ignore new configuration");
                        continue;
                    }
                    info!(" - reread new configuration");
                }
            }
            if !self.reload(&manager).await {
                return;
            }
        }
    }

    /// False when the director has ended.
    async fn reload(&mut self, manager: &Manager) -> bool {
        manager.reloading();
        self.content = content(&self.path);
        let file = self.path.clone();
        let loaded = tokio::task::spawn_blocking(move || load(&file, std::env::vars_os())).await;
        let event = match loaded {
            Ok(Ok(config)) => {
                self.autoreload = config.autoreload;
                self.callback.clone_from(&config.callback);
                self.maintenance.send_if_modified(|known| {
                    let other = *known != config.maintenance_dir;
                    known.clone_from(&config.maintenance_dir);
                    other
                });
                let _ = self.children.try_send(config.execute.clone());
                Event::Reload(Ok(Box::new(config)))
            }
            Ok(Err(error)) => Event::Reload(Err(error.to_string())),
            Err(panic) => Event::Reload(Err(panic.to_string())),
        };
        if self.director.send(event).await.is_err() || !asked(&self.director).await {
            return false;
        }
        manager.ready();
        true
    }
}

/// Runs callbacks one after another; one may run and one may wait.
fn callbacks(file: PathBuf) -> mpsc::Sender<PathBuf> {
    let (calls, mut due) = mpsc::channel::<PathBuf>(1);
    tokio::spawn(async move {
        while let Some(program) = due.recv().await {
            let errand = Errand { program, arguments: vec![file.display().to_string()] };
            info!("Running system({errand})");
            if let Err(why) = errand::run(&errand, &[], CALLBACK).await {
                warn!("callback {errand}: {why}");
            }
        }
    });
    calls
}

/// Lets the children follow the configuration; at the end, when nobody can say another word, they end, too.
async fn follow(mut children: Children, mut wanted: mpsc::Receiver<Vec<PathBuf>>) {
    while let Some(wanted) = wanted.recv().await {
        children.become_those(&wanted).await;
    }
    children.become_those(&[]).await;
}

/// What tells one content of a file from another; 0 where there is none to read. What is no file may have no end.
fn content(path: &Path) -> u64 {
    let is_readable = |found: &std::fs::Metadata| found.is_file() && found.len() <= MAX_SIZE;
    let Some(bytes) = std::fs::metadata(path).ok().filter(is_readable).and_then(|_| std::fs::read(path).ok())
    else {
        return 0;
    };
    let mut hasher = std::hash::DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
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
