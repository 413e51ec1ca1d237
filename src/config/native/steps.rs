//! What a `check` table says of the steps of an SMTP conversation, its nested tables among them.
//!
//! Owns `banner`, `require`, `proxy_header`, `tls`, `auth`, `mail` and `data`, their merge and the rules between them. A
//! nested table is laid over that of the level above key by key, and must be whole where it stands. Refuses to know
//! the pace of a check. Files are named here and read by the check.

mod tiers;

use std::path::PathBuf;
use std::time::Duration;

use checks::credential::{Credential, Login};
use checks::proxy_header::Version;
use checks::smtp::ehlo::Requirement;
use checks::smtp::{
    AuthOver, AuthSpec, DataSpec, MailSpec, Mechanism, Pattern, ProxyHeader, SmtpSpec, is_mailbox,
};
use checks::tls::{TlsMode, TlsSpec, TlsVersion, Verify};

use super::check::{LONGEST, SHORTEST};
use super::fields::{Fields, Raw, Setting};
use super::types::{CheckType, Secured};
use super::values::{boolean, duration, is_host_name, text, whole, word};
use super::vocabulary::{AUTH, DATA, MAIL, TLS};

const MODES: [(&str, Option<TlsMode>); 4] = [
    ("off", None),
    ("opportunistic", Some(TlsMode::Opportunistic)),
    ("required", Some(TlsMode::Required)),
    ("implicit", Some(TlsMode::Implicit)),
];
const VERSIONS: [(&str, TlsVersion); 2] = [("1.2", TlsVersion::V12), ("1.3", TlsVersion::V13)];
const VERIFY: [(&str, Verifying); 4] = [
    ("none", Verifying::None),
    ("chain", Verifying::Chain),
    ("name", Verifying::Name),
    ("pinned", Verifying::Pinned),
];
const MECHANISMS: [(&str, Mechanism); 2] = [("plain", Mechanism::Plain), ("login", Mechanism::Login)];
const HEADERS: [(&str, ProxyHeader); 3] = [
    ("v1", ProxyHeader::Proxy(Version::V1)),
    ("v2", ProxyHeader::Proxy(Version::V2)),
    ("v2-local", ProxyHeader::Local),
];

/// Words of `verify`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verifying {
    None,
    Chain,
    Name,
    Pinned,
}

/// What is said of the steps, one level laid over the other.
#[derive(Clone, Debug, Default)]
pub(super) struct StepsLayer {
    banner: Setting<Pattern>,
    banner_name: Setting<String>,
    require: Setting<Vec<Requirement>>,
    proxy_header: Setting<ProxyHeader>,
    tls: TlsLayer,
    auth: AuthLayer,
    mail: MailLayer,
    data: DataLayer,
}

impl StepsLayer {
    /// Reads the steps of one level and lays them over `base`.
    /// `kind` is the type in force there, `None` where it is wrong.
    pub(super) fn read(fields: &Fields<'_>, base: &Self, kind: Option<CheckType>) -> Self {
        let layer = Self {
            banner: fields.read("banner", pattern).over(&base.banner),
            banner_name: fields.read("banner_name", host_name).over(&base.banner_name),
            require: fields.list("require", requirement).over(&base.require),
            proxy_header: fields.read("proxy_header", |raw| word(raw, &HEADERS)).over(&base.proxy_header),
            tls: TlsLayer::read(fields.table("tls", &TLS).as_ref(), &base.tls, kind),
            auth: AuthLayer::read(fields.table("auth", &AUTH).as_ref(), &base.auth, kind),
            mail: MailLayer::read(fields.table("mail", &MAIL).as_ref(), &base.mail),
            data: DataLayer::read(fields.table("data", &DATA).as_ref(), &base.data),
        };
        if layer.auth.there && layer.auth.without_tls.known_or(false) == Some(false) {
            layer.refuse_overheard(fields, kind);
        }
        layer
    }

    /// Refuses a password that others could overhear.
    fn refuse_overheard(&self, fields: &Fields<'_>, kind: Option<CheckType>) {
        const SECRET: &str = "a password is not said without TLS";
        match kind {
            Some(kind) if kind.secured() == Secured::AsTold && self.tls.mode.known_or(None) == Some(None) => {
                let advice =
                    format!("{SECRET}; write tls = {{ mode = \"required\" }}, or auth.without_tls = true");
                fields.refuse(&["auth", "tls"], &advice);
            }
            Some(kind) if kind.says_passwords_openly() => {
                let twin = kind.secured_twin().map(|twin| format!("type = \"{twin}\", or "));
                let twin = twin.unwrap_or_default();
                fields.refuse(&["auth", "type"], &format!("{SECRET}; write {twin}auth.without_tls = true"));
            }
            _ => {}
        }
    }

