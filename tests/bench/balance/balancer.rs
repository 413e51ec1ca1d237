//! The programs that are compared, one at a time in front of a farm.
//!
//! Owns their configurations, which say the same of pace and patience, and their processes. Refuses to know what is wrong
//! with a server.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::Place;
use crate::farm::director::Director;
use crate::farm::host::wait_until;
use crate::farm::{Farm, Ip, REALS, Wiring, ipvs};

/// Who is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Balancer {
    /// smtp-director with a `queue`.
    Queue,
    /// The same with a narrow band and an agent that is asked each second.
    Narrow,
    /// smtp-director without.
    Static,
    /// `leastconn` and `smtpchk`.
    Haproxy,
    /// `service = smtp`, wlc.
    Ldirectord,
    /// `SMTP_CHECK`, wlc.
    Keepalived,
}

impl Balancer {
    /// Those that run there, in the order of the table.
    pub(crate) fn all(place: Place) -> &'static [Self] {
        match place {
            Place::Native => &[Self::Queue, Self::Narrow, Self::Haproxy, Self::Static],
            Place::Lab => &[Self::Narrow, Self::Ldirectord, Self::Keepalived],
        }
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Queue => "smtp-director, queue 10 s to 60 s",
            Self::Narrow => "smtp-director, queue 3 s to 15 s",
            Self::Static => "smtp-director, static weights",
            Self::Haproxy => "HAProxy leastconn, smtpchk",
            Self::Ldirectord => "ldirectord, wlc",
            Self::Keepalived => "keepalived, wlc",
        }
    }

    pub(crate) fn wiring(place: Place) -> Wiring {
        match place {
            Place::Native => Wiring::Proxy,
            Place::Lab => Wiring::Gate,
        }
    }

    /// Starts it and waits until a client is greeted through the VIP.
    pub(crate) fn start(self, farm: &Farm, place: Place) -> Running {
        let running = match self {
            Self::Queue => director(farm, place, "queue = { interval = \"2s\" }\n"),
            Self::Narrow => {
                director(farm, place, "queue = { interval = \"1s\", full_at = \"3s\", floor_at = \"15s\" }\n")
            }
            Self::Static => director(farm, place, ""),
            Self::Haproxy => Running::Other(haproxy(farm)),
            Self::Ldirectord => Running::Other(ldirectord(farm)),
            Self::Keepalived => Running::Other(keepalived(farm)),
        };
        wait_until(Duration::from_secs(60), "all three are in", || match (self, place) {
            (Self::Haproxy, _) => greets(farm),
            (_, Place::Lab) => {
                ipvs::weights(&farm.director, Ip::V4.vip()).values().filter(|weight| **weight > 0).count()
                    == 3
            }
            _ => greets(farm),
        });
        running
    }
}

fn greets(farm: &Farm) -> bool {
    farm.client.inside(|| {
        let Ok(stream) = TcpStream::connect_timeout(&Ip::V4.vip(), Duration::from_secs(1)) else {
            return false;
        };
        let mut code = [0; 4];
        stream.set_read_timeout(Some(Duration::from_secs(5))).is_ok()
            && std::io::Read::read_exact(&mut &stream, &mut code).is_ok()
            && &code == b"220 "
    })
}

/// One that runs. It ends when it is dropped.
pub(crate) enum Running {
    Director(Box<Director>),
    Other(Other),
}

pub(crate) struct Other(Child);

impl Drop for Other {
    fn drop(&mut self) {
        // keepalived and HAProxy end their children.
        if let Some(pid) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.0.wait();
    }
}

impl Running {
    /// The weights as they are now; none where there is nothing to be seen.
    pub(crate) fn weights(&self, farm: &Farm, place: Place) -> BTreeMap<SocketAddr, u32> {
        match (self, place) {
            (_, Place::Lab) => ipvs::weights(&farm.director, Ip::V4.vip()),
            (Self::Director(director), Place::Native) => director.weights(),
            (Self::Other(_), Place::Native) => BTreeMap::new(),
        }
    }

