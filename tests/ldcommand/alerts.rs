//! Mails and the log: what is said to whom, beside what the original says of the same day.
//!
//! Those that are ignored put a file of their own in the place of `/dev/log` or `/usr/sbin/sendmail`, in a mount namespace that
//! ends with the daemon, and need port 25 of loopback.

use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use loadgen::sink::Sink;
use rustix::process::Signal;

use super::behaviour::script;
use super::original::{self, Original, write_ipvsadm};
use super::servers::{Counts, MailServer, answering, well};
use super::{Place, until};

/// Where an `smtp=` of ldirectord can only point to: it has no port.
const RELAY: &str = "127.0.0.25:25";

/// What a day brings, with what the daemon that has it does about it.
trait Daemon {
    /// Whether it takes weights away and gives them back before it asks for the first time.
    const FLASHES: bool;

    fn log(&self) -> String;
    fn hup(&self);
    fn end(&mut self);
}

struct Ours<'a>(&'a Place);

impl Daemon for Ours<'_> {
    const FLASHES: bool = false;

    fn log(&self) -> String {
        self.0
            .read("log")
            .lines()
            .filter_map(|line| line.split_once("] "))
            .map(|(_, text)| format!("{text}\n"))
            .collect()
    }

    fn hup(&self) {
        self.0.signal(Signal::HUP);
    }

    fn end(&mut self) {
        assert_eq!(self.0.code("stop"), Some(0));
    }
}

impl Daemon for Original {
    const FLASHES: bool = true;

    fn log(&self) -> String {
        self.said()
    }

    fn hup(&self) {
        self.signal(Signal::HUP);
    }

    fn end(&mut self) {
        self.signal(Signal::TERM);
        self.wait();
    }
}

/// The servers of a day.
struct Farm<'a> {
    place: &'a Place,
    one: Sink,
    two: Sink,
    fallback: SocketAddr,
}

impl Farm<'_> {
    fn write(&self, servers: &[SocketAddr]) {
        let mut text = format!(
            "checkinterval=1\nfailurecount=2\nquiescent=yes\nemailalert=a@x.test, b@x.test\nemailalertfrom=Director <d@x.test>\n\
             emailalertfreq=1\nsmtp=127.0.0.25\nvirtual={}\n    service=smtp\n    servicename=mx\n    comment=call Ann\n",
            self.place.vip
        );
        for server in servers {
            text.push_str(&format!("    real={server} masq 7\n"));
        }
        self.place.write_cf(&format!("{text}    fallback={} masq\n", self.fallback));
    }
}

/// One server falls ill, both do, one comes back, the other leaves the file, and the end comes.
async fn live<D: Daemon>(daemon: &mut D, farm: &mut Farm<'_>, mails: &MailServer) {
    let (one, two, vip) = (farm.one.address(), farm.two.address(), farm.place.vip);
    let said = |daemon: &D, text: &str, times| {
        until(text, || (daemon.log().matches(text).count() >= times).then_some(()));
    };
    let up = |verb: &str, server| format!("{verb} real server: {server} ({vip}) (Weight set to 7)");
    let down = |server| format!("Quiescent real server: {server} ({vip}) (Weight set to 0)");
    let still = |server| format!("[mx] Inaccessible real server: {server} ({vip})");
    for server in [one, two] {
        said(daemon, &up(if D::FLASHES { "\nRestored" } else { "\nAdded" }, server), 1);
    }
    let downs = if D::FLASHES { 2 } else { 1 };
    farm.two.stop().await;
    said(daemon, &format!("\n{}", down(two)), downs);
    until("it is told again", || {
        (mails.subjects().iter().filter(|s| **s == still(two)).count() > 1).then_some(())
    });
    farm.two.restart().unwrap();
    said(daemon, &format!("\n{}", up("Restored", two)), downs);
    farm.one.stop().await;
    farm.two.stop().await;
    said(daemon, &format!("\n{}", down(two)), downs + 1);
    said(daemon, &format!("\n{}", down(one)), downs);
    said(daemon, &format!("\nAdded fallback server: {} ({vip}) (Weight set to 1)", farm.fallback), 1);
    until("it is told again", || mails.subjects().contains(&still(one)).then_some(()));
    farm.one.restart().unwrap();
    said(daemon, &format!("\n{}", up("Restored", one)), downs);
    said(daemon, &format!("\nDeleted fallback server: {} ({vip})", farm.fallback), 1);
    farm.write(&[one]);
    daemon.hup();
    said(daemon, &format!("\nPurged real server (start): {two} ({vip})"), 1);
    daemon.end();
    said(daemon, &format!("\nPurged virtual server (stop): {vip}"), 1);
}