    /// How to speak TLS with the first byte.
    pub(super) fn implicit_tls(&self) -> TlsSpec {
        TlsSpec { mode: TlsMode::Implicit, ..self.tls.built.clone() }
    }

    /// Whether and how to ask for TLS.
    pub(super) fn negotiated_tls(&self) -> Option<TlsSpec> {
        self.tls.mode.or(None).map(|mode| TlsSpec { mode, ..self.tls.built.clone() })
    }

    /// Who to log in as.
    pub(super) fn auth(&self) -> Option<AuthSpec> {
        self.auth.spec().map(|auth| *auth)
    }

    /// Writes the steps to `spec`.
    pub(super) fn put(&self, spec: &mut SmtpSpec) {
        spec.banner = self.banner.given().map(|(pattern, _)| pattern.clone());
        spec.banner_name = self.banner_name.given().map(|(name, _)| name.clone());
        spec.require = self.require.or(Vec::new());
        spec.proxy = self.proxy_header.given().map(|(header, _)| *header);
        spec.tls = self.negotiated_tls().map(Box::new);
        spec.auth = self.auth.spec();
        spec.mail = self.mail.spec();
        spec.data = self.data.spec();
    }
}

fn timeout(fields: &Fields<'_>, base: &Setting<Duration>) -> Setting<Duration> {
    fields.read("timeout", |raw| duration(raw, SHORTEST..=LONGEST)).over(base)
}

fn interval(fields: &Fields<'_>, base: &Setting<Duration>) -> Setting<Duration> {
    fields.read("interval", |raw| duration(raw, SHORTEST..=LONGEST)).over(base)
}

pub(super) const TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, Default)]
struct TlsLayer {
    mode: Setting<Option<TlsMode>>,
    verify: Setting<Verifying>,
    name: Setting<String>,
    pins: Setting<Vec<[u8; 32]>>,
    ca_file: Setting<PathBuf>,
    minimum: Setting<TlsVersion>,
    warn_days: Setting<u32>,
    interval: Setting<Duration>,
    timeout: Setting<Duration>,
    /// Built where the table stands, so that all servers below share what is prepared for it.
    built: TlsSpec,
}

impl TlsLayer {
    fn read(fields: Option<&Fields<'_>>, base: &Self, kind: Option<CheckType>) -> Self {
        let Some(fields) = fields else { return base.clone() };
        let mut layer = Self {
            mode: fields.read("mode", |raw| word(raw, &MODES)).over(&base.mode),
            verify: fields.read("verify", |raw| word(raw, &VERIFY)).over(&base.verify),
            name: fields.read("name", host_name).over(&base.name),
            pins: fields.list("pins", pin).over(&base.pins),
            ca_file: fields.read("ca_file", file).over(&base.ca_file),
            minimum: fields.read("min_version", |raw| word(raw, &VERSIONS)).over(&base.minimum),
            warn_days: fields.read("warn_days", |raw| whole(raw, 0..=3650)).over(&base.warn_days),
            interval: interval(fields, &base.interval),
            timeout: timeout(fields, &base.timeout),
            built: TlsSpec::default(),
        };
        match (kind.map(|kind| (kind.word(), kind.secured())), layer.mode.given()) {
            (Some((_, Secured::AsTold | Secured::OnRequest)), None) if layer.mode.is_absent() => {
                fields.rule("tls: mode is missing; mode = \"required\", for example".into());
            }
            (Some((word, Secured::Always)), Some((mode, _))) if *mode != Some(TlsMode::Implicit) => {
                fields.refuse_value(
                    "mode",
                    &format!("is not for type \"{word}\": its TLS begins with the first byte"),
                );
            }
            (Some((word, Secured::OnRequest)), Some((Some(TlsMode::Implicit), _))) => {
                fields.refuse_value(
                    "mode",
                    &format!("is not for type \"{word}\": TLS begins when the server agreed to it"),
                );
            }
            _ => {}
        }
        if kind.is_some_and(|kind| !kind.speaks_smtp()) {
            fields.refuse(&["interval"], "is for checks that speak SMTP only");
        }
        match layer.verify.known_or(Verifying::Chain) {
            Some(Verifying::Pinned) => {
                fields.refuse(&["ca_file"], "is not read with verify = \"pinned\"");
                if matches!(&layer.pins, Setting::Absent)
                    || layer.pins.given().is_some_and(|(pins, _)| pins.is_empty())
                {
                    fields.rule(
                        "tls: verify = \"pinned\" needs pins = [\"…\"]; see openssl x509 -fingerprint -sha256"
                            .into(),
                    );
                }
            }
            Some(Verifying::None) => {
                fields.refuse(&["ca_file", "pins"], "is not looked at with verify = \"none\"");
            }
            Some(Verifying::Chain | Verifying::Name) => {
                fields.refuse(&["pins"], "is for verify = \"pinned\" only");
            }
            None => {}
        }
        layer.built = layer.spec();
        layer
    }

