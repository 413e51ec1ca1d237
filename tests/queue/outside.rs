//! Programs of others that ask, or that run us: HAProxy, spawn(8), systemd.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use postfix::report::Source;
use postfix::report::agent::parse;

use super::instance::{DISCARD, Instance, LATER};
use super::serve::Agent;
use super::spool::Spool;
use super::{LIMIT, Running, free_port, program, wait_until};

/// HAProxy with one server and its agent.
struct Haproxy {
    socket: std::path::PathBuf,
    _process: Running,
}

impl Haproxy {
    fn start(folder: &Path, agent: SocketAddr) -> Self {
        let (socket, file) = (folder.join("haproxy.sock"), folder.join("haproxy.cfg"));
        let text = format!(
            "global\n stats socket {} mode 600 level admin\n\
             defaults\n mode tcp\n timeout connect 5s\n timeout client 5s\n timeout server 5s\n\
             listen mail\n bind {}\n\
             server real1 127.0.0.1:25 weight 100 agent-check agent-addr {} agent-port {} agent-inter 100\n",
            socket.display(),
            free_port(3),
            agent.ip(),
            agent.port(),
        );
        fs::write(&file, text).unwrap();
        let process = Running::start(
            Command::new("haproxy").arg("-q").arg("-db").arg("-f").arg(&file).stderr(Stdio::null()),
        );
        wait_until(LIMIT, "HAProxy runs", || UnixStream::connect(&socket).is_ok());
        Self { socket, _process: process }
    }

