//! Faults of the whole host or of all its processes; the neighbours of the sick server are asked as well.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;

use rustix::process::{Signal, kill_process};

use super::*;
use crate::farm::host::wait_until;
use crate::farm::{Farm, Ip, REALS, Wiring};

/// The mail tier, as the director's host asks the server at this address of the farm.
fn ask_from(farm: &Farm, last: u8, patience: Duration) -> Outcome {
    let mail = MailSpec {
        from: "check@client.lab.test".to_owned(),
        accept: Some("inbox@lab.test".to_owned()),
        refuse: Some("x@elsewhere.example".to_owned()),
        timeout: patience,
    };
    let kind = Kind::Smtp(SmtpSpec {
        mail: Some(Box::new(mail)),
        banner_timeout: patience,
        ehlo_timeout: patience,
        ..SmtpSpec::default()
    });
    let target = Ip::V4.smtp(last);
    let spec = CheckSpec { target, kind, deadline: LIMIT, connect_timeout: patience, via: None };
    farm.director.inside(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(checks::run(&spec))
    })
}

/// The middle one fails like that, with nothing to say; its neighbours are well.
fn one_is_sick(farm: &Farm, patience: Duration) -> (Stage, Reason) {
    let [before, sick, after] = REALS;
    for neighbour in [before, after] {
        assert_eq!(ask_from(farm, neighbour, LIMIT).verdict, Ok(()));
    }
    let failure = ask_from(farm, sick, patience).verdict.unwrap_err();
    assert_eq!(failure.code, None, "{failure}");
    (failure.stage, failure.reason)
}

fn all_are_well(farm: &Farm) {
    for last in REALS {
        assert_eq!(ask_from(farm, last, LIMIT).verdict, Ok(()));
    }
}

#[test]
#[ignore = "needs root, namespaces and Postfix: tests/run"]
fn a_server_that_is_dead_hangs_or_is_gone_fails_alone_and_comes_back() {
    let mut farm = Farm::new(Wiring::Proxy);
    all_are_well(&farm);

    farm.reals[1].kill();
    assert_eq!(one_is_sick(&farm, LIMIT), (Stage::Connect, Reason::Refused));
    farm.reals[1].start();
    all_are_well(&farm);

    // The kernel goes on taking connections for a server that takes none.
    farm.reals[1].freeze();
    assert_eq!(one_is_sick(&farm, SECOND), (Stage::Banner, Reason::Timeout));
    farm.reals[1].thaw();
    all_are_well(&farm);

    // Its packets go to a card that nobody has.
    let address = Ip::V4.address(REALS[1]);
    farm.director.ip(&format!("neigh replace {address} lladdr 02:00:00:00:00:99 dev eth0 nud permanent\n"));
    assert_eq!(one_is_sick(&farm, SECOND), (Stage::Connect, Reason::Timeout));
    farm.director.ip(&format!("neigh del {address} dev eth0\n"));
    all_are_well(&farm);

    // Nobody answers ARP: the kernel gives up after three seconds, which is `connect_timeout` by default.
    farm.reals[1].host.ip("link set eth0 down\n");
    farm.director.ip("neigh flush dev eth0\n");
    assert_eq!(one_is_sick(&farm, LIMIT), (Stage::Connect, Reason::Unreachable));
    farm.reals[1].host.ip("link set eth0 up\n");
    all_are_well(&farm);
}

/// A session that holds a process until it is ended.
pub(super) struct Held(BufReader<TcpStream>);

impl Held {
    /// Waits for the banner.
    pub(super) fn open(postfix: &Postfix) -> Self {
        let stream = TcpStream::connect(postfix.address).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let mut held = Self(BufReader::new(stream));
        held.read("220 ");
        held
    }

    fn read(&mut self, code: &str) {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        assert!(line.starts_with(code), "{line}");
    }

    pub(super) fn quit(mut self) {
        self.0.get_mut().write_all(b"QUIT\r\n").unwrap();
        self.read("221 ");
    }
}

#[tokio::test]
#[ignore = "needs root and Postfix: tests/run"]
async fn a_server_with_all_processes_busy_is_seen_at_the_banner() {
    let setup = Setup { port: "2 smtpd", ..Setup::new("busy", SERVER) };
    let postfix = setup.start();
    let clients = [Held::open(&postfix), Held::open(&postfix)];
    let outcome = ask(&postfix, patient_for(SECOND)).await;
    let failure = outcome.verdict.unwrap_err();
    assert_eq!((failure.stage, failure.reason, failure.code), (Stage::Banner, Reason::Timeout, None));
    assert_eq!(outcome.stages.len(), 1, "the kernel takes the connection");
    clients.into_iter().for_each(Held::quit);
    assert_eq!(ask(&postfix, mail_tier()).await.verdict, Ok(()));
}

#[tokio::test]
#[ignore = "needs root and Postfix: tests/run"]
async fn a_stopped_smtpd_stops_the_whole_port() {
    let postfix = Postfix::start("stopped", SERVER);
    let client = Held::open(&postfix);
    client.quit();
    postfix.smtpd_log().await;
    let smtpd = child_of(postfix.master(), "smtpd");
    kill_process(smtpd, Signal::STOP).unwrap();
    // It counts as idle, so that master starts no second one.
    let failure = ask(&postfix, patient_for(SECOND)).await.verdict.unwrap_err();
    assert_eq!((failure.stage, failure.reason, failure.code), (Stage::Banner, Reason::Timeout, None));
    kill_process(smtpd, Signal::CONT).unwrap();
    assert_eq!(ask(&postfix, mail_tier()).await.verdict, Ok(()));
}

/// The only child of that name, once it sleeps.
fn child_of(parent: Pid, name: &str) -> Pid {
    let start = format!("({name}) S {} ", parent.as_raw_nonzero());
    let pid_of = |entry: fs::DirEntry| {
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let (pid, rest) = stat.split_once(' ')?;
        rest.starts_with(&start).then(|| Pid::from_raw(pid.parse().ok()?)).flatten()
    };
    let mut found = Vec::new();
    wait_until(LIMIT, name, || {
        found = fs::read_dir("/proc").unwrap().flatten().filter_map(pid_of).collect();
        !found.is_empty()
    });
    assert_eq!(found.len(), 1, "{name}");
    found.remove(0)
}