    fn spec(&self) -> TlsSpec {
        let default = TlsSpec::default();
        TlsSpec {
            mode: self.mode.or(None).unwrap_or(default.mode),
            minimum: self.minimum.or(default.minimum),
            verify: match self.verify.or(Verifying::Chain) {
                Verifying::None => Verify::None,
                Verifying::Chain => Verify::Chain,
                Verifying::Name => Verify::Name,
                Verifying::Pinned => Verify::Pinned(self.pins.or(Vec::new())),
            },
            name: self.name.given().map(|(name, _)| name.clone()),
            ca_file: self.ca_file.or(default.ca_file),
            timeout: self.timeout.or(TIMEOUT),
            prepared: default.prepared,
        }
    }
}

#[derive(Clone, Debug, Default)]
struct AuthLayer {
    there: bool,
    login: Setting<Login>,
    mechanism: Setting<Mechanism>,
    without_tls: Setting<bool>,
    timeout: Setting<Duration>,
}

impl AuthLayer {
    fn read(fields: Option<&Fields<'_>>, base: &Self, kind: Option<CheckType>) -> Self {
        let Some(fields) = fields else { return base.clone() };
        let layer = Self {
            there: true,
            login: read_login(fields).over(&base.login),
            mechanism: fields.read("mechanism", |raw| word(raw, &MECHANISMS)).over(&base.mechanism),
            without_tls: fields.read("without_tls", boolean).over(&base.without_tls),
            timeout: timeout(fields, &base.timeout),
        };
        if layer.login.is_absent() {
            fields.rule(
                "auth: file is missing; it holds one line user:password; or write user and password".into(),
            );
        }
        if kind.is_some_and(|kind| !kind.speaks_smtp()) {
            fields.refuse(&["mechanism", "timeout"], "is for checks that speak SMTP only");
        }
        layer
    }

    fn spec(&self) -> Option<Box<AuthSpec>> {
        let (login, _) = self.login.given()?;
        Some(Box::new(AuthSpec {
            from: login.clone(),
            mechanism: self.mechanism.given().map(|(mechanism, _)| *mechanism),
            over: if self.without_tls.or(false) { AuthOver::Anything } else { AuthOver::Tls },
            timeout: self.timeout.or(TIMEOUT),
        }))
    }
}

/// Who to log in as: in a file, or here.
fn read_login(fields: &Fields<'_>) -> Setting<Login> {
    let read = |key: &'static str| fields.read(key, |raw| text(raw, "one line of text").map(str::to_owned));
    let (user, password) = (read("user"), read("password"));
    if fields.has("file") {
        fields.refuse(&["user", "password"], "is in the file already");
        return fields.read("file", |raw| file(raw).map(Login::File));
    }
    match (user, password) {
        (Setting::Absent, Setting::Absent) => Setting::Absent,
        (Setting::Given(user, place), Setting::Given(password, _)) => match Credential::new(&user, &password)
        {
            Some(credential) => Setting::Given(Login::Written(credential), place),
            None => {
                fields.refuse(&["user"], "is no login; user and password are one line each, and short");
                Setting::Wrong
            }
        },
        (user, password) => {
            if user.is_absent() {
                fields.refuse(&["password"], "needs its user");
            }
            if password.is_absent() {
                fields.refuse(&["user"], "needs its password");
            }
            Setting::Wrong
        }
    }
}

#[derive(Clone, Debug, Default)]
struct MailLayer {
    from: Setting<String>,
    accept: Setting<String>,
    refuse: Setting<String>,
    interval: Setting<Duration>,
    timeout: Setting<Duration>,
}

impl MailLayer {
    fn read(fields: Option<&Fields<'_>>, base: &Self) -> Self {
        let Some(fields) = fields else { return base.clone() };
        let layer = Self {
            from: fields.read("from", sender).over(&base.from),
            accept: fields.read("accept", recipient).over(&base.accept),
            refuse: fields.read("refuse", recipient).over(&base.refuse),
            interval: interval(fields, &base.interval),
            timeout: timeout(fields, &base.timeout),
        };
        if layer.accept.is_absent() && layer.refuse.is_absent() {
            fields.rule(
                "mail: accept is missing: a recipient of the farm, such as \"postmaster@example.com\"".into(),
            );
        }
        layer
    }

