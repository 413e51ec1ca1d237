//! Canaries through real Postfix: where mail stays, they do, and the director sees it with no agent on the server.
//!
//! Each farm is three instances behind the daemon with its proxy. Each test makes one fault in the first, and asserts
//! what `status` says of it, that the others keep their weight, and that it comes back when the fault is mended.

#![allow(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on has failed; also in the functions that the tests share"
)]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::time::Instant;

use serde_json::Value;

use super::*;
use crate::scratch::Folder;

/// What the README says of a farm, with a filter: the canary takes the way of all mail, and leaves it at the end.
fn main_cf(way: SocketAddr, more: &str) -> String {
    let more = more.replace("LISTEN", &format!("{}]:{}", way.ip(), way.port()));
    format!(
        "mynetworks =\n\
         mydestination =\n\
         notify_classes =\n\
         relay_domains = canary.example.com\n\
         transport_maps = inline:{{{{ canary.example.com = relay:[{}]:{} }}}}\n\
         smtpd_relay_restrictions = reject_unauth_destination\n\
         minimal_backoff_time = 2s\n\
         maximal_backoff_time = 4s\n\
         queue_run_delay = 2s\n\
         transport_retry_time = 2s\n\
         {more}",
        way.ip(),
        way.port()
    )
}

/// The rest of the port's line, and what delivers.
const MASTER: &str =
    "- smtpd\nrelay unix - - n - - smtp\nretry unix - - n - - error\nerror unix - - n - - error\n";

/// The daemon, its receiver and three servers.
struct Farm {
    folder: Folder,
    child: Child,
    http: SocketAddr,
    servers: Vec<Postfix>,
}

fn free(host: &str) -> SocketAddr {
    TcpListener::bind((host, 0)).unwrap().local_addr().unwrap()
}

impl Farm {
    /// `more` is more of main.cf, and `master` of master.cf, of the first.
    fn start(name: &str, more: &str, master: &str) -> Self {
        let (http, vip, listen) = (free("127.0.0.89"), free("127.0.0.89"), free("127.0.0.89"));
        let servers: Vec<_> = (0..3)
            .map(|n| {
                let (more, master) = if n == 0 { (more, master) } else { ("", MASTER) };
                let (name, main) = (format!("canary-{name}-{n}"), main_cf(listen, more));
                Setup { port: master, ..Setup::new(&name, &main) }.start()
            })
            .collect();
        let mut file = format!(
            "dataplane = \"proxy\"\nhttp = \"{http}\"\n\
             [check]\ninterval = \"500ms\"\nretry = \"200ms\"\n\
             [[virtual]]\nname = \"mail\"\naddress = \"{vip}\"\n\
             canary = {{ to = \"probe@canary.example.com\", listen = \"{listen}\", interval = \"1s\", slow = \"5s\", lost = \"15s\", timeout = \"20s\" }}\n"
        );
        for server in &servers {
            file += &format!("[[virtual.real]]\naddress = \"{}\"\n", server.address);
        }
        let folder = Folder::new(&format!("canary-{name}"));
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_smtp-director"))
            .args(["run", "--config"])
            .arg(folder.file(file))
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let farm = Self { folder, child, http, servers };
        farm.until("all are up", |reals| {
            reals.iter().all(|real| real["state"] == "up" && real["weight"] == 100)
        });
        assert!(farm.reals()[0]["canary_ms"].as_f64().unwrap() > 0.0);
        farm
    }

