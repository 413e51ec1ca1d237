//! The TOML schema and its lowering to [`Config`]: text and environment in, a farm or all its problems out.
//!
//! Owns the top level and what must be unique across virtuals. Refuses to know files and processes (`load`).
//! Fails with every problem at once, each with its place, in the order of the text. While the text has syntax
//! errors, what depends on several keys is left unsaid.

mod canary;
mod check;
mod fields;
mod law;
mod outside;
mod reals;
mod services;
mod source;
mod steps;
#[cfg(test)]
mod tests;
mod types;
mod values;
mod virtuals;
mod vocabulary;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use config::ValueKind;

use self::check::CheckLayer;
use self::fields::{Fields, Raw, Report};
use self::outside::{AlertLayer, log_target};
use self::steps::file;
use self::values::{boolean, duration, socket_address, whole, word};
use self::virtuals::Lowered;
use self::vocabulary::{ALERT, CHECK, TOP, VIRTUAL};
use super::diagnostic::{Diagnostic, Place};
use super::{Config, DEFAULT_HTTP, DataplaneChoice, LogFormat, LogLevel, LogTarget, OnExit, Tier};
use crate::vip::{self, Vip};

pub(super) use self::source::located;
pub(crate) use self::steps::parse_pin;
pub(crate) use self::values::is_host_name;
pub(crate) use self::values::{is_ehlo_name, parse_duration};

/// Most real servers of all virtuals together: what a director can check, and no more than memory should hold.
/// Their greatest weights add up to less than 2^31, the int in which the kernel's schedulers count.
const MOST_REALS: u32 = 16_384;

/// A file that works, for those who have none.
const SMALLEST: &str = "  [[virtual]]\n  address = \"192.0.2.25:25\"\n\n  [[virtual.real]]\n  address = \"10.0.0.11\"\n\n  \
    [[virtual.real]]\n  address = \"10.0.0.12\"";

const DATAPLANES: [(&str, DataplaneChoice); 3] =
    [("auto", DataplaneChoice::Auto), ("ipvs", DataplaneChoice::Ipvs), ("proxy", DataplaneChoice::Proxy)];
const LOG_LEVELS: [(&str, LogLevel); 5] = [
    ("error", LogLevel::Error),
    ("warn", LogLevel::Warn),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
    ("trace", LogLevel::Trace),
];
const LOG_FORMATS: [(&str, LogFormat); 3] =
    [("text", LogFormat::Text), ("json", LogFormat::Json), ("ldirectord", LogFormat::Ldirectord)];
const ON_EXITS: [(&str, OnExit); 2] = [("keep", OnExit::Keep), ("remove", OnExit::Remove)];

/// Reads a configuration from `text` with `variables` of the environment over it.
///
/// `host_name` is what checks say in EHLO by default, a valid argument of it. Of `variables` only those that begin
/// with `SMTP_DIRECTOR__` are looked at.
///
/// # Errors
/// All problems, at least one, in the order of the text, those of the environment last.
pub fn lower(text: &str, variables: &[(String, String)], host_name: &str) -> Result<Config, Vec<Diagnostic>> {
    lower_layers(text, source::merge(text, variables), host_name)
}

/// Reads a configuration from a tree that something else than TOML was read to, whose values are [`located`] in `text`.
/// `problems` are those of the text: while there are any, what depends on several keys is left unsaid.
pub(super) fn lower_tree(
    (text, root): (&str, config::Value),
    problems: Vec<Diagnostic>,
    variables: &[(String, String)],
    host_name: &str,
) -> Result<Config, Vec<Diagnostic>> {
    lower_layers(text, source::merge_tree(root, problems, variables), host_name)
}

fn lower_layers(text: &str, layers: source::Layers, host_name: &str) -> Result<Config, Vec<Diagnostic>> {
    let report = Report::new(text, layers.problems, layers.complete);
    let config = lower_top(&Fields::open(&report, &TOP, &layers.root), &report, host_name);
    let problems = report.into_problems();
    if problems.is_empty() { Ok(config) } else { Err(problems) }
}

/// What every virtual needs to know of the file.
struct Farm<'a> {
    report: &'a Report<'a>,
    /// `None` where the file is wrong about it; rules keep silent.
    dataplane: Option<DataplaneChoice>,
    check: CheckLayer,
    alert: AlertLayer,
    on_exit: OnExit,
    host_name: &'a str,
    reals: Cell<u32>,
}

impl Farm<'_> {
    /// Counts one more real server; false, with a diagnostic, where that is one too many.
    fn count_real(&self, place: &Place) -> bool {
        self.reals.set(self.reals.get().saturating_add(1));
        let fits = self.reals.get() <= MOST_REALS;
        if !fits {
            self.report.rule(place, format!("address: more than {MOST_REALS} real servers in one file"));
        }
        fits
    }
}