    /// Status, weight, result of the agent check and what HAProxy shows of the agent's words.
    fn server(&self) -> [String; 4] {
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        stream.write_all(b"show stat\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let titles: Vec<_> = text.lines().next().unwrap().trim_start_matches("# ").split(',').collect();
        let row = text.lines().find(|line| line.starts_with("mail,real1,")).unwrap();
        let row: Vec<_> = row.split(',').collect();
        let column = |name: &str| row[titles.iter().position(|title| *title == name).unwrap()].to_owned();
        ["status", "weight", "agent_status", "last_agt"].map(column)
    }

    fn await_server(&self, status: &str, weight: &str, shown: &str) {
        let mut last = None;
        for _ in 0..500 {
            let found = self.server();
            if found[0].starts_with(status) && found[1] == weight && found[3].contains(shown) {
                return;
            }
            last = Some(found);
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        panic!("{status} {weight} {shown}: {last:?}");
    }
}

#[test]
#[ignore = "needs root and Postfix: tests/run"]
fn haproxy_takes_the_line_as_it_is() {
    let spool = Spool::new("haproxy");
    let agent = Agent::start(spool.folder(), &spool.config(), &[]);
    let haproxy = Haproxy::start(spool.folder(), agent.address);
    haproxy.await_server("no check", "100", "");
    wait_until(LIMIT, "the agent was asked", || haproxy.server()[2] == "L7OK");
    assert!(haproxy.server()[3].contains("via agent : up"), "{:?}", haproxy.server());
    // More old mail than can be asked one by one.
    spool.add("incoming", 1500, 300);
    haproxy.await_server("no check", "10", "via agent : up");
    for entry in fs::read_dir(spool.queue("incoming")).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    haproxy.await_server("no check", "100", "via agent : up");
    // A spool in which no master has a pid file.
    fs::create_dir(spool.queue("pid")).unwrap();
    haproxy.await_server(
        "DOWN (agent)",
        "100",
        "via agent : down (v1 source=scan instances=1 master=0 qmgr=0 ",
    );
    fs::remove_dir(spool.queue("pid")).unwrap();
    haproxy.await_server("no check", "100", "via agent : up");
}

fn ask(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let mut line = String::new();
    stream.read_to_string(&mut line).unwrap();
    line
}

#[test]
#[ignore = "needs root and Postfix: tests/run"]
fn postfix_itself_can_run_it_as_a_service() {
    let port = free_port(4);
    let copy = std::env::temp_dir().join(format!("smtp-realserver-{}", std::process::id()));
    fs::copy(program(), &copy).unwrap();
    let spool = std::env::temp_dir().join(format!("queue-spawn-{}", std::process::id()));
    let service = format!(
        "{port} inet n n n - 2 spawn user=nobody:postdrop argv={} report --format agent -c {}/etc\n",
        copy.display(),
        spool.display()
    );
    let instance = Instance::start("spawn", LATER, &service);
    tokio::runtime::Runtime::new().unwrap().block_on(instance.send(2));
    instance.await_queue("deferred", 2);
    let line = ask(port);
    let found = parse(line.as_bytes()).unwrap_or_else(|error| panic!("{error}: {line}")).report.unwrap();
    assert_eq!(
        (found.source, found.deferred, found.qmgr),
        (Some(Source::Showq), Some(2), Some(true)),
        "{line}"
    );
    fs::remove_file(copy).unwrap();
}

/// As the unit runs it: a user without any right, and the one capability.
#[test]
#[ignore = "needs root and Postfix: tests/run"]
fn one_capability_is_all_it_needs() {
    let instance = Instance::start("capability", DISCARD, "");
    let here = instance.folder().join("smtp-realserver");
    fs::copy(program(), &here).unwrap();
    let address = free_port(6);
    let only = "-all,+dac_read_search";
    let _process = Running::start(
        Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"])
            .args(["--inh-caps", only, "--ambient-caps", only, "--bounding-set", only])
            .arg(here)
            .args(["serve", "--listen", &address.to_string(), "-c"])
            .arg(instance.config())
            .current_dir("/")
            .stderr(Stdio::null()),
    );
    wait_until(LIMIT, "it listens", || TcpStream::connect(address).is_ok());
    let look = || {
        let line = ask(address);
        parse(line.as_bytes()).unwrap_or_else(|error| panic!("{error}: {line}")).report.unwrap()
    };
    wait_until(LIMIT, "counting began", || look().done == Some(0));
    let found = look();
    assert_eq!((found.source, found.trouble), (Some(Source::Scan), None));
    assert_eq!((found.master, found.qmgr, found.smtpd), (Some(true), Some(true), Some(0)));
    tokio::runtime::Runtime::new().unwrap().block_on(instance.send(2));
    wait_until(LIMIT, "they are counted", || look().done == Some(2));
}

#[test]
#[ignore = "needs root and Postfix: tests/run"]
fn systemd_may_open_the_socket() {
    let (spool, address) = (Spool::new("activate"), free_port(5));
    let _process = Running::start(
        Command::new("systemd-socket-activate")
            .args(["-l", &address.to_string()])
            .arg(program())
            .args(["serve", "-c"])
            .arg(spool.config())
            .stderr(Stdio::null()),
    );
    wait_until(LIMIT, "it listens", || TcpStream::connect(address).is_ok());
    for _ in 0..3 {
        let line = ask(address);
        assert!(parse(line.as_bytes()).unwrap().report.is_some(), "{line}");
    }
}

#[test]
#[ignore = "needs root and Postfix: tests/run"]
fn systemd_has_nothing_to_say_of_the_units() {
    let folder = crate::scratch::Folder::new("units");
    let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("postfix/dist");
    for unit in ["smtp-realserver.service", "smtp-realserver.socket"] {
        let text = fs::read_to_string(dist.join(unit)).unwrap();
        let text = text.replace("/usr/sbin/smtp-realserver", program().to_str().unwrap());
        fs::write(folder.path().join(unit), text).unwrap();
    }
    let units = ["smtp-realserver.service", "smtp-realserver.socket"].map(|unit| folder.path().join(unit));
    let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).args(units).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    // It reads all units of the machine, and may have something to say of others.
    let ours: Vec<_> = said.lines().filter(|line| line.contains("smtp-realserver")).collect();
    assert!(output.status.success() && ours.is_empty(), "{ours:?}");
}