    fn spec(&self) -> Option<Box<MailSpec>> {
        let one = |setting: &Setting<String>| setting.given().map(|(address, _)| address.clone());
        let (accept, refuse) = (one(&self.accept), one(&self.refuse));
        (accept.is_some() || refuse.is_some()).then(|| {
            let (from, timeout) = (self.from.or(String::new()), self.timeout.or(TIMEOUT));
            Box::new(MailSpec { from, accept, refuse, timeout })
        })
    }
}

#[derive(Clone, Debug, Default)]
struct DataLayer {
    from: Setting<String>,
    to: Setting<String>,
    interval: Setting<Duration>,
    timeout: Setting<Duration>,
}

impl DataLayer {
    fn read(fields: Option<&Fields<'_>>, base: &Self) -> Self {
        let Some(fields) = fields else { return base.clone() };
        let layer = Self {
            from: fields.read("from", sender).over(&base.from),
            to: fields.read("to", recipient).over(&base.to),
            interval: interval(fields, &base.interval),
            timeout: timeout(fields, &base.timeout),
        };
        if layer.to.is_absent() {
            fields.rule("data: to is missing: a recipient whose mail the farm discards".into());
        }
        layer
    }

    fn spec(&self) -> Option<Box<DataSpec>> {
        let (to, _) = self.to.given()?;
        let (from, timeout) = (self.from.or(String::new()), self.timeout.or(TIMEOUT));
        Some(Box::new(DataSpec { from, to: to.clone(), timeout, text: None }))
    }
}

pub(super) fn pattern(raw: &Raw<'_>) -> Result<Pattern, String> {
    let text = text(raw, "a regular expression such as \"^220 mail\\\\d\"")?;
    Pattern::new(text).map_err(|error| format!("{} is no regular expression: {error}", raw.shown()))
}

pub(super) fn host_name(raw: &Raw<'_>) -> Result<String, String> {
    let want = "a host name such as \"mail.example.com\"";
    let text = text(raw, want)?;
    if is_host_name(text) {
        Ok(text.to_owned())
    } else {
        Err(format!("{} is not a host name; {want}", raw.shown()))
    }
}

fn requirement(raw: &Raw<'_>) -> Result<Requirement, String> {
    let want = "a capability such as \"STARTTLS\", \"SIZE 10240000\" or \"AUTH PLAIN LOGIN\"";
    Requirement::parse(text(raw, want)?).ok_or_else(|| format!("{} is not {want}", raw.shown()))
}

/// As `openssl x509 -fingerprint -sha256` prints it, with or without the colons.
fn pin(raw: &Raw<'_>) -> Result<[u8; 32], String> {
    let want = "the SHA-256 of a certificate or of its public key, 64 hexadecimal digits";
    let text = text(raw, want)?;
    parse_pin(text).ok_or_else(|| format!("{} is not {want}", raw.shown()))
}

/// The 32 bytes of a SHA-256 in hexadecimal, pairs with or without colons between them.
pub(crate) fn parse_pin(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|c| *c != ':')
        .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()?;
    let bytes: Vec<u8> =
        digits.chunks(2).map(|pair| pair.iter().fold(0, |n, digit| n * 16 + digit)).collect();
    if digits.len() == 64 { bytes.try_into().ok() } else { None }
}

pub(super) fn file(raw: &Raw<'_>) -> Result<PathBuf, String> {
    let want = "an absolute path such as \"/etc/smtp-director/file\"";
    let text = text(raw, want)?;
    if text.starts_with('/') && !text.contains('\0') {
        Ok(text.into())
    } else {
        Err(format!("{} is not {want}", raw.shown()))
    }
}

pub(super) fn sender(raw: &Raw<'_>) -> Result<String, String> {
    let want = "an address such as \"check@example.com\", or \"\" for the null sender";
    let text = text(raw, want)?;
    if text.is_empty() || is_mailbox(text) {
        Ok(text.to_owned())
    } else {
        Err(format!("{} is not {want}", raw.shown()))
    }
}

pub(super) fn recipient(raw: &Raw<'_>) -> Result<String, String> {
    let want = "an address such as \"postmaster@example.com\"";
    let text = text(raw, want)?;
    if is_mailbox(text) { Ok(text.to_owned()) } else { Err(format!("{} is not {want}", raw.shown())) }
}

#[cfg(test)]
mod tests;
