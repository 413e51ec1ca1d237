//! The programs that are compared: each one's configuration, its process, and which servers it has in.
//!
//! Owns the configurations, which say the same of pace, failures and patience as far as each program can; they are
//! printed. Refuses to know what is wrong with a server. A program that ends by itself ends the measurement.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use crate::farm::director::Director;
use crate::farm::{Farm, Ip, REALS, ipvs};

/// Who is compared, in the order of the table's columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Program {
    SmtpDirector,
    Ldirectord,
    Keepalived,
    /// HAProxy, `option smtpchk`.
    Smtpchk,
    /// HAProxy, a dialogue written by hand.
    TcpCheck,
}

pub(crate) const ALL: [Program; 5] =
    [Program::SmtpDirector, Program::Ldirectord, Program::Keepalived, Program::Smtpchk, Program::TcpCheck];

impl Program {
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::SmtpDirector => "smtp-director",
            Self::Ldirectord => "ldirectord",
            Self::Keepalived => "keepalived SMTP_CHECK",
            Self::Smtpchk => "HAProxy smtpchk",
            Self::TcpCheck => "HAProxy tcp-check by hand",
        }
    }

    /// Where it has its virtual in the kernel's table, or the name of its backend.
    fn place(self) -> Place {
        let vip = |last: u8| Place::Table(SocketAddr::from((Ipv4Addr::new(10, 99, 0, last), 25)));
        match self {
            Self::SmtpDirector => vip(100),
            Self::Ldirectord => vip(101),
            Self::Keepalived => vip(102),
            Self::Smtpchk => Place::Backend("smtpchk"),
            Self::TcpCheck => Place::Backend("tcpcheck"),
        }
    }
}

enum Place {
    Table(SocketAddr),
    Backend(&'static str),
}

/// Which of the three servers get connections.
pub(crate) type In = [bool; 3];

const STATS: u16 = 9999;

/// All programs, running on the director's host.
pub(crate) struct Programs {
    _director: Director,
    others: Vec<(&'static str, Child)>,
}

impl Programs {
    /// Starts them; a step may take `timeout` seconds. Each writes a log of its own in the farm's folder.
    pub(crate) fn start(farm: &Farm, timeout: u32) -> Self {
        let file = |name: &str, text: &str| {
            let path = farm.folder.join(name);
            fs::write(&path, text).expect("configuration");
            println!("=== {name}\n{text}");
            path.display().to_string()
        };
        let text = smtp_director(timeout);
        file("director.toml", &text);
        let ldirectord = file("ldirectord.cf", &ldirectord(timeout));
        let keepalived = file("keepalived.conf", &keepalived(timeout));
        let haproxy = file("haproxy.cfg", &haproxy(timeout));
        let director = Director::start_below(&[], farm, &text);
        let (pid, checkers) =
            (farm.folder.join("keepalived.pid").display().to_string(), farm.folder.join("checkers.pid"));
        let start = |program: &'static str, arguments: &[&str]| {
            let log = File::create(farm.folder.join(format!("{program}.log"))).expect("log");
            let child = farm.director.inside(|| {
                Command::new(program)
                    .args(arguments)
                    .current_dir(&farm.folder)
                    .stdin(Stdio::null())
                    .stdout(log.try_clone().expect("dup"))
                    .stderr(log)
                    .spawn()
                    .unwrap_or_else(|error| panic!("{program}: {error}"))
            });
            (program, child)
        };
        let checkers = checkers.display().to_string();
        let others = vec![
            start("ldirectord", &[&ldirectord, "start"]),
            start("keepalived", &["-C", "-n", "-l", "-G", "-f", &keepalived, "-p", &pid, "-c", &checkers]),
            start("haproxy", &["-db", "-f", &haproxy]),
        ];
        Self { _director: director, others }
    }

    /// Who has which servers in, by `ipvsadm -Ln` and by HAProxy's statistics; nothing of a program that has not
    /// begun.
    pub(crate) fn look(&mut self, farm: &Farm) -> BTreeMap<Program, In> {
        for (name, child) in &mut self.others {
            if let Some(status) = child.try_wait().expect("wait") {
                let log = fs::read_to_string(farm.folder.join(format!("{name}.log"))).unwrap_or_default();
                panic!("{name} ended with {status}:\n{log}");
            }
        }
        let table = ipvs::table(&farm.director);
        let statistics = statistics(farm);
        let mut seen = BTreeMap::new();
        for program in ALL {
            let servers = match program.place() {
                Place::Table(vip) => table.get(&format!("TCP {vip}")).map(|service| {
                    REALS
                        .map(|last| service.reals.get(&Ip::V4.smtp(last)).is_some_and(|real| real.weight > 0))
                }),
                Place::Backend(name) => {
                    statistics.as_ref().map(|text| REALS.map(|last| up(text, name, last)))
                }
            };
            if let Some(servers) = servers {
                seen.insert(program, servers);
            }
        }
        seen
    }
}

impl Drop for Programs {
    fn drop(&mut self) {
        for (_, child) in &mut self.others {
            // keepalived and HAProxy end their children.
            if let Some(pid) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            }
            let _ = child.wait();
        }
    }
}