/// Mails without what differs from one to the next; who each went to is said by the server.
fn told(mails: &MailServer) -> BTreeSet<String> {
    let mails = mails.mails();
    let body = |text: &str| text.split_once("\n\n").unwrap().1.trim_end().to_owned();
    let head = |text: &str, name: &str| {
        let found = text.lines().find(|line| line.starts_with(name)).map(str::to_owned);
        found.unwrap_or_default()
    };
    let all = mails.iter().map(|(_, text)| {
        let heads = ["From: ", "To: ", "Subject: "].map(|name| head(text, name)).join("\n");
        format!("{heads}\n\n{}\n", body(text))
    });
    all.collect()
}

/// The lines in the words of ldirectord, without number of the process.
fn words(log: &str) -> BTreeSet<String> {
    const FIRST: [&str; 13] = [
        "Added",
        "Restored",
        "Quiescent",
        "Deleted",
        "Purged",
        "Changed",
        "Soft failure",
        "Resetting",
        "Inaccessible",
        "emailalert",
        "Reloading",
        "Linux Director",
        "Starting Linux Director",
    ];
    let known = log.lines().filter(|line| FIRST.iter().any(|first| line.starts_with(first)));
    known
        .map(|line| line.replace(" v1.186-ha", "").replace(" of smtp-director", ""))
        .map(|line| match line.split_once("pid: ") {
            Some((before, _)) => before.to_owned(),
            None => line,
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the original, from the package ldirectord: tests/run"]
async fn a_day_has_the_same_lines_and_the_same_mails_as_with_the_original() {
    let place = Place::new("ld-day");
    let [one, two] = [well(), well()];
    let fallback = "127.0.0.9:8025".parse().unwrap();
    let mut farm = Farm { place: &place, one, two, fallback };
    let servers = [farm.one.address(), farm.two.address()];
    let mut ours = MailServer::start_on(RELAY);
    farm.write(&servers);
    assert_eq!(place.code("start"), Some(0));
    live(&mut Ours(&place), &mut farm, &ours).await;
    let log = words(&Ours(&place).log());
    for (to, text) in ours.mails() {
        assert_eq!(to, ["<a@x.test>".to_owned(), "<b@x.test>".to_owned()].into(), "{text}");
    }
    let here = told(&ours);
    ours.stop();

    farm.two.restart().unwrap();
    farm.write(&servers);
    let mut theirs = MailServer::start_on(RELAY);
    let mut there = Original::start(place.path("there"), &place.path("mail.cf"));
    live(&mut there, &mut farm, &theirs).await;
    // One RCPT for all of them, which is no address.
    let wrong: BTreeSet<String> = ["<a@x.test, b@x.test>".to_owned()].into();
    assert!(theirs.mails().iter().all(|(to, _)| *to == wrong));
    let original = told(&theirs);
    theirs.stop();

    assert_eq!(here.difference(&original).collect::<Vec<_>>(), Vec::<&String>::new(), "only here: mails");
    let only_there: Vec<_> = original.difference(&here).collect();
    let is_flash = |mail: &&&String| {
        let at_start = mail.contains("Daemon-Status: starting") || mail.contains("Daemon-Status: reloading");
        // Servers that go out and in at the start; a fallback that is in before anybody was asked, and told of as
        // deleted whenever a server is well.
        at_start || mail.contains("Deleted fallback server")
    };
    assert_eq!(
        only_there.iter().filter(|mail| !is_flash(mail)).collect::<Vec<_>>(),
        Vec::<&&String>::new(),
        "only there"
    );

    let lines = words(&there.said());
    assert_eq!(log.difference(&lines).collect::<Vec<_>>(), Vec::<&String>::new(), "only here: lines");
    let only_there: Vec<_> = lines.difference(&log).collect();
    // What it says of a virtual that is as it was, and the mails above.
    let is_known =
        |line: &&String| line.starts_with("Changed virtual server") || line.contains("fallback server");
    assert!(
        only_there.iter().copied().all(|line| is_known(&line) || line.contains("Quiescent")),
        "{only_there:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mail_server_that_is_not_there_or_wants_nothing_delays_no_check_and_is_said() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let unwilling = MailServer::refusing();
    for (name, at, why) in
        [("dead", nobody, "onnection refused"), ("unwilling", unwilling.address(), "554 5.3.2 go away")]
    {
        let (counts, place) = (Arc::new(Counts::default()), Place::new(&format!("ld-mail-{name}")));
        let alert = format!("[alert]\nto = \"a@x.test\"\nsmtp = \"{at}\"\nevery = \"1ms\"");
        let server = answering(&counts);
        let dead = "{ address = \"127.0.0.1:1\" }";
        place.write(&alert, &format!("real = [{{ address = \"{server}\" }}, {dead}]"));
        assert_eq!(place.code("start"), Some(0));
        place.until_said("failed to send SMTP email message", 20);
        let before = counts.begun();
        until("checks go on", || (counts.begun() > before + 5).then_some(()));
        assert!(place.read("log").contains(why), "{}", place.read("log"));
        assert_eq!(place.code("stop"), Some(0));
    }
}

/// Puts a folder in the place of /dev and files in the places of others, for one command and what it starts.
const PRIVATELY: &str = r#"
set -e
dev=$1 && shift
if [ -d "$dev" ]; then
    for one in null zero full random urandom; do : >"$dev/$one" && mount --bind "/dev/$one" "$dev/$one"; done
    mount --rbind "$dev" /dev
fi
while [ "$1" != -- ]; do mount --bind "$1" "$2" && shift 2; done
shift && exec "$@""#;

struct Privately {
    dev: PathBuf,
    instead: Vec<(PathBuf, &'static str)>,
}

impl Privately {
    fn command(&self, program: &Path, place: &Place, file: &Path, action: &str) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", PRIVATELY, "sh"]).arg(&self.dev);
        for (one, other) in &self.instead {
            command.arg(one).arg(other);
        }
        command.arg("--").arg(program).arg(file).arg(action);
        command.env("LDIRECTORD_RUN_DIR", place.path("")).env("SMTP_DIRECTOR__DATAPLANE", "proxy");
        command.env("SMTP_DIRECTOR__HTTP", "off").current_dir(place.path(""));
        command
    }
}

/// A /dev/log, and what comes to it.
fn listen(place: &Place) -> (PathBuf, Arc<std::sync::Mutex<Vec<String>>>) {
    let dev = place.path("dev");
    fs::create_dir(&dev).unwrap();
    let socket = UnixDatagram::bind(dev.join("log")).unwrap();
    let lines: Arc<std::sync::Mutex<Vec<String>>> = Arc::default();
    let kept = Arc::clone(&lines);
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length) = socket.recv(&mut buffer) {
            // Perl ends a line in its own way.
            let line = String::from_utf8_lossy(&buffer[..length]).trim_end_matches(['\n', '\0']).to_owned();
            kept.lock().unwrap().push(line);
        }
    });
    (dev, lines)
}

/// The text of a line to syslog that is one of ldirectord, of facility local3 and severity info.
fn text_of(line: &str) -> Option<&str> {
    let (time, rest) = line.strip_prefix("<158>")?.split_at_checked(15)?;
    chrono::NaiveDateTime::parse_from_str(&format!("2026 {time}"), "%Y %b %e %H:%M:%S").ok()?;
    let (pid, text) = rest.strip_prefix(" ldirectord[")?.split_once("]: ")?;
    pid.parse::<u32>().ok().map(|_| text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the original, from the package ldirectord: tests/run"]
async fn syslog_is_told_as_by_the_original() {
    let (sink, place) = (well(), Place::new("ld-syslog"));
    let (dev, lines) = listen(&place);
    // A name that no other daemon has: the original knows one place for pid files.
    let file = place.path("syslog-test.cf");
    fs::write(
        &file,
        format!(
            "logfile=\"local3\"\ncheckinterval=1\nvirtual={}\n    service=smtp\n    real={} masq\n",
            place.vip,
            sink.address()
        ),
    )
    .unwrap();
    write_ipvsadm(&place.path(""));
    let table = place.path("table-of-the-original");
    script(&table, &format!("cd {} && exec ./ipvsadm \"$@\"", place.path("").display()));
    let privately = Privately { dev, instead: vec![(table, "/usr/sbin/ipvsadm")] };
    let program = super::managers::link(&place);
    let added = format!("Added real server: {} ({}) (Weight set to 1)", sink.address(), place.vip);
    for program in [&program, Path::new(original::PROGRAM)] {
        let run = |action| privately.command(program, &place, &file, action).status().unwrap();
        assert!(run("start").success());
        until(&added, || lines.lock().unwrap().iter().any(|line| line.ends_with(&added)).then_some(()));
        assert!(run("stop").success());
        let end = "Linux Director Daemon terminated on signal: TERM";
        until(end, || lines.lock().unwrap().iter().any(|line| line.ends_with(end)).then_some(()));
        let said = std::mem::take(&mut *lines.lock().unwrap());
        let texts: Vec<&str> = said.iter().filter_map(|line| text_of(line)).collect();
        for text in [added.as_str(), end, &format!("Purged virtual server (stop): {}", place.vip)] {
            assert!(texts.contains(&text), "{text}: {}: {said:#?}", program.display());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the original, from the package ldirectord: tests/run"]
async fn without_a_server_for_mails_the_local_sendmail_gets_them() {
    let (sink, place) = (well(), Place::new("ld-sendmail"));
    let sendmail = place.path("sendmail");
    let out = place.path("out");
    let text = format!(
        "checkinterval=1\nemailalert=a@x.test, b@x.test\nemailalertfrom=d@x.test\nvirtual={}\n    service=smtp\n    \
         servicename=mx\n    real={} masq\n",
        place.vip,
        sink.address()
    );
    place.write_cf(&text);
    let file = place.path("mail.cf");
    let privately =
        Privately { dev: PathBuf::new(), instead: vec![(sendmail.clone(), "/usr/sbin/sendmail")] };
    let program = super::managers::link(&place);
    let start = || assert!(privately.command(&program, &place, &file, "start").status().unwrap().success());
    let subject =
        format!("Subject: [mx] Added real server: {} ({}) (Weight set to 1)\n", sink.address(), place.vip);
    let body =
        subject.replace("Subject: ", "\n\nldirectord host: vm\nLog-Message: ") + "Daemon-Status: starting\n";
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let body = body.replace("host: vm", &format!("host: {}", host.trim()));

    script(
        &sendmail,
        &format!("{{ echo \"arguments: $*\"; cat; }} >{0}.new && mv {0}.new {0}", out.display()),
    );
    start();
    let mail = until("a mail", || Some(place.read("out")).filter(|text| !text.is_empty()));
    assert!(
        mail.starts_with(
            "arguments: -i -f d@x.test -- a@x.test b@x.test\nFrom: d@x.test\nTo: a@x.test, b@x.test\n"
        ),
        "{mail}"
    );
    assert!(mail.contains(&subject) && mail.contains(&body) && !mail.contains('\r'), "{mail}");
    assert_eq!(place.code("stop"), Some(0));

    fs::remove_file(&out).unwrap();
    write_ipvsadm(&place.path(""));
    let mut there =
        privately.command(Path::new(original::PROGRAM), &place, Path::new("-d"), file.to_str().unwrap());
    let mut there = there.arg("start").stderr(std::process::Stdio::null()).spawn().unwrap();
    let mail = until("a mail", || Some(place.read("out")).filter(|text| !text.is_empty()));
    assert!(mail.starts_with("arguments: -t\n"), "{mail}");
    assert!(mail.contains(&subject) && mail.contains(&body), "{mail}");
    rustix::process::kill_process(rustix::process::Pid::from_child(&there), Signal::TERM).unwrap();
    there.wait().unwrap();

    script(&sendmail, "exit 75");
    fs::remove_file(place.path("log")).unwrap();
    start();
    place.until_said("failed to send email message \"Added real server", 1);
    assert!(
        place.read("log").contains("/usr/sbin/sendmail: ended with exit status: 75"),
        "{}",
        place.read("log")
    );
    assert_eq!(place.code("stop"), Some(0));

    // One that hangs, and all that it started, is ended.
    script(
        &sendmail,
        &format!("echo $$ >{0}; trap '' TERM; sleep 300 & echo $! >>{0}; wait; wait", out.display()),
    );
    start();
    let both = until("it hangs", || {
        let text = place.read("out");
        let pids: Vec<u32> = text.lines().filter_map(|line| line.parse().ok()).collect();
        (pids.len() == 2).then_some(pids)
    });
    std::thread::sleep(Duration::from_secs(25));
    place.until_said("/usr/sbin/sendmail: has not ended within 30 s and was killed", 1);
    for pid in both {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the original, from the package ldirectord: tests/run"]
async fn each_virtual_is_told_of_the_phases_that_it_asks_for_as_by_the_original() {
    const STATUSES: [&str; 8] = [
        "all",
        "none",
        "starting",
        "running",
        "reloading",
        "stopping",
        "starting,stopping",
        "running, reloading",
    ];
    let (asked, mut two, place) = (Arc::default(), well(), Place::new("ld-phases-both"));
    let one = answering(&asked);
    let mut told = Vec::new();
    let vips: Vec<SocketAddr> =
        STATUSES.iter().map(|_| TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()).collect();
    // Weights differ: of servers that are alike the original purges one at its end, and forgets it of the others.
    let write = |servers: &[SocketAddr]| {
        let mut text = "checkinterval=1\nquiescent=yes\nsmtp=127.0.0.25\n".to_owned();
        for (index, (status, vip)) in STATUSES.iter().zip(&vips).enumerate() {
            text.push_str(&format!(
                "virtual={vip}\n    service=smtp\n    emailalert=number{index}@x.test\n    emailalertstatus={status}\n"
            ));
            servers
                .iter()
                .for_each(|server| text.push_str(&format!("    real={server} masq {}\n", index + 1)));
        }
        place.write_cf(&text);
    };
    for there in [false, true] {
        let mut mails = MailServer::start_on(RELAY);
        write(&[one, two.address()]);
        let mut original = None;
        if there {
            original = Some(Original::start(place.path("there"), &place.path("mail.cf")));
        } else {
            assert_eq!(place.code("start"), Some(0));
        }
        let to_all = |phase: &str, what: &str| {
            until(what, || {
                let mails = mails.mails();
                let is_it = |(to, text): &&(BTreeSet<String>, String)| {
                    to.contains("<number0@x.test>")
                        && text.contains(&format!("Status: {phase}"))
                        && text.contains(what)
                };
                mails.iter().any(|mail| is_it(&mail)).then_some(())
            });
        };
        // The last one of the file that wants mails in that phase tells that all before it were served.
        let to_last = |number: usize, phase: &str| {
            let to = format!("<number{number}@x.test>");
            until(&to, || {
                let mails = mails.mails();
                let is_it =
                    |(all, text): &(BTreeSet<String>, String)| all.contains(&to) && text.contains(phase);
                mails.iter().any(is_it).then_some(())
            });
        };
        to_all("starting", &format!("real server: {}", two.address()));
        // The last one that is asked has been asked for the last of the file.
        let last = vips.last().unwrap();
        match &original {
            Some(original) => {
                let restored = format!("\nRestored real server: {} ({last})", two.address());
                until(&restored, || original.said().contains(&restored).then_some(()));
            }
            None => place.until_said("Added real server", 2 * vips.len()),
        }
        to_last(6, "starting");
        two.stop().await;
        to_all("running", &format!("Quiescent real server: {}", two.address()));
        to_last(7, "running");
        write(&[one]);
        match &mut original {
            Some(original) => original.signal(Signal::HUP),
            None => place.signal(Signal::HUP),
        }
        to_all("reloading", "Purged real server (start)");
        to_last(7, "reloading");
        // The reload is over.
        let before = asked.begun();
        until("it is asked again", || (asked.begun() > before + 2 * vips.len()).then_some(()));
        match &mut original {
            Some(original) => original.end(),
            None => assert_eq!(place.code("stop"), Some(0)),
        }
        to_all("stopping", "Purged real server (stop)");
        let mut phases: BTreeSet<(String, String)> = BTreeSet::new();
        for (to, text) in mails.mails() {
            let phase = text.lines().find_map(|line| line.strip_prefix("Daemon-Status: ")).unwrap();
            phases.extend(to.into_iter().map(|to| (to, phase.to_owned())));
        }
        told.push(phases);
        mails.stop();
        two.restart().unwrap();
    }
    assert_eq!(told[0], told[1]);
}

#[tokio::test]
async fn a_command_that_does_not_end_is_ended_with_all_that_it_started() {
    use smtp_director::news::errand::{Errand, run};
    let place = Place::new("ld-errand");
    let (command, out) = (place.path("command"), place.path("out"));
    script(&command, &format!("trap '' TERM; sleep 300 & echo $! >{}; wait; wait", out.display()));
    let errand = Errand { program: command, arguments: vec!["start".to_owned()] };
    let why = run(&errand, b"input that nobody reads", Duration::from_millis(500)).await.unwrap_err();
    assert!(why.contains("was killed"), "{why}");
    let pid: u32 = place.read("out").trim().parse().unwrap();
    until("its child is gone", || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        (stat.is_empty() || stat.contains(") Z ")).then_some(())
    });
}
