//! The `check` tables: three layers, from the top level through the virtual to the real server.
//!
//! Owns their keys, defaults and merge. Refuses to know anything else of a virtual.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use checks::proxy_header::Version;
use checks::smtp::{Dialect, ProxyHeader, SmtpSpec};
use checks::{CheckSpec, Kind};

use super::fields::{Fields, Raw, Setting};
use super::steps::StepsLayer;
use super::values::{duration, ehlo_name, port, text, whole, word};
use crate::config::{CheckPlan, Tier};
use crate::verdict::{Cell, Row, Verdicts};

/// Words of `type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CheckType {
    Smtp,
    Lmtp,
    Connect,
    /// Not checked: always up.
    On,
}

const TYPES: [(&str, CheckType); 4] = [
    ("smtp", CheckType::Smtp),
    ("lmtp", CheckType::Lmtp),
    ("connect", CheckType::Connect),
    ("on", CheckType::On),
];
/// What every type that asks has a use for; all other keys are for those that speak SMTP.
const OF_EVERY_TYPE: [&str; 9] =
    ["type", "port", "interval", "retry", "fall", "rise", "deadline", "connect_timeout", "verdict"];

pub(super) const SHORTEST: Duration = Duration::from_millis(10);
pub(super) const LONGEST: Duration = Duration::from_secs(3600);

/// What `check` tables say, one laid over the other.
#[derive(Clone, Debug, Default)]
pub(super) struct CheckLayer {
    pub(super) kind: Setting<CheckType>,
    pub(super) port: Setting<u16>,
    ehlo_name: Setting<String>,
    interval: Setting<Duration>,
    retry: Setting<Duration>,
    fall: Setting<u32>,
    rise: Setting<u32>,
    deadline: Setting<Duration>,
    connect_timeout: Setting<Duration>,
    banner_timeout: Setting<Duration>,
    ehlo_timeout: Setting<Duration>,
    quit_timeout: Setting<Duration>,
    steps: StepsLayer,
    verdicts: Arc<Verdicts>,
    /// What the real servers of this virtual wait for before they greet anybody: what the proxy dataplane sends them.
    expected_header: Option<ProxyHeader>,
}

impl CheckLayer {
    /// The layer of a virtual whose sessions begin with this header: so does a check on the same port.
    pub(super) fn expecting(self, version: Option<Version>) -> Self {
        let expected_header = version.map(|version| match version {
            Version::V1 => ProxyHeader::Proxy(Version::V1),
            Version::V2 => ProxyHeader::Local,
        });
        Self { expected_header, ..self }
    }

    /// Reads the `check` table of one level and lays it over `base`.
    ///
    /// A key that the type in force here does not use is refused here; one that is inherited is no mistake.
    pub(super) fn read(fields: Option<&Fields<'_>>, base: &Self) -> Self {
        let Some(fields) = fields else { return base.clone() };
        let time = |key| fields.read(key, |raw| duration(raw, SHORTEST..=LONGEST));
        let count = |key| fields.read(key, |raw| whole(raw, 1..=100));
        let layer = Self {
            kind: fields.read("type", |raw| word(raw, &TYPES)).over(&base.kind),
            port: fields.read("port", port).over(&base.port),
            ehlo_name: fields.read("ehlo_name", ehlo_name).over(&base.ehlo_name),
            interval: time("interval").over(&base.interval),
            retry: time("retry").over(&base.retry),
            fall: count("fall").over(&base.fall),
            rise: count("rise").over(&base.rise),
            deadline: time("deadline").over(&base.deadline),
            connect_timeout: time("connect_timeout").over(&base.connect_timeout),
            banner_timeout: time("banner_timeout").over(&base.banner_timeout),
            ehlo_timeout: time("ehlo_timeout").over(&base.ehlo_timeout),
            quit_timeout: time("quit_timeout").over(&base.quit_timeout),
            steps: StepsLayer::read(fields, &base.steps),
            verdicts: read_verdicts(fields, &base.verdicts),
            expected_header: base.expected_header,
        };
        let but = |useful: &[&str]| -> Vec<&str> {
            fields.keys().iter().copied().filter(|key| !useful.contains(key)).collect()
        };
        match layer.kind.given() {
            Some((CheckType::Connect, _)) => {
                fields.refuse(&but(&OF_EVERY_TYPE), "is for checks of type \"smtp\" and \"lmtp\" only");
            }
            Some((CheckType::On, _)) => {
                fields.refuse(&but(&["type"]), "has no use here: type \"on\" is never checked");
            }
            Some((CheckType::Smtp | CheckType::Lmtp, _)) | None => {}
        }
        layer
    }

    /// The checks of a server that go to `target`, one a tier; none takes it for well always.
    ///
    /// A deadline may be longer than the interval: a check that is still running delays the next one, they never
    /// overlap.
    pub(super) fn plans(&self, target: SocketAddr, host_name: &str) -> Vec<CheckPlan> {
        let interval = self.interval.or(Duration::from_secs(10));
        let plan = |(tier, kind, interval)| CheckPlan {
            spec: CheckSpec {
                target,
                kind,
                deadline: self.deadline.or(Duration::from_secs(15)),
                connect_timeout: self.connect_timeout.or(Duration::from_secs(3)),
            },
            tier,
            interval,
            retry: self.retry.or(Duration::from_secs(2)),
            fall: self.fall.or(3),
            rise: self.rise.or(2),
            verdicts: Arc::clone(&self.verdicts),
            warn_days: self.steps.warn_days(),
        };
        let smtp = |dialect| {
            let tiers = self.steps.tiers(self.smtp(dialect, host_name), interval);
            tiers.into_iter().map(|(tier, spec, interval)| plan((tier, Kind::Smtp(spec), interval))).collect()
        };
        match self.kind.or(CheckType::Smtp) {
            CheckType::On => Vec::new(),
            CheckType::Connect => vec![plan((Tier::Base, Kind::Connect, interval))],
            CheckType::Smtp => smtp(Dialect::Smtp),
            CheckType::Lmtp => smtp(Dialect::Lmtp),
        }
    }

    fn smtp(&self, dialect: Dialect, host_name: &str) -> SmtpSpec {
        let default = SmtpSpec::default();
        let mut spec = SmtpSpec {
            dialect,
            ehlo_name: self.ehlo_name.or(host_name.to_string()),
            banner_timeout: self.banner_timeout.or(default.banner_timeout),
            ehlo_timeout: self.ehlo_timeout.or(default.ehlo_timeout),
            quit_timeout: self.quit_timeout.or(default.quit_timeout),
            ..default
        };
        self.steps.put(&mut spec);
        if spec.proxy.is_none() && self.port.is_absent() {
            spec.proxy = self.expected_header;
        }
        spec
    }
}

/// Reads the rows of `verdict` and lays them over `base`, which is shared where nothing is said.
fn read_verdicts(fields: &Fields<'_>, base: &Arc<Verdicts>) -> Arc<Verdicts> {
    let cell = |raw: &Raw<'_>| Cell::parse(text(raw, "a verdict such as \"down\" or \"degraded 25%\"")?);
    let mut verdicts = Verdicts::default();
    for (row, cell) in fields.rows("verdict", Row::parse, cell) {
        verdicts.set(row, cell);
    }
    if verdicts == Verdicts::default() { Arc::clone(base) } else { Arc::new(verdicts.over(base)) }
}
