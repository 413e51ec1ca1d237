//! Random files, of all that both take and mean the same by; now and then one with a mistake that both refuse.
//!
//! What the two are known to do differently is left out here: it has files of its own in `cases`. So servers are not shared by
//! virtuals, none has weight 0, a fallback for all stands above no firewall mark, and who may be quiescent has the port of its virtual.

use std::fmt::Write as _;
use std::path::Path;

use fastrand::Rng;

use super::servers::Servers;

/// A file, and whether anybody takes it.
pub(super) struct Generated {
    pub(super) text: String,
    pub(super) valid: bool,
}

/// What a mistake looks like, at the first column or below a virtual.
const MISTAKES: [&str; 12] = [
    "quiescent=perhaps",
    "checkinterval=0",
    "timeout=3",
    "fallback=127.0.0.200 somehow",
    "emailalertstatus=none,all",
    "chektimeout=3",
    "    scheduler=1",
    "    checktype=sometimes",
    "    real=127.0.0.2:80",
    "    real=127.0.0.2:80 gate 1 2",
    "    checkport=70000",
    "    service=gopher",
];

/// What writes a file, line by line.
struct Writer<'a> {
    rng: Rng,
    folder: &'a Path,
    servers: &'a Servers,
    /// What the globals say of servers that are down.
    quiescent: Option<bool>,
    /// Whether the one address of IPv6 that is reached has a virtual already.
    loopback_taken: bool,
    text: String,
}

/// A virtual as far as its servers have to know it.
#[derive(Clone, Copy)]
struct Of {
    index: u8,
    six: bool,
    /// Its port; 0 below a mark.
    port: u16,
    /// Where its checks go to.
    target: u16,
    /// Only loopback is reached.
    is_asked: bool,
    quiescent: bool,
}

/// The file of a seed: globals, and up to four virtuals whose checks end at once.
pub(super) fn file(seed: u64, folder: &Path, servers: &Servers) -> Generated {
    let mut rng = Rng::with_seed(seed);
    let quiescent = rng.bool().then(|| rng.bool());
    let mut writer = Writer { rng, folder, servers, quiescent, loopback_taken: false, text: String::new() };
    let marks = writer.rng.bool();
    let (mut above, after): (Vec<String>, Vec<String>) =
        writer.globals(marks).into_iter().partition(|_| writer.odds(80));
    writer.rng.shuffle(&mut above);
    above.into_iter().for_each(|line| writer.line(&line));
    for index in 0..writer.rng.u8(1..=4) {
        writer.section(index, marks);
    }
    after.into_iter().for_each(|line| writer.line(&line));
    let valid = !writer.odds(6);
    if !valid {
        let mistake = writer.pick(&MISTAKES);
        let below = "virtual=192.0.2.99:80\n    real=127.0.0.3:80 gate\n";
        let _ = writeln!(writer.text, "\n{}{mistake}", if mistake.starts_with(' ') { below } else { "" });
    }
    Generated { text: writer.text, valid }
}

