//! What other programs make of the faults of a mail server: `tests/bench/run peers` runs it in the lab's guest.
//!
//!     peers TIMEOUT [WORD...]     patience in seconds; only the cases whose name has one of these words
//!
//! smtp-director, ldirectord, keepalived and HAProxy check the same three Postfix servers at the same time. One server
//! gets a fault, or all three get the same one; the kernel's table and HAProxy's statistics say who noticed, and when.
//! Prints a table and asserts nothing.
#![allow(
    dead_code,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a program that measures, with the tests' farm; it ends at the first surprise"
)]

#[path = "../../farm/mod.rs"]
mod farm;
mod fault;
mod program;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use farm::{Farm, Wiring};
use fault::Fault;
use program::{ALL, Program, Programs};
use rcgen::{CertificateParams, KeyPair};

/// How long a program may take to put all three back.
const RETURN: Duration = Duration::from_secs(90);
const LOOK: Duration = Duration::from_millis(250);
/// The server that is sick where one is.
const SICK: usize = 1;

/// One row of the table.
struct Case {
    name: &'static str,
    fault: Fault,
    whom: Whom,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Whom {
    /// One server is sick: out is right.
    One,
    /// One server is slow and well: in is right.
    SlowOne,
    /// All three have it: an empty farm helps nobody.
    All,
}

fn cases() -> Vec<Case> {
    const MILTER: Fault =
        Fault::MainCf("smtpd_milters = inet:127.0.0.1:1\nmilter_default_action = tempfail\n");
    const TARPIT: Fault = Fault::MainCf("smtpd_delay_reject = no\nsmtpd_client_restrictions = sleep 6\n");
    const BANNER_421: Fault = Fault::MainCf(
        "smtpd_delay_reject = no\nsmtpd_client_restrictions = check_client_access static:{421 4.3.2 later}\n",
    );
    let one = |name, fault| Case { name, fault, whom: Whom::One };
    vec![
        Case { name: "none", fault: Fault::Nothing, whom: Whom::SlowOne },
        one("Postfix killed", Fault::Killed),
        one("host unplugged", Fault::Unplugged),
        one("Postfix stopped (SIGSTOP)", Fault::Frozen),
        one("all smtpd slots busy", Fault::Busy),
        one("421 banner", BANNER_421),
        one("554 banner", Fault::MainCf("smtpd_delay_reject = no\nsmtpd_client_restrictions = reject\n")),
        one("milter dead", MILTER),
        one(
            "policy service dead",
            Fault::MainCf("smtpd_recipient_restrictions = check_policy_service inet:127.0.0.1:1\n"),
        ),
        one("recipient map dead", Fault::MainCf("virtual_mailbox_maps = socketmap:inet:127.0.0.1:1:users\n")),
        one("spool full", Fault::MainCf("queue_minfree = 1000000000000000\n")),
        one("cleanup missing", Fault::MainCf("cleanup_service_name = nobody\n")),
        one("STARTTLS broken (key)", Fault::BadKey),
        one(
            "open relay",
            Fault::MainCf(
                "mynetworks = 0.0.0.0/0\n\
                 smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination\n",
            ),
        ),
        Case { name: "tarpit: banner after 6 s", fault: TARPIT, whom: Whom::SlowOne },
        Case {
            name: "postscreen: 220- at once, 220 after 6 s",
            fault: Fault::Postscreen,
            whom: Whom::SlowOne,
        },
        Case { name: "milter dead", fault: MILTER, whom: Whom::All },
        Case { name: "421 banner", fault: BANNER_421, whom: Whom::All },
        Case { name: "tarpit: banner after 6 s", fault: TARPIT, whom: Whom::All },
    ]
}

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let Some(timeout) = arguments.first().and_then(|text| text.parse().ok()) else {
        println!("usage: peers TIMEOUT [WORD...]");
        return;
    };
    let asked = |case: &Case| {
        arguments.len() == 1 || arguments[1..].iter().any(|word| case.name.contains(word.as_str()))
    };
    let versions = versions();
    let mut bench = Bench::new(timeout);
    println!("{versions}\n");
    println!("| fault | on |{}", ALL.map(|program| format!(" {} |", program.title())).concat());
    println!("|---|---|{}", "---|".repeat(ALL.len()));
    for case in cases().iter().filter(|case| asked(case)) {
        bench.play(case);
    }
}

struct Bench {
    timeout: u32,
    programs: Programs,
    farm: Farm,
    tls: PathBuf,
}

impl Bench {
    fn new(timeout: u32) -> Self {
        let mut farm = Farm::new(Wiring::Gate);
        let tls = farm.folder.join("tls");
        make_certificate(&tls);
        for real in &mut farm.reals {
            real.restart_with(&fault::with_tls(&tls, fault::KEY));
        }
        let programs = Programs::start(&farm, timeout);
        let mut bench = Self { timeout, programs, farm, tls };
        bench.await_all();
        bench
    }

