//! What starts and stops daemons in a cluster or at boot: the agent, the init script, heartbeat's way, systemd's units.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::{PROGRAM, Place, SERVER, until};

const DIST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/dist");

/// A link to the program by the name of the command.
pub(super) fn link(place: &Place) -> PathBuf {
    let link = place.path("ldirectord");
    symlink(PROGRAM, &link).unwrap();
    link
}

/// What it says; without a configuration it takes the default.
fn agent(place: &Place, action: &str, configured: bool) -> Option<i32> {
    let mut command = Command::new(format!("{DIST}/ocf/smtp-director"));
    if configured {
        command.env("OCF_RESKEY_configfile", place.path("mail.cf"));
    }
    let output = command
        .arg(action)
        .env("OCF_RESKEY_ldirectord", place.path("ldirectord"))
        .env("LDIRECTORD_RUN_DIR", place.path(""))
        .output()
        .unwrap();
    println!("{action}: {output:?}");
    output.status.code()
}

#[test]
fn the_agent_has_the_right_code_for_each_state_and_action() {
    const ACTIONS: [&str; 9] =
        ["meta-data", "usage", "validate-all", "monitor", "reload", "start", "stop", "monitor", "promote"];
    for (state, codes) in [
        ("not installed", [0, 0, 5, 5, 5, 5, 0, 5, 3]),
        ("no file", [0, 0, 5, 7, 7, 5, 0, 7, 3]),
        ("wrong file", [0, 0, 2, 7, 7, 2, 0, 7, 3]),
        ("stopped", [0, 0, 0, 7, 7, 0, 0, 7, 3]),
        ("running", [0, 0, 0, 0, 0, 0, 0, 7, 3]),
        ("running with a wrong file", [0, 0, 2, 0, 2, 0, 0, 7, 3]),
        ("running without its file", [0, 0, 5, 0, 5, 0, 0, 7, 3]),
        ("died", [0, 0, 0, 7, 7, 0, 0, 7, 3]),
        ("pid of somebody else", [0, 0, 0, 7, 7, 0, 0, 7, 3]),
    ] {
        let place = Place::new(&format!("ocf-{}", state.replace(' ', "-")));
        place.write("", SERVER);
        if state != "not installed" {
            link(&place);
        }
        if state.starts_with("running") || state == "died" {
            assert_eq!(place.code("start"), Some(0));
        }
        let file = place.path("mail.cf");
        if state == "died" {
            let pid = i32::try_from(place.pid().unwrap()).ok().and_then(Pid::from_raw).unwrap();
            kill_process(pid, Signal::KILL).unwrap();
            until("its end", || (place.code("status") == Some(1)).then_some(()));
        }
        if state.contains("wrong") {
            fs::write(&file, "junk").unwrap();
        }
        if state.contains("no file") || state.contains("without") {
            fs::remove_file(&file).unwrap();
        }
        let mut stranger = super::Stranger::start();
        if state.starts_with("pid") {
            fs::write(place.path("ldirectord.mail.cf.pid"), format!("{}\n", stranger.0.id())).unwrap();
        }
        let got = ACTIONS.map(|action| agent(&place, action, true));
        assert_eq!(stranger.0.try_wait().unwrap(), None, "{state}: it lives");
        assert_eq!(got, codes.map(Some), "{state}: {ACTIONS:?}");
    }
}

#[test]
fn the_agent_that_is_not_configured_says_that_nothing_runs() {
    let place = Place::new("ocf-not-configured");
    link(&place);
    // Only what starts nothing: the machine may have a file of its own where the default is.
    let codes = ["meta-data", "monitor", "reload", "stop"].map(|action| agent(&place, action, false));
    assert_eq!(codes, [0, 7, 7, 0].map(Some));
}

#[test]
fn heartbeat_starts_twice_stops_twice_and_reads_what_status_says() {
    let place = Place::new("heartbeat");
    place.write("", SERVER);
    let resource = link(&place); // resource.d/ldirectord; haresources has ldirectord::mail.cf
    let run = |action: &str| -> Output {
        let mut command = Command::new(&resource);
        // A name, and no path: it is looked for in /etc/ha.d, and then taken as it is.
        command
            .current_dir(place.path(""))
            .arg("mail.cf")
            .arg(action)
            .env("LDIRECTORD_RUN_DIR", place.path(""))
            .stdin(Stdio::null());
        command.output().unwrap()
    };
    let runs = || {
        let said = String::from_utf8(run("status").stdout).unwrap();
        said.contains("running") || said.contains("OK")
    };
    assert!(!runs());
    for _ in 0..2 {
        assert!(run("start").status.success());
        assert!(runs());
    }
    for _ in 0..2 {
        assert!(run("stop").status.success());
        assert!(!runs());
    }
}

