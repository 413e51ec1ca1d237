//! The director and keepalived in turn, on one machine, with the same servers at the same pace.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::process::{memory, ran, tree, user_and_system};
use crate::responder::Responder;

const DIRECTOR: &str = env!("CARGO_BIN_EXE_smtp-director");
/// Every server has been asked by then, more than once.
const WARM_UP: Duration = Duration::from_secs(12);

pub(crate) fn keepalived(reals: u16, time: Duration, rounds: usize) {
    let mut responder = Responder::start("count");
    let port = responder.port;
    let ours = file("toml", &director_conf(reals, port));
    let theirs = file("conf", &keepalived_conf(reals, port));
    let pid_file = |name| std::env::temp_dir().join(name).display().to_string();
    let (pid, checkers) = (pid_file("bench-keepalived.pid"), pid_file("bench-checkers.pid"));
    for round in 1..=rounds {
        let director = start(Command::new(DIRECTOR).args(["run", "--config"]).arg(&ours));
        measure(&format!("{round} smtp-director"), director, time, &mut responder);
        let keepalived = start(
            Command::new("keepalived")
                .args(["--dont-fork", "--check", "--no-syslog", "--pid", &pid, "--checkers_pid", &checkers])
                .arg("--use-file")
                .arg(&theirs),
        );
        measure(&format!("{round} keepalived   "), keepalived, time, &mut responder);
    }
    fs::remove_file(ours).expect("remove");
    fs::remove_file(theirs).expect("remove");
}

fn start(command: &mut Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a balancer")
}

#[expect(clippy::cast_precision_loss, reason = "counts of a short run")]
fn measure(what: &str, mut child: Child, time: Duration, responder: &mut Responder) {
    std::thread::sleep(WARM_UP);
    let pids = tree(child.id());
    let spent = || pids.iter().copied().map(ran).sum::<Duration>();
    let system = || pids.iter().map(|pid| user_and_system(*pid)[1]).sum::<Duration>();
    let before = (spent(), responder.finished(), system());
    std::thread::sleep(time);
    let after = (spent(), responder.finished(), system());
    let (used, checks) = (after.0 - before.0, after.1 - before.1);
    let [rss, pss] = pids.iter().map(|pid| memory(*pid)).fold([0, 0], |[a, b], [c, d]| [a + c, b + d]);
    println!(
        "{what}: {checks} checks in {} s, {used:?} of CPU, {:.4} ms a check, {:.4} of them system; {} processes, RSS {rss} KiB, PSS {pss} KiB",
        time.as_secs(),
        used.as_secs_f64() * 1000.0 / checks as f64,
        (after.2 - before.2).as_secs_f64() * 1000.0 / checks as f64,
        pids.len(),
    );
    let terminated = Command::new("kill").arg(child.id().to_string()).status().expect("kill");
    assert!(terminated.success());
    child.wait().expect("wait");
}

fn file(extension: &str, text: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("smtp-director-bench-{}.{extension}", std::process::id()));
    fs::write(&path, text).expect("configuration");
    path
}

/// The addresses of the servers, without a port.
fn addresses(reals: u16) -> impl Iterator<Item = String> {
    (0..reals).map(|index| {
        let [high, low] = (index + index / 254 * 2 + 1).to_be_bytes();
        format!("127.201.{high}.{low}")
    })
}

fn director_conf(reals: u16, port: u16) -> String {
    let mut text = "dataplane = \"ipvs\"\nhttp = \"127.0.0.1:9625\"\n[check]\ninterval = \"5s\"\n".to_owned();
    write!(text, "[[virtual]]\naddress = \"127.200.0.1:{port}\"\n").expect("a string");
    for address in addresses(reals) {
        write!(text, "[[virtual.real]]\naddress = \"{address}:{port}\"\n").expect("a string");
    }
    text
}

fn keepalived_conf(reals: u16, port: u16) -> String {
    let mut text = format!(
        "global_defs {{\n router_id bench\n}}\nvirtual_server 127.200.0.1 {port} {{\n delay_loop 5\n lb_algo wlc\n lb_kind DR\n protocol TCP\n"
    );
    for address in addresses(reals) {
        write!(
            text,
            " real_server {address} {port} {{\n  weight 1\n  SMTP_CHECK {{\n   connect_timeout 3\n   helo_name localhost\n  }}\n }}\n"
        )
        .expect("a string");
    }
    text + "}\n"
}