    /// How many weights it has written since its start, by its own count.
    pub(crate) fn writes(&self) -> Option<u64> {
        let Self::Director(director) = self else { return None };
        let (_, text) = director.get("/metrics")?;
        let wanted = |line: &&str| line.starts_with("smtp_director_table_ops_total") && line.contains("set");
        let count = |line: &str| line.rsplit(' ').next()?.parse::<f64>().ok();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        Some(text.lines().filter(wanted).filter_map(count).sum::<f64>() as u64)
    }
}

fn director(farm: &Farm, place: Place, law: &str) -> Running {
    let (dataplane, forward) = match place {
        Place::Native => ("proxy", "masq"),
        Place::Lab => ("ipvs", "gate"),
    };
    let mut text = format!(
        "dataplane = \"{dataplane}\"\nhttp = \"127.0.0.1:9625\"\n\n[check]\ninterval = \"2s\"\nretry = \"1s\"\n\n\
         [[virtual]]\naddress = \"{vip}\"\nscheduler = \"wlc\"\nforward = \"{forward}\"\n{law}",
        vip = Ip::V4.vip()
    );
    for last in REALS {
        write!(text, "\n[[virtual.real]]\naddress = \"{}\"\n", Ip::V4.address(last)).expect("String");
    }
    Running::Director(Box::new(Director::start_below(&[], farm, &text)))
}

fn start(farm: &Farm, file: &str, text: &str, words: impl FnOnce(&str) -> Vec<String>) -> Other {
    let path = farm.folder.join(file);
    fs::write(&path, text).expect("configuration");
    let words = words(&path.display().to_string());
    let log = File::create(farm.folder.join(format!("{file}.log"))).expect("log");
    let child = farm.director.inside(|| {
        Command::new(&words[0])
            .args(&words[1..])
            .current_dir(&farm.folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("dup"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", words[0]))
    });
    Other(child)
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn haproxy(farm: &Farm) -> Other {
    let mut text = format!(
        "global\n    nbthread 2\ndefaults\n    mode tcp\n    timeout connect 5s\n    timeout client 5m\n    timeout server 5m\n    \
         default-server check inter 2s fastinter 1s fall 3 rise 2\nlisten mail\n    bind {vip}\n    balance leastconn\n    \
         option smtpchk EHLO director.lab.test\n",
        vip = Ip::V4.vip()
    );
    for last in REALS {
        writeln!(text, "    server real{last} {}:25", Ip::V4.address(last)).expect("String");
    }
    start(farm, "haproxy.cfg", &text, |file| owned(&["haproxy", "-db", "-f", file]))
}

fn ldirectord(farm: &Farm) -> Other {
    let mut text = format!(
        "checkinterval = 2\nfailurecount = 3\nchecktimeout = 5\nnegotiatetimeout = 5\nquiescent = yes\nreaddquiescent = yes\n\
         supervised = yes\n\nvirtual = {}\n    service = smtp\n    checktype = negotiate\n    scheduler = wlc\n",
        Ip::V4.vip()
    );
    for last in REALS {
        writeln!(text, "    real = {}:25 gate 100", Ip::V4.address(last)).expect("String");
    }
    start(farm, "ldirectord.cf", &text, |file| owned(&["ldirectord", file, "start"]))
}

fn keepalived(farm: &Farm) -> Other {
    let mut text = format!(
        "global_defs {{\n    router_id balance\n}}\nvirtual_server {} 25 {{\n    delay_loop 2\n    lvs_sched wlc\n    \
         lvs_method DR\n    protocol TCP\n",
        Ip::V4.vip().ip()
    );
    for last in REALS {
        write!(
            text,
            "    real_server {} 25 {{\n        weight 100\n        inhibit_on_failure\n        SMTP_CHECK {{\n            \
             connect_timeout 5\n            retry 2\n            delay_before_retry 1\n        }}\n    }}\n",
            Ip::V4.address(last)
        )
        .expect("String");
    }
    text += "}\n";
    let pids = ["keepalived.pid", "checkers.pid"].map(|name| farm.folder.join(name).display().to_string());
    start(farm, "keepalived.conf", &text, |file| {
        owned(&["keepalived", "-C", "-n", "-l", "-G", "-f", file, "-p", &pids[0], "-c", &pids[1]])
    })
}