fn lower_top(fields: &Fields<'_>, report: &Report<'_>, host_name: &str) -> Config {
    let dataplane = fields.read("dataplane", |raw| word(raw, &DATAPLANES));
    let on_exit = fields.read("on_exit", |raw| word(raw, &ON_EXITS)).or(OnExit::Keep);
    let farm = Farm {
        report,
        dataplane: dataplane.known_or(DataplaneChoice::Auto),
        check: CheckLayer::read(fields.table("check", &CHECK).as_ref(), &CheckLayer::default()),
        alert: AlertLayer::read(fields.table("alert", &ALERT).as_ref(), &AlertLayer::default()),
        on_exit,
        host_name,
        reals: Cell::new(0),
    };
    let mut virtuals: Vec<_> =
        fields.tables("virtual", &VIRTUAL).iter().filter_map(|one| virtuals::lower(one, &farm)).collect();
    if !fields.has("virtual") {
        report.rule_of_file(format!("there is no virtual; the smallest file is:\n{SMALLEST}"));
    }
    refuse_doubles(report, &virtuals);
    canary::refuse_shared_receivers(report, &virtuals);
    let vip = lower_vip(fields, report, &mut virtuals);
    Config {
        dataplane: dataplane.or(DataplaneChoice::Auto),
        http: fields.read("http", http).or(Some(DEFAULT_HTTP)),
        log: fields.read("log", |raw| word(raw, &LOG_LEVELS)).or(LogLevel::Info),
        log_format: fields.read("log_format", |raw| word(raw, &LOG_FORMATS)).or(LogFormat::Text),
        autoreload: fields.read("autoreload", boolean).or(false),
        log_to: fields.read("log_to", log_target).or(LogTarget::Stderr),
        supervised: fields.read("supervised", boolean).or(false),
        callback: fields.read("callback", file).given().map(|(path, _)| path.clone()),
        execute: fields.list("execute", file).or(Vec::new()),
        maintenance_dir: fields.read("maintenance_dir", file).given().map(|(path, _)| path.clone()),
        readd_quiescent: fields.read("readd_quiescent", boolean).or(true),
        on_exit,
        resync: fields
            .read("resync", |raw| duration(raw, Duration::from_secs(1)..=Duration::from_secs(3600)))
            .or(Duration::from_secs(30)),
        vip,
        arp_watch: fields.read("arp_watch", arp_watch).or(Some(Duration::from_secs(30))),
        virtuals: virtuals.into_iter().map(|one| one.config).collect(),
    }
}

/// Adds the probes through the VIP, with marks that no virtual of the file has.
fn lower_vip(fields: &Fields<'_>, report: &Report<'_>, virtuals: &mut [Lowered]) -> Vip {
    let first_mark =
        fields.read("vip_marks", |raw| whole(raw, 1..=u32::MAX - (vip::MARKS - 1))).or(vip::FIRST_MARK);
    let mut vip = Vip { first_mark, ..Vip::default() };
    for Lowered { config, vip_check, .. } in virtuals.iter_mut() {
        let Some(place) = vip_check else { continue };
        vip::add_probes(config, &mut vip);
        if !config.reals.iter().flat_map(|real| &real.checks).any(|plan| plan.tier == Tier::Vip) {
            let message = "vip_check: no real server here can be asked through the VIP: that is for those with a check and \
                           forward = \"gate\" or \"ipip\", of the family of the virtual";
            report.rule(place, message.to_owned());
        }
    }
    let mut marked = virtuals.iter().filter(|one| vip.services.contains_key(&one.config.id));
    if let Some(Lowered { config, id_place, .. }) = marked.next() {
        let message =
            format!("fwmark: {} is needed for vip_check; another one, or another vip_marks", config.id);
        report.rule(id_place, message);
    }
    vip
}

/// A time, or nothing.
fn arp_watch(raw: &Raw<'_>) -> Result<Option<Duration>, String> {
    match raw.kind {
        ValueKind::String(text) if text == "off" => Ok(None),
        _ => duration(raw, Duration::from_secs(2)..=Duration::from_secs(3600))
            .map(Some)
            .map_err(|message| format!("{message}; or \"off\"")),
    }
}

/// An address and port, or nothing.
fn http(raw: &Raw<'_>) -> Result<Option<SocketAddr>, String> {
    match raw.kind {
        ValueKind::String(text) if text == "off" => Ok(None),
        _ => socket_address(raw, DEFAULT_HTTP.port())
            .map(Some)
            .map_err(|message| format!("{message}; or \"off\"")),
    }
}

/// A virtual is one service of the kernel; a name is one row in metrics and commands.
fn refuse_doubles(report: &Report<'_>, virtuals: &[Lowered]) {
    let (mut ids, mut names) = (BTreeMap::new(), BTreeMap::new());
    for Lowered { config, id_place, name_place, .. } in virtuals {
        if let Some(earlier) = ids.insert(config.id, id_place) {
            let line = report.name_of(earlier);
            report.rule(id_place, format!("virtual: {} is in {line} already; each virtual once", config.id));
        } else if let Some(earlier) = names.insert(&config.name, name_place) {
            let line = report.name_of(earlier);
            report.rule(name_place, format!("name: {} is in {line} already; each name once", config.name));
        }
    }
}
