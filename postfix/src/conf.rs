//! EDGE: what is needed of a Postfix instance's configuration.
//!
//! Owns [`Conf`], read from what `postconf` says and from `master.cf`. Refuses to know defaults: `postconf` has them.
//! Fails with a text for people.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::bounded::Run;
use crate::report::Version;
use crate::report::json::is_name;

/// How long `postconf` and `postmulti` may take.
const LIMIT: Duration = Duration::from_secs(10);
/// Most bytes of what they say, and of `master.cf`.
const MOST: u64 = 1 << 20;
/// Most instances of a box.
const MOST_INSTANCES: usize = 64;

/// One Postfix instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Conf {
    /// `multi_instance_name`, or the last part of the configuration directory.
    pub(crate) name: String,
    pub(crate) config_directory: PathBuf,
    pub(crate) queue_directory: PathBuf,
    /// Where `master.pid` is.
    pub(crate) pid_directory: PathBuf,
    pub(crate) version: Option<Version>,
    pub(crate) smtpd: Option<Smtpd>,
}

/// The smtpd service that is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Smtpd {
    /// Most processes; `None` for no limit.
    pub(crate) limit: Option<u64>,
    /// Where clients connect; `None` where the service gets them from postscreen, or by a name that is not known here.
    pub(crate) port: Option<u16>,
}

const PARAMETERS: [&str; 5] = [
    "queue_directory",
    "process_id_directory",
    "default_process_limit",
    "mail_version",
    "multi_instance_name",
];

impl Conf {
    /// From `postconf`'s `name = value` lines and the text of `master.cf`. `service` is the smtpd to watch, by its first
    /// column; without it, the first smtpd that is there.
    pub(crate) fn parse(
        directory: &Path,
        parameters: &str,
        master: &str,
        service: Option<&str>,
    ) -> Result<Self, String> {
        let value = |name: &str| {
            let lines = parameters.lines().filter_map(|line| line.split_once('='));
            let mut values = lines.filter(|(key, _)| key.trim() == name).map(|(_, value)| value.trim());
            values.next().filter(|value| !value.is_empty())
        };
        let queue = value("queue_directory").filter(|path| path.starts_with('/'));
        let queue = PathBuf::from(queue.ok_or("postconf names no queue_directory")?);
        let limit = value("default_process_limit").and_then(|limit| limit.parse().ok());
        Ok(Self {
            name: [value("multi_instance_name"), directory.file_name().and_then(|name| name.to_str())]
                .into_iter()
                .flatten()
                .find(|name| is_name(name))
                .unwrap_or("postfix")
                .to_owned(),
            config_directory: directory.to_owned(),
            pid_directory: queue.join(value("process_id_directory").unwrap_or("pid")),
            queue_directory: queue,
            version: value("mail_version").and_then(Version::parse),
            smtpd: smtpd(master, service, limit),
        })
    }

    /// Asks `postconf` and reads `master.cf`.
    pub(crate) fn load(directory: &Path, service: Option<&str>) -> Result<Self, String> {
        let trouble = |what: &dyn std::fmt::Display| format!("{}: {what}", directory.display());
        let mut command = Command::new("postconf");
        command.arg("-c").arg(directory).arg("-x").args(PARAMETERS);
        let said = Run::start(&mut command, LIMIT, MOST).and_then(Run::text);
        let parameters = said.map_err(|why| trouble(&format_args!("postconf fails ({})", why.word())))?;
        let mut master = String::new();
        let file = File::open(directory.join("master.cf")).map(|file| file.take(MOST));
        // Without it only the figures of smtpd are missing.
        let read = file.and_then(|mut file| file.read_to_string(&mut master));
        let master = if read.is_ok() { master.as_str() } else { "" };
        Self::parse(directory, &parameters, master, service).map_err(|why| trouble(&why))
    }
}

/// The configuration directories of the instances that `postmulti` knows and that are enabled.
pub(crate) fn instances() -> Result<Vec<PathBuf>, String> {
    let said = Run::start(Command::new("postmulti").arg("-l"), LIMIT, MOST).and_then(Run::text);
    let list = said.map_err(|why| format!("postmulti fails ({})", why.word()))?;
    let found = parse_instances(&list);
    if found.is_empty() { Err("postmulti knows no instance that is enabled".to_owned()) } else { Ok(found) }
}

/// Lines of name, group, `y` or `n`, and directory.
fn parse_instances(list: &str) -> Vec<PathBuf> {
    let enabled = |line: &str| {
        let mut words = line.split_whitespace().skip(2);
        let (enabled, directory) = (words.next()?, words.next()?);
        (enabled == "y" && directory.starts_with('/')).then(|| PathBuf::from(directory))
    };
    list.lines().filter_map(enabled).take(MOST_INSTANCES).collect()
}

