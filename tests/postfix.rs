//! What real Postfix says of our checks: a private instance, on loopback, with all that it writes in one folder.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "also in the functions that the tests share")]

mod canary;
mod faults;

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use checks::smtp::SmtpSpec;
use checks::{CheckSpec, Kind, Reason, Stage};
use rustix::process::Pid;

const LIMIT: Duration = Duration::from_secs(30);

/// A running instance, which stops and leaves nothing behind when it is dropped.
pub(crate) struct Postfix {
    folder: PathBuf,
    pub(crate) address: SocketAddr,
}

/// What is special about an instance.
struct Setup<'a> {
    name: &'a str,
    /// More lines of main.cf.
    main_cf: &'a str,
    /// The end of the port's line in master.cf, and more lines.
    port: &'a str,
    /// Files of its own that it sees in the place of the machine's.
    instead: &'a [(PathBuf, &'a str)],
    /// Its smtpd.conf, for Cyrus SASL.
    sasl: &'a str,
}

impl<'a> Setup<'a> {
    fn new(name: &'a str, main_cf: &'a str) -> Self {
        Self { name, main_cf, port: "- smtpd", instead: &[], sasl: "" }
    }

    fn start(&self) -> Postfix {
        let folder = std::env::temp_dir().join(format!("postfix-{}-{}", self.name, std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(folder.join("etc/sasl")).unwrap();
        fs::create_dir_all(folder.join("queue")).unwrap();
        let data = folder.join("data");
        let made = Command::new("install").args(["-d", "-m", "700", "-o", "postfix"]).arg(&data).status();
        assert!(made.unwrap().success(), "needs root, and the user postfix");
        // Nobody else uses this address, so the port stays free until Postfix has it.
        let address = TcpListener::bind("127.0.0.88:0").unwrap().local_addr().unwrap();
        let path = folder.display();
        let main = format!(
            "compatibility_level = 3.6\n\
             queue_directory = {path}/queue\n\
             data_directory = {path}/data\n\
             maillog_file = {path}/log\n\
             maillog_file_prefixes = {path}\n\
             myhostname = mail.example.com\n\
             inet_protocols = ipv4\n\
             inet_interfaces = 127.0.0.1\n\
             smtpd_peername_lookup = no\n\
             alias_maps =\n\
             {}",
            self.main_cf
        );
        let master = format!(
            "{address} inet n - n - {}\n\
             anvil unix - - n - 1 anvil\n\
             cleanup unix n - n - 0 cleanup\n\
             qmgr unix n - n 300 1 qmgr\n\
             tlsmgr unix - - n 1000? 1 tlsmgr\n\
             discard unix - - n - - discard\n\
             bounce unix - - n - 0 bounce\n\
             defer unix - - n - 0 bounce\n\
             rewrite unix - - n - - trivial-rewrite\n\
             proxymap unix - - n - - proxymap\n\
             postlog unix-dgram n - n - 1 postlogd\n",
            self.port
        );
        fs::write(folder.join("etc/main.cf"), main).unwrap();
        fs::write(folder.join("etc/master.cf"), master).unwrap();
        // Debian's Postfix looks for it there, whatever cyrus_sasl_config_path says.
        fs::write(folder.join("etc/sasl/smtpd.conf"), self.sasl).unwrap();
        let postfix = Postfix { folder, address };
        assert!(postfix.launch(self.instead), "Postfix does not start: {}", postfix.log());
        postfix
    }
}

impl Postfix {
    /// Starts one; `extra` is more lines of main.cf.
    pub(crate) fn start(name: &str, extra: &str) -> Self {
        Setup::new(name, extra).start()
    }

    /// In a mount namespace of its own.
    fn launch(&self, instead: &[(PathBuf, &str)]) -> bool {
        let mut command = Command::new("unshare");
        command.args([
            "--mount",
            "sh",
            "-c",
            "while [ $# -gt 1 ]; do mount --bind \"$1\" \"$2\" || exit; shift 2; done; exec /usr/sbin/postfix -c \"$1\" start",
            "sh",
        ]);
        for (own, machines) in instead {
            command.arg(own).arg(machines);
        }
        command.arg(self.folder.join("etc")).output().is_ok_and(|out| out.status.success())
    }

    /// The process `master`.
    fn master(&self) -> Pid {
        let text = fs::read_to_string(self.folder.join("queue/pid/master.pid")).unwrap();
        Pid::from_raw(text.trim().parse().unwrap()).unwrap()
    }

    fn command(&self, command: &str) -> bool {
        let out =
            Command::new("/usr/sbin/postfix").arg("-c").arg(self.folder.join("etc")).arg(command).output();
        out.is_ok_and(|out| out.status.success())
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// What smtpd wrote, without time and host, once the line about the end of a session is there.
    async fn smtpd_log(&self) -> Vec<String> {
        self.smtpd_log_of(1).await
    }

    /// Likewise, of so many sessions.
    async fn smtpd_log_of(&self, sessions: usize) -> Vec<String> {
        let complete = async {
            while self.log().matches(": disconnect from").count() < sessions {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(LIMIT, complete).await.expect("smtpd writes its log");
        let log = self.log();
        let lines = log.lines().filter_map(|line| line.split_once("/smtpd["));
        lines.filter_map(|(_, text)| text.split_once("]: ")).map(|(_, text)| text.to_owned()).collect()
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        // Kills the processes of this instance only.
        self.command("abort");
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn check(target: SocketAddr, kind: Kind) -> CheckSpec {
    CheckSpec { target, kind, deadline: LIMIT, connect_timeout: LIMIT, via: None }
}

fn smtp() -> Kind {
    Kind::Smtp(SmtpSpec {
        ehlo_name: "director.example.com".to_owned(),
        banner_timeout: LIMIT,
        ehlo_timeout: LIMIT,
        quit_timeout: LIMIT,
        ..SmtpSpec::default()
    })
}

#[tokio::test]
#[ignore = "needs root and Postfix: tests/run"]
async fn postfix_logs_two_lines_for_a_probe_and_no_complaint() {
    let postfix = Postfix::start("probe", "");
    let outcome = checks::run(&check(postfix.address, smtp())).await;
    assert_eq!(outcome.verdict, Ok(()));
    assert_eq!(outcome.stages.len(), 4);
    assert_eq!(outcome.stages[1].received, ["220 mail.example.com ESMTP Postfix"]);
    assert_eq!(
        outcome.capabilities.join(","),
        "PIPELINING,SIZE 10240000,VRFY,ETRN,ENHANCEDSTATUSCODES,8BITMIME,DSN,SMTPUTF8,CHUNKING"
    );
    assert_eq!(
        postfix.smtpd_log().await,
        ["connect from unknown[127.0.0.1]", "disconnect from unknown[127.0.0.1] ehlo=1 quit=1 commands=2"]
    );
}

#[tokio::test]
#[ignore = "needs root and Postfix: tests/run"]
async fn postfix_has_no_complaint_of_a_check_that_it_refused() {
    let refuse = "smtpd_delay_reject = no\nsmtpd_client_restrictions = reject\n";
    let postfix = Postfix::start("refuse", refuse);
    let outcome = checks::run(&check(postfix.address, smtp())).await;
    let failure = outcome.verdict.unwrap_err();
    assert_eq!((failure.stage, failure.reason, failure.code), (Stage::Banner, Reason::Permfail, Some(554)));
    let log = postfix.smtpd_log().await;
    assert!(log.iter().any(|line| line.starts_with("NOQUEUE: reject: CONNECT")), "{log:?}");
    assert_eq!(log.last().unwrap(), "disconnect from unknown[127.0.0.1] quit=1 commands=1");
    assert!(!log.iter().any(|line| line.starts_with("lost connection")), "{log:?}");
}

#[tokio::test]
#[ignore = "needs root and Postfix: tests/run"]
async fn postfix_complains_of_a_check_that_only_connects() {
    let postfix = Postfix::start("connect", "");
    let outcome = checks::run(&check(postfix.address, Kind::Connect)).await;
    assert_eq!(outcome.verdict, Ok(()));
    let log = postfix.smtpd_log().await;
    assert!(log.iter().any(|line| line.starts_with("lost connection after CONNECT")), "{log:?}");
}