/// `show stat` of HAProxy.
fn statistics(farm: &Farm) -> Option<String> {
    farm.director.inside(|| {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, STATS)).ok()?;
        stream.write_all(b"show stat\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(text)
    })
}

/// Fields 0, 1 and 17 are backend, server and status: `UP`, `UP 1/3` on its way down, `DOWN`, `DOWN 1/2`.
fn up(statistics: &str, backend: &str, last: u8) -> bool {
    let server = format!("{backend},real{last},");
    let line = statistics.lines().find(|line| line.starts_with(&server)).unwrap_or_default();
    line.split(',').nth(17).is_some_and(|status| status.starts_with("UP"))
}

fn reals() -> impl Iterator<Item = (u8, IpAddr)> {
    REALS.into_iter().map(|last| (last, Ip::V4.address(last)))
}

/// What smtp-director is asked for beyond banner and EHLO, at every interval.
const ASKED: &str = "\
mail = { from = \"check@client.lab.test\", accept = \"inbox@lab.test\", refuse = \"x@elsewhere.example\", interval = \"2s\" }
tls = { mode = \"required\", verify = \"none\" }
";

fn smtp_director(timeout: u32) -> String {
    let mut text = format!(
        "dataplane = \"ipvs\"\nhttp = \"127.0.0.1:9625\"\n\n\
         [check]\ninterval = \"2s\"\nretry = \"1s\"\nfall = 3\nrise = 1\n\
         connect_timeout = \"{timeout}s\"\nehlo_timeout = \"{timeout}s\"\n{ASKED}\n\
         [[virtual]]\naddress = \"{vip}\"\n",
        vip = Ip::V4.vip()
    );
    for (_, address) in reals() {
        write!(text, "\n[[virtual.real]]\naddress = \"{address}\"\n").expect("String");
    }
    text
}

fn ldirectord(timeout: u32) -> String {
    let mut text = format!(
        "checkinterval = 2\nfailurecount = 3\nchecktimeout = {timeout}\nnegotiatetimeout = {timeout}\n\
         quiescent = yes\nreaddquiescent = yes\nsupervised = yes\n\n\
         virtual = 10.99.0.101:25\n    service = smtp\n    checktype = negotiate\n    scheduler = wlc\n"
    );
    for (_, address) in reals() {
        writeln!(text, "    real = {address}:25 gate 1").expect("String");
    }
    text
}

fn keepalived(timeout: u32) -> String {
    let mut text = "global_defs {\n    router_id peers\n}\n\
        virtual_server 10.99.0.102 25 {\n    delay_loop 2\n    lvs_sched wlc\n    lvs_method DR\n    protocol TCP\n"
        .to_owned();
    for (_, address) in reals() {
        write!(
            text,
            "    real_server {address} 25 {{\n        weight 1\n        inhibit_on_failure\n        SMTP_CHECK {{\n            \
             connect_timeout {timeout}\n            retry 2\n            delay_before_retry 1\n            \
             helo_name director.lab.test\n        }}\n    }}\n"
        )
        .expect("String");
    }
    text + "}\n"
}

fn haproxy(timeout: u32) -> String {
    let mut text = format!(
        "global\n    nbthread 1\n    stats socket ipv4@127.0.0.1:{STATS} level user\n\n\
         defaults\n    mode tcp\n    timeout connect {timeout}s\n    timeout client 5m\n    timeout server 5m\n    \
         timeout check {timeout}s\n    default-server check inter 2s fastinter 1s fall 3 rise 1\n"
    );
    for (port, backend, check) in [
        (2501, "smtpchk", "    option smtpchk EHLO director.lab.test\n".to_owned()),
        (2502, "tcpcheck", by_hand()),
    ] {
        write!(text, "\nlisten {backend}\n    bind 10.99.0.2:{port}\n{check}").expect("String");
        for (last, address) in reals() {
            writeln!(text, "    server real{last} {address}:25").expect("String");
        }
    }
    text
}

/// The same questions as far as HAProxy can ask them: it speaks no TLS after STARTTLS. Replies of one line are judged
/// as they come (`min-recv 0`); those of several are waited for.
fn by_hand() -> String {
    let mut text = "    option tcp-check\n    tcp-check connect\n    tcp-check expect rstring (?m)^220\\ \n\
        \x20   tcp-check send \"EHLO director.lab.test\\r\\n\"\n    tcp-check expect rstring (?m)^250\\ \n"
        .to_owned();
    for (line, code) in [
        ("MAIL FROM:<check@client.lab.test>", "250"),
        ("RCPT TO:<inbox@lab.test>", "250"),
        ("RCPT TO:<x@elsewhere.example>", "5"),
        ("RSET", "250"),
        ("QUIT", "221"),
    ] {
        writeln!(
            text,
            "    tcp-check send \"{line}\\r\\n\"\n    tcp-check expect min-recv 0 rstring ^{code}"
        )
        .expect("String");
    }
    text
}