    fn reals(&self) -> Vec<Value> {
        let look = || {
            let mut stream = TcpStream::connect(self.http).ok()?;
            stream.write_all(b"GET /status HTTP/1.0\r\nHost: x\r\n\r\n").ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).ok()?;
            serde_json::from_str::<Value>(answer.split_once("\r\n\r\n")?.1).ok()
        };
        let status = look().unwrap_or_default();
        status["virtuals"][0]["reals"].as_array().cloned().unwrap_or_default()
    }

    /// The servers once this holds of them, in their order.
    fn until(&self, what: &str, holds: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let start = Instant::now();
        loop {
            let mut reals = self.reals();
            let place = |real: &Value| {
                let is = |server: &Postfix| real["address"] == server.address.to_string();
                self.servers.iter().position(is)
            };
            reals.sort_by_key(place);
            if reals.len() == 3 && holds(&reals) {
                return reals;
            }
            assert!(
                start.elapsed() < 2 * LIMIT,
                "{what}: {reals:#?}\n{}\n{}",
                self.log(),
                self.servers[0].log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// The first goes out for this reason at this stage, and only it; mended, it comes back.
    fn loses_the_first(&self, reason: &str, stage: &str, mend: impl FnOnce(&Postfix)) {
        let reals =
            self.until("the first is out", |reals| reals[0]["state"] == "down" && reals[0]["weight"] == 0);
        assert_eq!((&reals[0]["reason"], &reals[0]["stage"]), (&reason.into(), &stage.into()), "{reals:#?}");
        assert!(reals[1..].iter().all(|real| real["weight"] == 100), "{reals:#?}");
        mend(&self.servers[0]);
        self.until("the first is back", |reals| reals.iter().all(|real| real["weight"] == 100));
        // Nobody else had anything.
        let log = self.log();
        for other in &self.servers[1..] {
            let blamed = format!("real server {} of mail is", other.address);
            let lines: Vec<_> =
                log.lines().filter(|line| line.contains(&blamed) && !line.contains("is up")).collect();
            assert_eq!(lines, [] as [&str; 0]);
        }
        assert!(!log.contains("no canary of any server"), "{log}");
    }
}

impl Drop for Farm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The process of a service of this instance.
fn process(postfix: &Postfix, service: &str) -> Pid {
    let master = postfix.master().as_raw_nonzero().to_string();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let Some((head, rest)) = stat.rsplit_once(')') else { continue };
        let name = head.split_once('(').unwrap().1;
        if name == service && rest.split_whitespace().nth(1) == Some(&master) {
            return Pid::from_raw(head.split_whitespace().next().unwrap().parse().unwrap()).unwrap();
        }
    }
    panic!("no {service} of {master}");
}

/// What `postfix reload` comes to, without its script, which takes seconds.
fn reload(postfix: &Postfix) {
    rustix::process::kill_process(postfix.master(), rustix::process::Signal::HUP).unwrap();
}

fn replace(postfix: &Postfix, file: &str, from: &str, to: &str) {
    let path = postfix.folder.join("etc").join(file);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(path, text.replace(from, to)).unwrap();
    reload(postfix);
}

#[test]
#[ignore = "needs root and Postfix: tests/run"]
fn a_stopped_qmgr_is_seen_by_canaries() {
    let farm = Farm::start("qmgr", "", MASTER);
    let qmgr = process(&farm.servers[0], "qmgr");
    rustix::process::kill_process(qmgr, rustix::process::Signal::STOP).unwrap();
    farm.loses_the_first("lost", "delivery", |_| {
        rustix::process::kill_process(qmgr, rustix::process::Signal::CONT).unwrap();
    });
}

#[test]
#[ignore = "needs root and Postfix: tests/run"]
fn a_transport_that_is_missing_is_seen_by_canaries() {
    let farm = Farm::start("transport", "", MASTER);
    replace(&farm.servers[0], "master.cf", "relay unix", "relax unix");
    farm.loses_the_first("lost", "delivery", |postfix| {
        replace(postfix, "master.cf", "relax unix", "relay unix");
    });
}

#[test]
#[ignore = "needs root and Postfix: tests/run"]
fn a_transport_that_is_stuck_in_other_mail_is_seen_by_canaries() {
    // Connections are taken by the kernel, and nobody greets.
    let tarpit = TcpListener::bind("127.0.0.88:0").unwrap();
    let address = tarpit.local_addr().unwrap();
    let stuck = format!(
        "relay_domains = canary.example.com stuck.example.com\n\
         transport_maps = inline:{{{{ canary.example.com = relay:[LISTEN }} {{ stuck.example.com = relay:[{}]:{} }}}}\n",
        address.ip(),
        address.port()
    );
    // Two deliveries at a time, for all destinations: what a small limit of processes is to a busy server.
    let master = MASTER.replace("relay unix - - n - - smtp", "relay unix - - n - 2 smtp");
    let farm = Farm::start("stuck", &stuck, &master);
    for number in 0..4 {
        let spec = SmtpSpec {
            data: Some(Box::new(checks::smtp::DataSpec {
                from: String::new(),
                to: format!("{number}@stuck.example.com"),
                timeout: LIMIT,
                text: None,
            })),
            ..SmtpSpec::default()
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let outcome = runtime.block_on(checks::run(&check(farm.servers[0].address, Kind::Smtp(spec))));
        assert_eq!(outcome.verdict, Ok(()));
    }
    farm.loses_the_first("lost", "delivery", |_| drop(tarpit));
}

#[test]
#[ignore = "needs root and Postfix: tests/run"]
fn a_dead_content_filter_is_seen_by_canaries() {
    let back = free("127.0.0.88");
    let filter = format!("content_filter = relay:[{}]:{}\n", back.ip(), back.port());
    let smtpd = format!("{back} inet n - n - - smtpd -o content_filter= -o mynetworks=127.0.0.0/8\n");
    let master = format!("{MASTER}{smtpd}");
    let farm = Farm::start("filter", &filter, &master);
    replace(&farm.servers[0], "master.cf", &smtpd, "");
    farm.loses_the_first("lost", "delivery", |postfix| {
        let path = postfix.folder.join("etc/master.cf");
        let text = fs::read_to_string(&path).unwrap() + &smtpd;
        fs::write(path, text).unwrap();
        reload(postfix);
    });
}

#[test]
#[ignore = "needs root and Postfix: tests/run"]
fn a_milter_that_refuses_at_the_end_of_data_is_seen_by_canaries() {
    let listener = TcpListener::bind("127.0.0.88:0").unwrap();
    let address = listener.local_addr().unwrap();
    let refuses = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let shared = std::sync::Arc::clone(&refuses);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let shared = std::sync::Arc::clone(&shared);
            std::thread::spawn(move || milter(stream, &shared));
        }
    });
    let milters = format!(
        "smtpd_milters = inet:{}:{}\nmilter_default_action = tempfail\n",
        address.ip(),
        address.port()
    );
    let farm = Farm::start("milter", &milters, MASTER);
    refuses.store(true, std::sync::atomic::Ordering::Relaxed);
    farm.loses_the_first("tempfail", "end_of_data", |_| {
        refuses.store(false, std::sync::atomic::Ordering::Relaxed);
    });
}