#[test]
fn the_init_script_passes_everything_on_and_knows_the_codes_of_lsb() {
    let place = Place::new("init");
    place.write("", SERVER);
    let defaults = place.path("default");
    let script = fs::read_to_string(format!("{DIST}/ldirectord.init")).unwrap();
    let script = script
        .replace("DAEMON=/usr/sbin/ldirectord", &format!("DAEMON={}", place.path("ldirectord").display()));
    fs::write(place.path("init"), script).unwrap();
    let run = |action: &str| {
        let mut command = Command::new("sh");
        command.arg(place.path("init")).arg(action).env("DEFAULTS", &defaults);
        command.env("LDIRECTORD_RUN_DIR", place.path("")).output().unwrap().status.code()
    };
    fs::write(&defaults, format!("CONFIG_FILE={}\n", place.path("mail.cf").display())).unwrap();
    assert_eq!(["start", "stop", "status", "nonsense"].map(run), [5, 0, 4, 2].map(Some), "not installed");
    link(&place);
    let actions = [
        "status",
        "reload",
        "start",
        "start",
        "status",
        "restart",
        "try-restart",
        "force-reload",
        "stop",
        "stop",
        "status",
    ];
    assert_eq!(actions.map(run), [3, 1, 0, 0, 0, 0, 0, 0, 0, 0, 3].map(Some));
}

#[test]
fn a_service_manager_hears_that_it_is_ready_loads_lives_and_ends() {
    let place = Place::new("notify");
    place.write("", SERVER);
    let socket = UnixDatagram::bind(place.path("notify")).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut daemon = Command::new(PROGRAM)
        .args(["run", "--config"])
        .arg(place.path("mail.cf"))
        .env("NOTIFY_SOCKET", place.path("notify"))
        .env("WATCHDOG_USEC", "40000")
        .spawn()
        .unwrap();
    let await_word = |wanted: &str| {
        let mut buffer = [0; 256];
        loop {
            let length = socket.recv(&mut buffer).expect(wanted);
            let said = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if said.lines().any(|line| line == wanted) {
                return said;
            }
        }
    };
    let ready = await_word("READY=1");
    assert!(ready.contains(&format!("MAINPID={}", daemon.id())), "{ready}");
    await_word("WATCHDOG=1");
    let pid = Pid::from_child(&daemon);
    kill_process(pid, Signal::HUP).unwrap();
    assert!(await_word("RELOADING=1").contains("MONOTONIC_USEC="));
    await_word("READY=1");
    await_word("WATCHDOG=1");
    kill_process(pid, Signal::TERM).unwrap();
    await_word("STOPPING=1");
    assert!(daemon.wait().unwrap().success());
}

/// Each unit with the program that was built in the place of the one that would be installed.
fn units(place: &Place) -> Vec<PathBuf> {
    let name = |from: &Path| from.file_name().unwrap().to_str().unwrap().to_owned();
    let files = fs::read_dir(DIST).unwrap().map(|entry| entry.unwrap().path());
    let units = files.filter(|path| path.extension().is_some_and(|extension| extension == "service"));
    units
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap().replace("/usr/sbin/smtp-director", PROGRAM);
            let unit = place.path(&name(&path).replace("@.", "@mail.cf."));
            fs::File::create(&unit).unwrap().write_all(text.as_bytes()).unwrap();
            unit
        })
        .collect()
}

#[test]
#[ignore = "needs systemd-analyze: tests/run"]
fn the_units_are_right_and_their_exposure_is_small() {
    let place = Place::new("units");
    let units = units(&place);
    assert_eq!(units.len(), 3, "{units:?}");
    for unit in units {
        let verify =
            Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&unit).output().unwrap();
        let said = String::from_utf8_lossy(&verify.stderr).into_owned();
        let unit_name = unit.file_name().unwrap().to_str().unwrap();
        assert!(verify.status.success() && !said.contains(unit_name), "{said}");
        let security = Command::new("systemd-analyze")
            .args(["security", "--offline=yes", "--threshold=25"])
            .arg(&unit)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&security.stdout).into_owned();
        println!("{unit_name}: {}", said.lines().last().unwrap_or_default());
        assert!(security.status.success(), "{said}");
    }
}

#[test]
#[ignore = "needs ocf-tester: tests/run"]
fn the_agent_passes_the_tester_of_the_cluster() {
    let place = Place::new("ocf-tester");
    place.write("", SERVER);
    let command = link(&place);
    let output = Command::new("ocf-tester")
        .args(["-v", "-n", "director", "-o"])
        .arg(format!("configfile={}", place.path("mail.cf").display()))
        .arg("-o")
        .arg(format!("ldirectord={}", command.display()))
        .arg(format!("{DIST}/ocf/smtp-director"))
        .env("LDIRECTORD_RUN_DIR", place.path(""))
        .env("OCF_ROOT", "/usr/lib/ocf")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("passed all tests"), "{said}");
}
