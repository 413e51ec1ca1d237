//! The keys of the world beside the table: `log_to`, `fallback_command`, and the `alert` tables.
//!
//! Owns their syntax and the merge of the two levels at which a mail is spoken of. Refuses to know how a mail is sent.

use std::net::IpAddr;
use std::time::Duration;

use checks::external::bracketed;
use checks::smtp::is_mailbox;
use config::ValueKind;

use super::fields::{Fields, Raw, Setting};
use super::steps::file;
use super::values::{choice, duration, is_host_name, text};
use crate::config::{Alert, CommandLine, Facility, LogTarget, Phase, Phases, Relay};

const DAY: Duration = Duration::from_secs(86_400);
/// Most recipients of one mail; RFC 5321 section 4.5.3.1.8 lets every server take as many.
const MOST_RECIPIENTS: usize = 100;
/// Longest line of a mail that a person writes.
const MOST_TEXT: usize = 200;

/// What `alert` tables say, one laid over the other.
#[derive(Clone, Debug, Default)]
pub(super) struct AlertLayer {
    to: Setting<Vec<String>>,
    from: Setting<String>,
    every: Setting<Duration>,
    when: Setting<Phases>,
    relay: Setting<Relay>,
    service: Setting<String>,
    comment: Setting<String>,
}

impl AlertLayer {
    /// Reads the table of one level and lays it over `base`.
    pub(super) fn read(fields: Option<&Fields<'_>>, base: &Self) -> Self {
        let Some(fields) = fields else { return base.clone() };
        Self {
            to: fields.read("to", recipients).over(&base.to),
            from: fields.read("from", sender).over(&base.from),
            every: fields.read("every", |raw| duration(raw, Duration::ZERO..=30 * DAY)).over(&base.every),
            when: fields.read("when", phases).over(&base.when),
            relay: fields.read("smtp", relay).over(&base.relay),
            service: fields.read("service", line).over(&base.service),
            comment: fields.read("comment", line).over(&base.comment),
        }
    }

    /// What comes of it.
    pub(super) fn alert(&self) -> Alert {
        Alert {
            to: self.to.or(Vec::new()),
            from: self.from.given().map(|(from, _)| from.clone()),
            every: self.every.given().map(|(every, _)| *every).filter(|every| !every.is_zero()),
            when: self.when.or(Phases::default()),
            relay: self.relay.given().map(|(relay, _)| relay.clone()),
            service: self.service.given().map(|(service, _)| service.clone()),
            comment: self.comment.given().map(|(comment, _)| comment.clone()),
        }
    }
}

/// One address, or a list of them.
fn recipients(raw: &Raw<'_>) -> Result<Vec<String>, String> {
    let want = "an address such as \"postmaster@example.com\", or a list of them";
    let all = texts(raw, want)?;
    if all.len() > MOST_RECIPIENTS {
        return Err(format!("{} is too long; at most {MOST_RECIPIENTS} recipients", raw.shown()));
    }
    match all.iter().find(|one| !is_recipient(one)) {
        Some(wrong) => Err(format!("{wrong:?} is not {want}")),
        None => Ok(all.into_iter().map(str::to_owned).collect()),
    }
}

/// A mailbox, or the name of a local user.
fn is_recipient(text: &str) -> bool {
    let local = |c: char| c.is_ascii_alphanumeric() || "._+-".contains(c);
    is_mailbox(text)
        || (!text.is_empty() && text.len() <= 64 && text.chars().all(local) && !text.starts_with('-'))
}

/// What stands after `From:`; it may be more than an address.
fn sender(raw: &Raw<'_>) -> Result<String, String> {
    let want = "a sender such as \"director@example.com\" or \"Director <director@example.com>\"";
    let text = text(raw, want)?;
    if is_line(text) { Ok(text.to_owned()) } else { Err(format!("{} is not {want}", raw.shown())) }
}

fn line(raw: &Raw<'_>) -> Result<String, String> {
    let want = format!("one line of at most {MOST_TEXT} bytes");
    let text = text(raw, &want)?;
    if is_line(text) { Ok(text.to_owned()) } else { Err(format!("{} is not {want}", raw.shown())) }
}