/// Speaks the milter protocol: goes on with everything, and at the end of a message does what it is told.
fn milter(mut stream: TcpStream, refuses: &std::sync::atomic::AtomicBool) -> Option<()> {
    loop {
        let mut head = [0; 5];
        stream.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        let mut body = vec![0; usize::try_from(length).ok()? - 1];
        stream.read_exact(&mut body).ok()?;
        let answer: &[u8] = match head[4] {
            // Version 2, no changes of mail, all events.
            b'O' => &[b'O', 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0],
            // Macros and an end of a message are not answered.
            b'D' | b'A' => continue,
            b'Q' => return None,
            b'E' if refuses.load(std::sync::atomic::Ordering::Relaxed) => b"t",
            _ => b"c",
        };
        stream.write_all(&u32::try_from(answer.len()).ok()?.to_be_bytes()).ok()?;
        stream.write_all(answer).ok()?;
    }
}

#[test]
#[ignore = "needs root and Postfix: tests/run"]
fn a_way_back_that_is_cut_is_an_alarm_and_takes_out_nobody() {
    let farm = Farm::start("way", "", MASTER);
    // The route leads into the dark on all three.
    let port = {
        let main = fs::read_to_string(farm.servers[0].folder.join("etc/main.cf")).unwrap();
        let (_, rest) = main.split_once("relay:[").unwrap();
        rest.split_once(" }").unwrap().0.to_owned()
    };
    // One after the other: the first may be thought slow until the last has it too.
    for server in &farm.servers {
        replace(server, "main.cf", &port, "127.0.0.1]:1");
    }
    farm.until("an alarm", |reals| {
        reals.iter().all(|real| real["reason"] == "local" && real["stage"] == "delivery")
    });
    assert!(farm.log().contains("the way back is the suspect, nobody is taken out"), "{}", farm.log());
    // Far beyond the limit, and nobody is out.
    let reals = farm.until("all are overdue", |reals| {
        reals.iter().all(|real| real["canary_overdue_seconds"].as_u64().is_some_and(|seconds| seconds > 20))
    });
    assert!(
        reals.iter().all(|real| real["weight"].as_u64().is_some_and(|weight| weight >= 50)),
        "{reals:#?}"
    );
    for server in &farm.servers {
        replace(server, "main.cf", "127.0.0.1]:1", &port);
    }
    farm.until("all is well", |reals| {
        reals.iter().all(|real| real["reason"].is_null() && real["weight"] == 100)
    });
    assert!(farm.log().contains("canaries come back to"), "{}", farm.log());
    assert!(!farm.log().contains("is down"), "{}", farm.log());
}