impl Writer<'_> {
    fn odds(&mut self, of_a_hundred: u32) -> bool {
        self.rng.u32(0..100) < of_a_hundred
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.rng.usize(0..of.len())]
    }

    fn yes(&mut self) -> &'static str {
        self.pick(&["yes", "no"])
    }

    fn line(&mut self, line: &str) {
        if self.odds(8) {
            let remark = self.pick(&["# a remark\n", "  # another, with \"quotes\" and = in it\n", "#\n"]);
            self.text += remark;
        }
        let _ = writeln!(self.text, "{line}");
    }

    fn globals(&mut self, marks: bool) -> Vec<String> {
        let mut lines = Vec::new();
        let equals = |rng: &mut Rng| if rng.bool() { "=" } else { " = " };
        if let Some(quiescent) = self.quiescent {
            lines.push(format!("quiescent = {}", if quiescent { "yes" } else { "no" }));
        }
        for name in ["readdquiescent", "cleanstop", "autoreload"] {
            if self.odds(35) {
                lines.push(format!("{name}{}{}", equals(&mut self.rng), self.yes()));
            }
        }
        // Long enough for a machine that has other work.
        for name in ["checktimeout", "negotiatetimeout"] {
            if self.odds(30) {
                lines.push(format!("{name}{}{}", equals(&mut self.rng), self.rng.u8(20..90)));
            }
        }
        for name in ["checkinterval", "failurecount", "checkcount", "emailalertfreq"] {
            if self.odds(20) {
                // A ping may take all its attempts, and no check more than an hour.
                let most = if name == "checkcount" { 9 } else { 90 };
                lines.push(format!("{name}{}{}", equals(&mut self.rng), self.rng.u8(1..most)));
            }
        }
        let fallback = !marks && self.odds(40);
        if fallback {
            let forward = self.pick(&["", " gate", " masq", " ipip"]);
            let port = self.rng.u16(1..9999);
            let port = if self.odds(70) { format!(":{port}") } else { String::new() };
            lines.push(format!("fallback=127.0.0.200{port}{forward}"));
        }
        if !marks && self.odds(30) {
            lines.push(self.pick(&["fallback6=[::2]", "fallback6=[::2]:26 masq"]).to_owned());
        }
        let folder = self.folder.display();
        for line in [
            "emailalert=root@localhost\nemailalertstatus=none".to_owned(),
            "emailalert=\"a@example.com, b@example.com\"\nemailalertstatus=reloading, stopping".to_owned(),
            "emailalertfrom=ldirectord@example.com".to_owned(),
            "smtp=127.0.0.1".to_owned(),
            "fork=no".to_owned(),
            "supervised=no".to_owned(),
            "fallbackcommand=/bin/true".to_owned(),
            "callback=\"/bin/true\"".to_owned(),
            "logfile=\"local0\"".to_owned(),
            format!("logfile=\"{folder}/log\""),
            format!("maintenancedir={folder}/maintenance"),
        ] {
            if self.odds(10) {
                lines.push(line);
            }
        }
        lines
    }

    fn section(&mut self, index: u8, marks: bool) {
        let six = self.odds(20);
        let mark = marks && self.odds(35);
        let udp = !mark && self.odds(15);
        let (head, port) = self.head(index, six, mark);
        self.line(&head);
        let (mut body, target) = self.check(six, udp, port);
        let own = self.odds(25).then(|| self.rng.bool());
        if let Some(own) = own {
            body.push(format!("quiescent={}", if own { "yes" } else { "no" }));
        }
        let quiescent = own.or(self.quiescent).unwrap_or(false);
        let is_asked = [self.servers.tcp, self.servers.http, self.servers.smtp, self.servers.echo]
            .contains(&target)
            || target < 10
            || body.iter().any(|line| line.contains("checkport"));
        let mut of = Of { index, six, port, target, is_asked, quiescent };
        // What has weight 0 there on another port than that of the virtual never comes back.
        if is_asked && !mark && target != port && (quiescent || self.odds(20)) {
            body.push(format!("checkport={target}"));
            of.target = port;
        }
        body.extend(self.reals(of));
        body.extend(self.balance(six));
        if udp {
            body.push("protocol=udp".to_owned());
            if self.odds(50) {
                body.push(format!("ops={}", self.yes()));
            }
        } else if self.odds(10) {
            body.push(format!("protocol={}", if mark { "fwm" } else { "tcp" }));
        }
        if self.odds(30) {
            let (word, address) = if six { ("fallback6", "[::3]") } else { ("fallback", "127.0.0.201") };
            let forward = self.pick(&["", " gate", " masq", " ipip"]);
            body.push(format!("{word}={address}:{}{forward}", self.rng.u16(1..9999)));
        }
        for (odds, line) in [
            (15, format!("cleanstop={}", self.yes())),
            (10, "emailalert=root@localhost\nemailalertstatus=none".to_owned()),
            (10, format!("emailalertfreq={}", self.rng.u8(0..9))),
            (10, format!("failurecount={}", self.rng.u8(1..9))),
            (10, format!("checkinterval={}", self.rng.u8(1..90))),
            (10, format!("monitorfile=\"{}/monitor\"", self.folder.display())),
            (10, "fallbackcommand=\"/bin/true with words\"".to_owned()),
            (10, "servicename=a name   # behind".to_owned()),
            (10, "comment=of one kind".to_owned()),
            (5, "load=\"nothing\"".to_owned()),
        ] {
            if self.odds(odds) {
                body.extend(line.lines().map(str::to_owned));
            }
        }
        // Whatever the order, the same is meant.
        self.rng.shuffle(&mut body);
        for line in body {
            let indent = self.pick(&["    ", "\t", "     ", "\t  "]);
            self.line(&format!("{indent}{line}"));
        }
        if self.odds(50) {
            self.text.push('\n');
        }
    }

    /// The line that opens a virtual, and its port; 0 below a mark.
    fn head(&mut self, index: u8, six: bool, mark: bool) -> (String, u16) {
        let word = if six { "virtual6" } else { "virtual" };
        let equals = self.pick(&["=", " = ", "= "]);
        if mark {
            return (format!("{word}{equals}{}", u32::from(index) + 7), 0);
        }
        // Of no service, so that it alone does not say how to ask.
        let (name, port) = match self.rng.u8(0..5) {
            0 => ("sunrpc".to_owned(), 111),
            1 => ("snmp".to_owned(), 161),
            _ => {
                let port = self.rng.u16(6000..60_000);
                (port.to_string(), port)
            }
        };
        let host = if six { format!("[2001:db8::{index}]") } else { format!("192.0.2.{index}") };
        (format!("{word}{equals}{host}:{name}"), port)
    }

    /// How servers are asked, and a port for them: one that answers or one that does not.
    fn check(&mut self, six: bool, udp: bool, port: u16) -> (Vec<String>, u16) {
        let any = if port == 0 { self.rng.u16(6000..60_000) } else { port };
        let folder = self.folder.display().to_string();
        let said = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
        let closed = self.rng.u16(2..9);
        let is_up = self.odds(60);
        let of = |up: u16| if is_up { up } else { closed };
        let (http, smtp, tcp, echo) =
            (self.servers.http, self.servers.smtp, self.servers.tcp, self.servers.echo);
        let way = match self.rng.u8(0..if udp { 5 } else { 12 }) {
            // Nothing that goes over a network.
            way if six && self.loopback_taken => way % 5,
            way => way,
        };
        let (mut lines, port) = match way {
            0 => (said(&["checktype=on  # always"]), any),
            1 => (said(&["checktype=external"]), any),
            2 => (vec!["checktype=external".into(), format!("checkcommand=\"{folder}/odd\"")], any),
            3 if !six => (said(&["checktype = ping"]), any),
            3 => (said(&["checktype=external", "checkcommand=/bin/false"]), any),
            4 => (said(&["checktype=negotiate", "service=none"]), any),
            5 => (said(&["checktype=connect"]), of(tcp)),
            6 => (vec!["checktype=connect".into(), format!("checkport={}", of(tcp))], any),
            7 => {
                let receive = self.pick(&["It Works", "^It W.rks!$", "nothing like it"]);
                let mut lines = said(&["service=http", "request=\"/index.html\""]);
                lines.push(format!("receive=\"{receive}\""));
                if self.odds(30) {
                    lines.push("virtualhost=www.example.com".to_owned());
                }
                if self.odds(30) {
                    lines.push("httpmethod=get".to_owned());
                }
                (lines, of(http))
            }
            8 => (said(&["checktype=negotiate", "service=smtp"]), of(smtp)),
            9 => {
                let mut lines = vec![format!("checktype={}", self.rng.u8(1..9)), "service=submission".into()];
                lines.push("login=\"somebody\"".to_owned());
                (lines, of(smtp))
            }
            10 => {
                let receive = self.pick(&["ab", "b$", "d"]);
                let request = self.pick(&["ab", "/ab", "ab\\ncd"]);
                let lines = [
                    "service=simpletcp".to_owned(),
                    format!("request=\"{request}\""),
                    format!("receive=\"{receive}\""),
                ];
                (lines.to_vec(), of(echo))
            }
            _ => (vec!["checktype=external-perl".into(), format!("checkcommand={folder}/check.pl")], any),
        };
        if self.odds(20) {
            lines.push(format!("checktimeout={}", self.rng.u8(20..90)));
        }
        if self.odds(20) {
            lines.push(format!("negotiatetimeout={} # seconds", self.rng.u8(20..90)));
        }
        (lines, port)
    }

    fn reals(&mut self, of: Of) -> Vec<String> {
        let Of { index, six, .. } = of;
        let mut lines = Vec::new();
        let range = !six && self.odds(10);
        self.loopback_taken |= six && of.is_asked;
        let most = if six && of.is_asked { 1 } else { self.rng.u8(1..4) };
        for host in 1..=most {
            let (word, address) = match (six, host) {
                // The only one that answers.
                (true, 1) if of.is_asked => ("real6", "[::1]".to_owned()),
                (true, _) => ("real6", format!("[2001:db8:1::{index}:{host}]")),
                (false, 1) if range => ("real", format!("127.0.{index}.11->127.0.{index}.13")),
                (false, 2) if index == 0 && self.odds(10) => ("real", "localhost".to_owned()),
                (false, _) => ("real", format!("127.0.{index}.{}", host + 1)),
            };
            let forward = self.pick(&["gate", "masq", "ipip"]);
            let is_implied = forward != "masq" && of.port == of.target && !of.quiescent;
            let port = match is_implied && self.odds(20) {
                true => String::new(),
                false => format!(":{}", of.target),
            };
            let mut line = format!("{word}={address}{port} {forward}");
            if self.odds(60) {
                let _ = write!(line, " {}", self.rng.u16(1..900));
            }
            if self.odds(10) {
                line += self.pick(&[" \"index.html\", \"Works\"", " \"a\" \"b\"", "  \"x y\",\"no\""]);
            }
            if self.odds(25) {
                let lower = self.rng.u16(0..100);
                let _ = write!(line, " l:{lower} u:{}", lower + self.rng.u16(1..100));
            } else if self.odds(10) {
                let _ = write!(line, " u:{}", self.rng.u16(1..100));
            }
            if self.odds(10) {
                line += "  # a server";
            }
            lines.push(line);
        }
        lines
    }

    fn balance(&mut self, six: bool) -> Vec<String> {
        let mut lines = Vec::new();
        if self.odds(70) {
            let schedulers =
                ["rr", "wrr", "lc", "wlc", "sh", "mh", "sed", "nq", "lblc", "lblcr", "dh", "fo", "ovf"];
            let scheduler = self.pick(&schedulers);
            lines.push(format!("scheduler={scheduler}"));
            if matches!(scheduler, "sh" | "mh") && self.odds(40) {
                let flags = self.pick(&["@-fallback", "@-port", "@-fallback,@-port"]);
                lines.push(format!("schedflags={}", flags.replace('@', scheduler)));
            }
        }
        if self.odds(30) {
            lines.push(format!("persistent={}", self.rng.u16(1..3600)));
        }
        if self.odds(20) {
            lines.push(match six {
                true => format!("netmask={}", self.rng.u8(1..=127)),
                false => format!("netmask={}", self.pick(&["255.255.255.0", "255.255.0.0"])),
            });
        }
        lines
    }
}