fn is_line(text: &str) -> bool {
    !text.is_empty() && text.len() <= MOST_TEXT && !text.contains(char::is_control)
}

/// `"all"`, `"none"`, or a list of phases.
fn phases(raw: &Raw<'_>) -> Result<Phases, String> {
    let words: Vec<&str> = Phase::ALL.iter().map(|phase| phase.name()).collect();
    let want = format!("\"all\", \"none\", or a list of {}", choice(&words));
    let mut phases = Phases::NONE;
    match texts(raw, &want)?.as_slice() {
        ["all"] => return Ok(Phases::default()),
        ["none"] => return Ok(Phases::NONE),
        names => {
            for name in names {
                let known = Phase::ALL.iter().find(|phase| phase.name() == *name);
                phases = phases.with(*known.ok_or_else(|| format!("{name:?} is unknown; {want}"))?);
            }
        }
    }
    Ok(phases)
}

/// A string, or a list of strings.
fn texts<'a>(raw: &Raw<'a>, want: &str) -> Result<Vec<&'a str>, String> {
    match raw.kind {
        ValueKind::String(text) => Ok(vec![text]),
        ValueKind::Array(items) => {
            let one = |item: &'a config::Value| match &item.kind {
                ValueKind::String(text) => Ok(text.as_str()),
                _ => Err(format!("{} holds something else than strings; {want}", raw.shown())),
            };
            items.iter().map(one).collect()
        }
        _ => Err(raw.is_not(want)),
    }
}

/// `host`, `host:port`, `192.0.2.1:25`, `[2001:db8::1]:25`.
fn relay(raw: &Raw<'_>) -> Result<Relay, String> {
    const PORT: u16 = 25;
    let want = "a mail server such as \"mail.example.com\", \"192.0.2.1:2525\" or \"[2001:db8::1]:25\"";
    let text = text(raw, want)?;
    let wrong = || format!("{} is not {want}", raw.shown());
    if text.parse::<IpAddr>().is_ok() {
        return Ok(Relay { host: text.to_owned(), port: PORT });
    }
    let (host, port) = match text.parse::<std::net::SocketAddr>() {
        Ok(address) => (address.ip().to_string(), address.port()),
        Err(_) => match text.split_once(':') {
            Some((host, port)) => (host.to_owned(), port.parse().map_err(|_| wrong())?),
            None => (text.to_owned(), PORT),
        },
    };
    let good = port != 0 && (host.parse::<IpAddr>().is_ok() || is_host_name(&host));
    if good { Ok(Relay { host, port }) } else { Err(wrong()) }
}

/// `"stderr"`, `"stdout"`, `"syslog:mail"`, or a file.
pub(super) fn log_target(raw: &Raw<'_>) -> Result<LogTarget, String> {
    let want = "\"stderr\", \"stdout\", an absolute path, or a facility such as \"syslog:mail\"";
    match text(raw, want)? {
        "stderr" => Ok(LogTarget::Stderr),
        "stdout" => Ok(LogTarget::Stdout),
        text if text.starts_with('/') => file(raw).map(LogTarget::File),
        text => {
            let name =
                text.strip_prefix("syslog:").ok_or_else(|| format!("{} is not {want}", raw.shown()))?;
            Facility::from_name(name).map(LogTarget::Syslog).ok_or_else(|| {
                let known = Facility::KNOWN.map(|(name, _)| name).join(", ");
                format!("{} is no facility of syslog; known are {known}", raw.shown())
            })
        }
    }
}

/// A program, or a list of it and its arguments.
pub(super) fn command_line(raw: &Raw<'_>) -> Result<CommandLine, String> {
    let want = "an absolute path such as \"/usr/local/sbin/on-fallback\", or a list of it and its arguments";
    let words = texts(raw, want)?;
    match words.split_first() {
        Some((program, arguments)) if program.starts_with('/') && !words.iter().any(|w| w.contains('\0')) => {
            Ok(CommandLine {
                program: program.into(),
                arguments: arguments.iter().map(|&one| one.to_owned()).collect(),
            })
        }
        _ => Err(format!("{} is not {want}", raw.shown())),
    }
}

/// What the lines of a monitor file call a server, around its address.
#[derive(Clone, Debug)]
pub(super) struct Name([String; 2]);