/// The columns of `master.cf` (master(5)): service, type, private, unpriv, chroot, wakeup, maxproc, command.
fn smtpd(master: &str, service: Option<&str>, default_limit: Option<u64>) -> Option<Smtpd> {
    // A line that begins with a blank goes on with the one before: arguments, which do not matter here.
    let lines = master.lines().filter(|line| !line.starts_with([' ', '\t', '#']));
    let rows: Vec<Vec<&str>> = lines.map(|line| line.split_whitespace().collect()).collect();
    let command = |row: &Vec<&str>, name: &str| row.get(7) == Some(&name);
    let chosen = |row: &&Vec<&str>| {
        command(row, "smtpd") && service.is_none_or(|service| row.first() == Some(&service))
    };
    let row = rows.iter().find(chosen)?;
    let limit = match *row.get(6)? {
        "-" => default_limit?,
        number => number.parse().ok()?,
    };
    let port = if row.get(1) == Some(&"inet") { port(row.first()?) } else { None };
    Some(Smtpd { limit: Some(limit).filter(|limit| *limit > 0), port })
}

/// The port of `host:port`, `[address]:port` or `port`, by number or by a name that mail servers use.
fn port(service: &str) -> Option<u16> {
    match service.rsplit(':').next()? {
        "smtp" => Some(25),
        "smtps" | "submissions" => Some(465),
        "submission" => Some(587),
        number => number.parse().ok().filter(|port| *port > 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARAMETERS: &str = "queue_directory = /var/spool/postfix\nprocess_id_directory = pid\n\
        default_process_limit = 100\nmail_version = 3.7.11\nmulti_instance_name =\n";

    fn conf(master: &str, service: Option<&str>) -> Conf {
        Conf::parse(Path::new("/etc/postfix"), PARAMETERS, master, service).unwrap()
    }

    #[test]
    fn an_instance_is_found_by_what_postconf_says() {
        let conf = conf("", None);
        assert_eq!((conf.name.as_str(), conf.version.unwrap().to_string().as_str()), ("postfix", "3.7.11"));
        assert_eq!(conf.pid_directory, Path::new("/var/spool/postfix/pid"));
        assert_eq!(conf.smtpd, None);
        for wrong in ["", "queue_directory =\n", "queue_directory = spool\n", "x"] {
            assert!(Conf::parse(Path::new("/x"), wrong, "", None).is_err(), "{wrong}");
        }
        let hostile = "queue_directory = /q\nmulti_instance_name = a\u{1b}[2J\nmail_version = \"}\n";
        let conf = Conf::parse(Path::new("/"), hostile, "", None).unwrap();
        assert_eq!((conf.name.as_str(), conf.version), ("postfix", None));
    }

    #[test]
    fn the_limit_of_smtpd_is_that_of_its_line() {
        let smtpd = |limit, port| Some(Smtpd { limit, port });
        for (master, service, expected) in [
            ("smtp inet n - y - - smtpd\n", None, smtpd(Some(100), Some(25))),
            (
                "# smtp inet n - y - 5 smtpd\nsmtp inet n - y - 7 smtpd\n -o x=y smtpd\n",
                None,
                smtpd(Some(7), Some(25)),
            ),
            ("192.0.2.1:2525 inet n - n - 0 smtpd", None, smtpd(None, Some(2525))),
            ("[::1]:submission inet n - n - 3 smtpd", None, smtpd(Some(3), Some(587))),
            ("smtp inet n - y - 1 postscreen\nsmtpd pass - - y - - smtpd\n", None, smtpd(Some(100), None)),
            (
                "smtp inet n - y - 1 smtpd\n10025 inet n - y - 9 smtpd\n",
                Some("10025"),
                smtpd(Some(9), Some(10025)),
            ),
            ("smtp inet n - y - 1 smtpd\n", Some("10025"), None),
            ("smtp inet n - y - -1 smtpd\n", None, None),
            ("smtp inet n - y\n\u{0}\n", None, None),
        ] {
            assert_eq!(conf(master, service).smtpd, expected, "{master:?}");
        }
    }

    #[test]
    fn only_instances_that_are_enabled_are_asked() {
        let list = "-               -               y         /etc/postfix\n\
                    postfix-out     -               y         /etc/postfix-out\n\
                    postfix-old     mta             n         /etc/postfix-old\nodd line\n";
        assert_eq!(parse_instances(list), [Path::new("/etc/postfix"), Path::new("/etc/postfix-out")]);
    }
}
