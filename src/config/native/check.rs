//! The `check` tables: three layers, from the top level through the virtual to the real server.
//!
//! Owns their keys, defaults and merge. Refuses to know anything else of a virtual.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use checks::proxy_header::Version;
use checks::smtp::{Dialect, ProxyHeader, SmtpSpec};
use checks::{CheckSpec, Kind};

use super::canary::Wanted;
use super::fields::{Fields, Raw, Setting};
use super::services::{Complaint, ServiceLayer};
use super::steps::StepsLayer;
use super::types::{CheckType, TYPES};
use super::values::{address, boolean, duration, ehlo_name, port, text, whole, word};
use crate::config::{CheckPlan, Tier};
use crate::model::VirtualId;
use crate::verdict::{Cell, Row, Verdicts};

pub(super) const SHORTEST: Duration = Duration::from_millis(10);
pub(super) const LONGEST: Duration = Duration::from_secs(3600);

/// What `check` tables say, one laid over the other.
#[derive(Clone, Debug, Default)]
pub(super) struct CheckLayer {
    pub(super) kind: Setting<CheckType>,
    pub(super) address: Setting<IpAddr>,
    pub(super) port: Setting<u16>,
    ehlo_name: Setting<String>,
    interval: Setting<Duration>,
    retry: Setting<Duration>,
    fall: Setting<u32>,
    rise: Setting<u32>,
    damping: Setting<bool>,
    deadline: Setting<Duration>,
    connect_timeout: Setting<Duration>,
    banner_timeout: Setting<Duration>,
    ehlo_timeout: Setting<Duration>,
    quit_timeout: Setting<Duration>,
    connects_between: Setting<u32>,
    steps: StepsLayer,
    verdicts: Arc<Verdicts>,
    service: ServiceLayer,
    /// What the real servers of this virtual wait for before they greet anybody: what the proxy dataplane sends them.
    expected_header: Option<ProxyHeader>,
}

/// A server that a check is wanted for.
pub(super) struct Asked<'a> {
    /// Where the check goes.
    pub(super) target: SocketAddr,
    /// The virtual that it serves; `None` where that is wrong.
    pub(super) service: Option<VirtualId>,
    /// What we call ourselves.
    pub(super) host_name: &'a str,
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
        let kind = fields.read("type", |raw| word(raw, &TYPES)).over(&base.kind);
        let known = kind.known_or(CheckType::Smtp);
        let layer = Self {
            kind,
            address: fields.read("address", address).over(&base.address),
            port: fields.read("port", port).over(&base.port),
            ehlo_name: fields.read("ehlo_name", ehlo_name).over(&base.ehlo_name),
            interval: time("interval").over(&base.interval),
            retry: time("retry").over(&base.retry),
            fall: count("fall").over(&base.fall),
            rise: count("rise").over(&base.rise),
            damping: fields.read("damping", boolean).over(&base.damping),
            deadline: time("deadline").over(&base.deadline),
            connect_timeout: time("connect_timeout").over(&base.connect_timeout),
            banner_timeout: time("banner_timeout").over(&base.banner_timeout),
            ehlo_timeout: time("ehlo_timeout").over(&base.ehlo_timeout),
            quit_timeout: time("quit_timeout").over(&base.quit_timeout),
            connects_between: fields
                .read("connects_between", |raw| whole(raw, 1..=1_000_000))
                .over(&base.connects_between),
            steps: StepsLayer::read(fields, &base.steps, known),
            service: ServiceLayer::read(fields, &base.service),
            verdicts: read_verdicts(fields, &base.verdicts),
            expected_header: base.expected_header,
        };
        if let Some(kind) = known {
            kind.refuse_useless(fields);
        }
        layer
    }

    /// The checks of a server, one a tier; none where it is never checked.
    ///
    /// A deadline may be longer than the interval: a check that is still running delays the next one, they never
    /// overlap.
    pub(super) fn plans(&self, asked: &Asked<'_>) -> Result<Vec<CheckPlan>, Complaint> {
        let wanted = self.kind.or(CheckType::Smtp);
        let interval = self.interval.or(Duration::from_secs(10));
        let smtp = |dialect| {
            let tiers = self.steps.tiers(self.smtp(dialect, asked.host_name), interval);
            tiers.into_iter().map(|(tier, spec, interval)| (tier, Kind::Smtp(spec), interval)).collect()
        };
        let tiers = match wanted {
            CheckType::On | CheckType::Off => Vec::new(),
            CheckType::Smtp | CheckType::Submission | CheckType::Smtps => smtp(Dialect::Smtp),
            CheckType::Lmtp => smtp(Dialect::Lmtp),
            // Its conversation would begin without the header that the server waits for.
            other if self.expected_header.is_some() && self.port.is_absent() && other.talks() => {
                let word = other.word();
                let message = format!(
                    "check: proxy_protocol makes the server wait for a header, which a check of type \"{word}\" does not \
                     send; write check.port, where it waits for none"
                );
                return Err((None, message));
            }
            _ => {
                let kind = self.service.kind(wanted, &self.steps, asked.service)?.unwrap_or(Kind::Connect);
                vec![(Tier::Base, kind, interval)]
            }
        };
        Ok(tiers.into_iter().map(|tier| self.plan(asked, tier)).collect())
    }

    /// The canary of a server; `None` where it is not asked as a server of mail.
    pub(super) fn canary_plan(&self, asked: &Asked<'_>, wanted: &Wanted) -> Option<CheckPlan> {
        let kind = self.kind.or(CheckType::Smtp);
        if !kind.speaks_smtp() {
            return None;
        }
        let dialect = if kind == CheckType::Lmtp { Dialect::Lmtp } else { Dialect::Smtp };
        let whole = self.smtp(dialect, asked.host_name);
        let whole = SmtpSpec { mail: None, data: Some(Box::new(wanted.data.clone())), ..whole };
        let tiers = self.steps.tiers(whole, wanted.interval);
        let (_, smtp, _) = tiers.into_iter().find(|(tier, ..)| *tier == Tier::Data)?;
        let plan = self.plan(asked, (Tier::Canary, Kind::Smtp(smtp), wanted.interval));
        Some(CheckPlan { canary: Some(Arc::clone(&wanted.canary)), ..plan })
    }

    fn plan(&self, asked: &Asked<'_>, (tier, kind, interval): (Tier, Kind, Duration)) -> CheckPlan {
        CheckPlan {
            spec: CheckSpec {
                target: asked.target,
                kind,
                deadline: self.deadline.or(Duration::from_secs(15)),
                connect_timeout: self.connect_timeout.or(Duration::from_secs(3)),
                via: None,
            },
            tier,
            interval,
            retry: self.retry.or(Duration::from_secs(2)),
            fall: self.fall.or(3),
            rise: self.rise.or(2),
            damping: self.damping.or(true),
            verdicts: Arc::clone(&self.verdicts),
            warn_days: self.steps.warn_days(),
            connects_between: if tier == Tier::Base { self.connects_between.or(0) } else { 0 },
            canary: None,
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
        if self.kind.or(CheckType::Smtp) == CheckType::Smtps {
            spec.tls = Some(Box::new(self.steps.implicit_tls()));
        }
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
