//! The steps of a check as flags of `probe`.
//!
//! Owns their names and what they come to: a [`SmtpSpec`]. Refuses to ask anybody. Fails where flags need each other,
//! with the exit code of a wrong command line.

use std::path::PathBuf;
use std::time::Duration;

use checks::credential::Login;
use checks::proxy_header::Version;
use checks::smtp::ehlo::Requirement;
use checks::smtp::{
    AuthOver, AuthSpec, DataSpec, Dialect, MailSpec, Pattern, ProxyHeader, SmtpSpec, is_mailbox,
};
use checks::tls::{DEFAULT_CA_FILE, TlsMode, TlsSpec, TlsVersion, Verify};
use clap::ValueEnum;

use super::Exit;
use crate::config::load::host_name;
use crate::config::native::{is_ehlo_name, parse_pin};

/// What a step takes at most that has no default of its own.
const STEP: Duration = Duration::from_secs(5);

/// What to say to the server, step by step.
#[derive(Debug, clap::Args)]
#[group(id = "steps", multiple = true, conflicts_with = "virtual_name")]
pub(super) struct Steps {
    /// The name to give in EHLO; this machine's name where none is given.
    #[arg(long, value_name = "NAME", value_parser = ehlo_name)]
    ehlo_name: Option<String>,
    /// Speak LMTP: LHLO instead of EHLO.
    #[arg(long)]
    lmtp: bool,
    /// Send a PROXY header first.
    #[arg(long, value_name = "VERSION")]
    proxy: Option<Header>,
    /// A line of the banner matches this regular expression, its code included.
    #[arg(long, value_name = "REGEX", value_parser = Pattern::new)]
    banner: Option<Pattern>,
    /// The host name that the banner begins with.
    #[arg(long, value_name = "NAME")]
    banner_name: Option<String>,
    /// A capability that must be offered: STARTTLS, "SIZE 10240000", "AUTH PLAIN LOGIN"; may be given again.
    #[arg(long, value_name = "CAPABILITY", value_parser = requirement)]
    require: Vec<Requirement>,
    /// Whether to say STARTTLS.
    #[arg(long, value_name = "WHEN", default_value = "off", conflicts_with = "implicit_tls")]
    starttls: StartTls,
    /// Speak TLS from the first byte, as on port 465.
    #[arg(long)]
    implicit_tls: bool,
    /// What to ask of the certificate.
    #[arg(long, value_name = "WHAT", default_value = "chain")]
    verify: Verifying,
    /// The name to verify, and to ask the server for; its address where none is given.
    #[arg(long, value_name = "NAME")]
    tls_name: Option<String>,
    /// SHA-256 of the certificate or of its public key, for --verify pinned; may be given again.
    #[arg(long, value_name = "HEX", value_parser = pin)]
    pin: Vec<[u8; 32]>,
    /// Whom to trust, in PEM.
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CA_FILE)]
    ca_file: PathBuf,
    /// The oldest version of TLS that will do.
    #[arg(long, value_name = "VERSION", default_value = "1.2")]
    min_tls: Oldest,
    /// Log in with the line user:password of this file, which others must not be able to read.
    #[arg(long, value_name = "FILE")]
    auth_file: Option<PathBuf>,
    /// Log in even where the password can be overheard.
    #[arg(long, requires = "auth_file")]
    auth_without_tls: bool,
    /// The sender of MAIL FROM; the null sender where none is given.
    #[arg(long, value_name = "ADDRESS", default_value = "", hide_default_value = true, value_parser = sender)]
    from: String,
    /// A recipient that must be accepted. No mail is sent.
    #[arg(long, value_name = "ADDRESS", value_parser = mailbox)]
    rcpt: Option<String>,
    /// A recipient elsewhere that must be refused.
    #[arg(long, value_name = "ADDRESS", value_parser = mailbox)]
    refuse_rcpt: Option<String>,
    /// Send a small message to this recipient, which should be discarded.
    #[arg(long, value_name = "ADDRESS", value_parser = mailbox)]
    data: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Header {
    V1,
    V2,
    V2Local,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum StartTls {
    Off,
    Opportunistic,
    Required,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Verifying {
    /// Nothing.
    None,
    /// That it leads to one of the CA file.
    Chain,
    /// Also that it is for the name.
    Name,
    /// That it is one of --pin.
    Pinned,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Oldest {
    #[value(name = "1.2")]
    V12,
    #[value(name = "1.3")]
    V13,
}

impl Steps {
    /// The spec, each step of which may take `patience`, or as long as the daemon would wait.
    ///
    /// # Errors
    /// [`Exit::USAGE`] where a flag lacks another.
    pub(super) fn spec(&self, patience: Option<Duration>) -> Result<SmtpSpec, Exit> {
        let tls = self.tls(patience)?;
        if self.auth_file.is_some() && tls.is_none() && !self.auth_without_tls {
            let text = "a password is not said without TLS; --starttls required, --implicit-tls or --auth-without-tls";
            return Err(Exit::new(Exit::USAGE, text));
        }
        let default = SmtpSpec::default();
        let step = patience.unwrap_or(STEP);
        let asks = self.rcpt.is_some() || self.refuse_rcpt.is_some();
        if !asks && self.data.is_none() && !self.from.is_empty() {
            return Err(Exit::new(Exit::USAGE, "--from is for --rcpt, --refuse-rcpt or --data"));
        }
        Ok(SmtpSpec {
            dialect: if self.lmtp { Dialect::Lmtp } else { Dialect::Smtp },
            ehlo_name: self.ehlo_name.clone().unwrap_or_else(host_name),
            proxy: self.proxy.map(|header| match header {
                Header::V1 => ProxyHeader::Proxy(Version::V1),
                Header::V2 => ProxyHeader::Proxy(Version::V2),
                Header::V2Local => ProxyHeader::Local,
            }),
            banner: self.banner.clone(),
            banner_name: self.banner_name.clone(),
            require: self.require.clone(),
            tls: tls.map(Box::new),
            auth: self.auth_file.clone().map(|file| {
                let over = if self.auth_without_tls { AuthOver::Anything } else { AuthOver::Tls };
                Box::new(AuthSpec { from: Login::File(file), mechanism: None, over, timeout: step })
            }),
            mail: asks.then(|| {
                let (accept, refuse) = (self.rcpt.clone(), self.refuse_rcpt.clone());
                Box::new(MailSpec { from: self.from.clone(), accept, refuse, timeout: step })
            }),
            data: self
                .data
                .clone()
                .map(|to| Box::new(DataSpec { from: self.from.clone(), to, timeout: step, text: None })),
            banner_timeout: patience.unwrap_or(default.banner_timeout),
            ehlo_timeout: patience.unwrap_or(default.ehlo_timeout),
            quit_timeout: patience.unwrap_or(default.quit_timeout),
        })
    }

    fn tls(&self, patience: Option<Duration>) -> Result<Option<TlsSpec>, Exit> {
        let mode = match (self.implicit_tls, self.starttls) {
            (true, _) => TlsMode::Implicit,
            (false, StartTls::Required) => TlsMode::Required,
            (false, StartTls::Opportunistic) => TlsMode::Opportunistic,
            (false, StartTls::Off) => return Ok(None),
        };
        let verify = match self.verify {
            Verifying::None => Verify::None,
            Verifying::Chain => Verify::Chain,
            Verifying::Name => Verify::Name,
            Verifying::Pinned if self.pin.is_empty() => {
                return Err(Exit::new(Exit::USAGE, "--verify pinned needs --pin"));
            }
            Verifying::Pinned => Verify::Pinned(self.pin.clone()),
        };
        Ok(Some(TlsSpec {
            mode,
            minimum: match self.min_tls {
                Oldest::V12 => TlsVersion::V12,
                Oldest::V13 => TlsVersion::V13,
            },
            verify,
            name: self.tls_name.clone(),
            ca_file: self.ca_file.clone(),
            timeout: patience.unwrap_or(STEP),
            ..TlsSpec::default()
        }))
    }
}

fn ehlo_name(text: &str) -> Result<String, String> {
    if is_ehlo_name(text) {
        Ok(text.to_owned())
    } else {
        Err("a host name such as director.example.com, or an address such as [192.0.2.1]".to_owned())
    }
}

fn requirement(text: &str) -> Result<Requirement, String> {
    Requirement::parse(text).ok_or_else(|| "a capability such as STARTTLS or \"SIZE 10240000\"".to_owned())
}

fn pin(text: &str) -> Result<[u8; 32], String> {
    parse_pin(text).ok_or_else(|| "64 hexadecimal digits".to_owned())
}

fn mailbox(text: &str) -> Result<String, String> {
    if is_mailbox(text) {
        Ok(text.to_owned())
    } else {
        Err("an address such as postmaster@example.com".to_owned())
    }
}

fn sender(text: &str) -> Result<String, String> {
    if text.is_empty() { Ok(String::new()) } else { mailbox(text) }
}