impl Name {
    /// The name of the server at that address, in which a colon is a blank.
    pub(super) fn of(&self, ip: IpAddr) -> String {
        let Self([before, behind]) = self;
        let address = bracketed(ip).split(':').filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
        format!("{before} {address} {behind}")
    }
}

/// `monitor_as`, for the lines that scripts of ldirectord read.
pub(super) fn monitor_as(raw: &Raw<'_>) -> Result<Name, String> {
    let want = "a list of two texts, before the address and behind it, such as [\"negotiate smtp tcp\", \"25 1 gate / \"]";
    match texts(raw, want)?.as_slice() {
        &[before, behind] if !before.contains('\n') && !behind.contains('\n') => {
            Ok(Name([before.to_owned(), behind.to_owned()]))
        }
        _ => Err(format!("{} is not {want}", raw.shown())),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::{Config, MonitorFile, OnExit};

    fn farm(top: &str, of_virtual: &str) -> Result<Config, Vec<String>> {
        let text = format!(
            "{top}\n[[virtual]]\naddress = \"192.0.2.25:25\"\nreal = [{{ address = \"10.0.0.11\" }}]\n{of_virtual}\n"
        );
        super::super::lower(&text, &[], "director.test")
            .map_err(|problems| problems.into_iter().map(|problem| problem.message).collect())
    }

    fn alert(top: &str, of_virtual: &str) -> Alert {
        farm(top, of_virtual).unwrap().virtuals.remove(0).alert
    }

    #[test]
    fn without_a_word_nothing_is_mailed_run_or_written_elsewhere() {
        let config = farm("", "").unwrap();
        assert_eq!(config.log_to, LogTarget::Stderr);
        assert_eq!((config.supervised, config.readd_quiescent), (false, true));
        assert_eq!((config.callback, config.execute, config.maintenance_dir), (None, vec![], None));
        let one = &config.virtuals[0];
        assert_eq!(one.alert, Alert::default());
        assert!(one.alert.to.is_empty() && Phase::ALL.iter().all(|phase| one.alert.when.has(*phase)));
        assert_eq!((&one.fallback_command, &one.monitor_file), (&None, &None));
        assert_eq!((one.on_exit, one.floor), (OnExit::Keep, Some(50)));
    }

    #[test]
    fn every_key_is_taken() {
        let top = r#"
            log_to = "syslog:local3"
            supervised = true
            callback = "/usr/local/sbin/changed"
            execute = ["/etc/a.cf", "/etc/b.cf"]
            maintenance_dir = "/etc/maintenance"
            readd_quiescent = false
            on_exit = "remove"
        "#;
        let of_virtual = r#"
            on_exit = "keep"
            floor = "off"
            fallback_command = ["/usr/local/sbin/on-fallback", "web"]
            monitor_file = "/var/log/mail.monitor"
        "#;
        let config = farm(top, of_virtual).unwrap();
        assert_eq!(config.log_to, LogTarget::Syslog(Facility { name: "local3", code: 19 }));
        assert_eq!((config.supervised, config.readd_quiescent), (true, false));
        assert_eq!(config.callback, Some("/usr/local/sbin/changed".into()));
        assert_eq!(config.execute, ["/etc/a.cf", "/etc/b.cf"].map(std::path::PathBuf::from));
        assert_eq!(config.maintenance_dir, Some("/etc/maintenance".into()));
        let one = &config.virtuals[0];
        assert_eq!((config.on_exit, one.on_exit, one.floor), (OnExit::Remove, OnExit::Keep, None));
        let command = one.fallback_command.clone().unwrap();
        assert_eq!(command.program, std::path::PathBuf::from("/usr/local/sbin/on-fallback"));
        assert_eq!(command.arguments, ["web"]);
        assert_eq!(
            one.monitor_file,
            Some(MonitorFile { path: "/var/log/mail.monitor".into(), names: BTreeMap::new() })
        );
        assert_eq!(farm("on_exit = \"remove\"", "").unwrap().virtuals[0].on_exit, OnExit::Remove);
        assert_eq!(farm("log_to = \"/var/log/x\"", "").unwrap().log_to, LogTarget::File("/var/log/x".into()));
        assert_eq!(farm("log_to = \"stdout\"", "").unwrap().log_to, LogTarget::Stdout);
    }

    #[test]
    fn an_alert_is_laid_over_that_of_the_top_level_key_by_key() {
        let top = r#"
            [alert]
            to = "postmaster@example.com"
            from = "Director <director@example.com>"
            every = "5m"
            smtp = "mail.example.com"
        "#;
        let got = alert(
            top,
            "alert = { to = [\"a@example.com\", \"root\"], when = [\"running\"], service = \"mx\", comment = \"call Ann\" }",
        );
        let relay = Relay { host: "mail.example.com".into(), port: 25 };
        assert_eq!(
            got,
            Alert {
                to: vec!["a@example.com".into(), "root".into()],
                from: Some("Director <director@example.com>".into()),
                every: Some(Duration::from_secs(300)),
                when: Phases::NONE.with(Phase::Running),
                relay: Some(relay),
                service: Some("mx".into()),
                comment: Some("call Ann".into()),
            }
        );
        assert_eq!(alert(top, "alert.every = \"0s\"").every, None);
        assert_eq!(alert(top, "alert.when = \"none\"").when, Phases::NONE);
        for (text, host, port) in [
            ("192.0.2.1", "192.0.2.1", 25),
            ("192.0.2.1:2525", "192.0.2.1", 2525),
            ("[2001:db8::1]:2525", "2001:db8::1", 2525),
            ("2001:db8::1", "2001:db8::1", 25),
            ("mail:587", "mail", 587),
        ] {
            let relay = Relay { host: host.into(), port };
            assert_eq!(alert(&format!("alert.smtp = \"{text}\""), "").relay, Some(relay), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_what_would_be_right() {
        for (top, want) in [
            (
                "log_to = \"syslog:postfix\"",
                "log_to: \"syslog:postfix\" is no facility of syslog; known are kern",
            ),
            ("log_to = \"x.log\"", "log_to: \"x.log\" is not \"stderr\", \"stdout\", an absolute path"),
            ("execute = [\"a.cf\"]", "execute: \"a.cf\" is not an absolute path"),
            ("alert.to = \"a b\"", "to: \"a b\" is not an address"),
            ("alert.to = \"-oQ/tmp\"", "to: \"-oQ/tmp\" is not an address"),
            ("alert.from = \"a\\nBcc: b\"", "from: \"a\\nBcc: b\" is not a sender"),
            ("alert.when = \"sleeping\"", "when: \"sleeping\" is unknown; \"all\", \"none\""),
            ("alert.smtp = \"mail:0\"", "smtp: \"mail:0\" is not a mail server"),
            ("alert.smtp = \"-x\"", "smtp: \"-x\" is not a mail server"),
            ("alert.every = 5", "every: 5 has no unit"),
        ] {
            let problems = farm(top, "").unwrap_err();
            assert!(problems.len() == 1 && problems[0].starts_with(want), "{top}: {problems:?}");
        }
        let problems = farm("", "fallback_command = [\"true\"]\nfloor = 101").unwrap_err();
        assert!(
            problems.iter().any(|p| p.contains("fallback_command: this is not an absolute path")),
            "{problems:?}"
        );
        assert!(problems.iter().any(|p| p.contains("or \"off\"")), "{problems:?}");
    }

    #[test]
    fn a_server_is_called_as_scripts_of_ldirectord_know_it() {
        let text = "[[virtual]]\naddress = \"[2001:db8::25]:25\"\nmonitor_file = \"/m\"\nreal = [{ address = \"2001:db8::1\", \
            monitor_as = [\"negotiate smtp tcp\", \"25 1 gate / \"] }, { address = \"::2\" }]\n";
        let config = super::super::lower(text, &[], "director.test").unwrap();
        let names = &config.virtuals[0].monitor_file.as_ref().unwrap().names;
        assert_eq!(names.values().collect::<Vec<_>>(), ["negotiate smtp tcp [2001 db8 1] 25 1 gate / "]);
        let wrong = text.replace("\"25 1 gate / \"", "\"a\\nb\"");
        assert!(super::super::lower(&wrong, &[], "director.test").is_err());
    }
}