    /// Makes the fault, watches, prints the row, and mends it.
    fn play(&mut self, case: &Case) {
        let whom: &[usize] = if case.whom == Whom::All { &[0, 1, 2] } else { &[SICK] };
        let before = self.programs.look(&self.farm);
        let start = Instant::now();
        let mut held = Vec::new();
        for index in whom {
            held.push(fault::make(case.fault, &mut self.farm, *index, &self.tls));
        }
        let mut out: BTreeMap<Program, [Option<Duration>; 3]> = BTreeMap::new();
        let mut most_out: BTreeMap<Program, usize> = BTreeMap::new();
        // Longer than three failures take with anybody, and than the pause of smtp-director's floor; who asks one
        // server after the other takes three times as long for all three.
        let rounds = if case.whom == Whom::All { 10 } else { 4 };
        let watch = Duration::from_secs(u64::from(rounds * self.timeout + 12));
        while start.elapsed() < watch {
            for (program, servers) in self.programs.look(&self.farm) {
                let times = out.entry(program).or_default();
                for (time, _) in times.iter_mut().zip(servers).filter(|(_, is_in)| !is_in) {
                    time.get_or_insert_with(|| start.elapsed());
                }
                let now = servers.iter().filter(|is_in| !**is_in).count();
                let most = most_out.entry(program).or_default();
                *most = now.max(*most);
            }
            std::thread::sleep(LOOK);
        }
        let cells = ALL.map(|program| match (before.get(&program), out.get(&program)) {
            (Some([true, true, true]), Some(times)) => {
                format!(" {} |", cell(case.whom, *times, most_out[&program]))
            }
            _ => " (not back from the fault before) |".to_owned(),
        });
        let on = if case.whom == Whom::All { "all 3" } else { "1 of 3" };
        println!("| {} | {on} |{}", case.name, cells.concat());
        drop(held);
        for index in whom {
            fault::mend(case.fault, &mut self.farm.reals[*index], &self.tls);
        }
        self.await_all();
    }

    /// Waits until every program has all three in; who takes too long is named.
    fn await_all(&mut self) {
        let start = Instant::now();
        loop {
            let seen = self.programs.look(&self.farm);
            let late: Vec<_> =
                ALL.into_iter().filter(|program| seen.get(program) != Some(&[true; 3])).collect();
            if late.is_empty() {
                return;
            }
            if start.elapsed() > RETURN {
                eprintln!("not back after {RETURN:?}: {late:?}");
                for log in ["director.log", "ldirectord.log", "keepalived.log", "haproxy.log"] {
                    eprintln!("--- {log}\n{}", tail(&self.farm.folder.join(log)));
                }
                return;
            }
            std::thread::sleep(LOOK);
        }
    }
}

/// What a program made of it.
fn cell(whom: Whom, out: [Option<Duration>; 3], most_out: usize) -> String {
    let seconds = |time: Duration| format!("{:.1} s", time.as_secs_f64());
    match whom {
        Whom::All => match out.iter().flatten().max() {
            Some(last) if most_out == 3 => format!("**farm empty** after {}", seconds(*last)),
            _ => format!("{} of 3 stay", 3 - most_out),
        },
        Whom::One | Whom::SlowOne => {
            let sick = match (out[SICK], whom) {
                (Some(time), Whom::One) => seconds(time),
                (None, Whom::One) => "not noticed".to_owned(),
                (Some(time), _) => format!("**thrown out** after {}", seconds(time)),
                (None, _) => "stays".to_owned(),
            };
            let others = [0, 2].into_iter().filter_map(|index| out[index]).min();
            let wrong = others.map(|time| format!(", **a healthy one out** after {}", seconds(time)));
            sick + &wrong.unwrap_or_default()
        }
    }
}

fn make_certificate(folder: &Path) {
    fs::create_dir(folder).expect("folder");
    let (key, other) = (KeyPair::generate().expect("key"), KeyPair::generate().expect("key"));
    let certificate = CertificateParams::new(vec!["lab.test".to_owned()])
        .and_then(|params| params.self_signed(&key))
        .expect("certificate");
    fs::write(folder.join(fault::CERTIFICATE), certificate.pem()).expect("certificate");
    fs::write(folder.join(fault::KEY), key.serialize_pem()).expect("key");
    fs::write(folder.join(fault::OTHER_KEY), other.serialize_pem()).expect("key");
}

fn tail(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let lines: Vec<_> = text.lines().rev().take(20).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

/// One line, by the packages.
fn versions() -> String {
    let packages = ["ldirectord", "keepalived", "haproxy", "postfix"];
    let output = Command::new("dpkg-query")
        .args(["-W", "-f", "${Package} ${Version}, "])
        .args(packages)
        .output()
        .expect("dpkg-query");
    format!("{}smtp-director {}", String::from_utf8_lossy(&output.stdout), env!("CARGO_PKG_VERSION"))
}
