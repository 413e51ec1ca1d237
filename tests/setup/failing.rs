//! What stands in the way: nothing is done, or all of it is taken back.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use super::{Box, assert_same, expected, on, snapshot};

const UP: &str = "up --forward gate --vip 10.99.0.100 --vip 10.99.0.101";

/// A command that makes `ip` fail at some address, in the place of the real one.
fn broken_ip(real: &Box, word: &str) -> std::path::PathBuf {
    let folder = real.state.with_extension("bin");
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join("ip");
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *replace*{word}*) echo 'RTNETLINK answers: File exists' >&2; exit 2;; esac\nexec /usr/sbin/ip \"$@\"\n"
    );
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

#[test]
#[ignore = "needs root: tests/run"]
fn a_step_that_fails_takes_all_before_it_back() {
    for word in ["10.99.0.100", "10.99.0.101"] {
        let real = Box::new();
        let before = snapshot(&real.host, &[]);
        let bin = broken_ip(&real, word);
        let path = format!("PATH={}:/usr/sbin:/usr/bin:/sbin:/bin", bin.display());
        let said = expected(&real.run_below(&["env", &path], UP), 71, UP);
        assert!(said.contains("File exists") && said.contains("nothing of it is left"), "{said}");
        assert_same(&before, &snapshot(&real.host, &[]));
        assert!(!real.state.exists());
        fs::remove_dir_all(bin).unwrap();
    }
}

/// A setting that cannot be written, as in most containers.
#[test]
#[ignore = "needs root: tests/run"]
fn settings_that_cannot_be_written_are_found_before_anything_is_done() {
    let real = Box::new();
    let before = snapshot(&real.host, &[]);
    let read_only = "mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys && exec \"$@\"";
    let said = expected(&real.run_below(&["unshare", "-m", "sh", "-c", read_only, "sh"], UP), 77, UP);
    assert!(said.contains("cannot be set here") && said.contains("container"), "{said}");
    assert_same(&before, &snapshot(&real.host, &[]));
    assert!(!real.state.exists());
}

#[test]
#[ignore = "needs root: tests/run"]
fn who_is_not_root_or_has_no_rights_does_nothing() {
    let real = Box::new();
    let before = snapshot(&real.host, &[]);
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let copy = real.state.with_extension("program");
    fs::copy(crate::queue::program(), &copy).unwrap();
    let as_nobody = real.host.inside(|| {
        Command::new(nobody[0])
            .args(&nobody[1..])
            .arg(&copy)
            .args(UP.split(' '))
            .arg("--no-postfix")
            .output()
            .unwrap()
    });
    assert!(expected(&as_nobody, 77, UP).contains("needs root"));
    fs::remove_file(copy).unwrap();
    // Root without the right to change the network.
    let without = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"];
    let said = expected(&real.run_below(&without, UP), 77, UP);
    assert!(said.contains("not permitted") || said.contains("cannot be set"), "{said}");
    assert_same(&before, &snapshot(&real.host, &[]));
}

#[test]
#[ignore = "needs root: tests/run"]
fn a_full_disk_is_noticed_before_anything_is_done() {
    let real = Box::new();
    let before = snapshot(&real.host, &[]);
    let full = "mkdir -p \"$0\" && mount -t tmpfs -o size=4k tmpfs \"$0\" && \
                head -c 4096 /dev/zero >\"$0/full\"; \"$@\"; code=$?; ls \"$0\"; exit $code";
    let folder = real.state.to_str().unwrap().to_owned();
    let said = expected(&real.run_below(&["unshare", "-m", "sh", "-c", full, &folder], UP), 71, UP);
    assert!(said.contains("the record cannot be written"), "{said}");
    assert!(said.lines().any(|line| line == "full") && !said.contains("record.new\n"), "{said}");
    assert_same(&before, &snapshot(&real.host, &[]));
    fs::remove_dir(&real.state).unwrap();
}

/// strace kills it at its n-th change of something: after the record and before the last step.
#[test]
#[ignore = "needs root: tests/run"]
fn a_process_that_is_killed_half_way_can_go_on_or_back() {
    for word in ["sysctl", "10.99.0.100/32", "10.99.0.101/32"] {
        for then in ["up", "down"] {
            let real = Box::new();
            let before = snapshot(&real.host, &[]);
            // It ends as soon as it says that it does this: SIGPIPE is ignored, so the reader kills it.
            let script = "mkfifo \"$0.pipe\"; \"$@\" >\"$0.pipe\" & pid=$!; \
                 while read -r line; do case \"$line\" in *\"$WORD\"*) kill -9 $pid; break;; esac; done <\"$0.pipe\"; \
                 wait $pid; code=$?; rm \"$0.pipe\"; exit $code";
            let (folder, environment) = (real.state.to_str().unwrap().to_owned(), format!("WORD={word}"));
            let output = real.run_below(&["env", &environment, "sh", "-c", script, &folder], UP);
            // 137 where it was killed in time; a fast machine may have ended it first.
            assert!([Some(137), Some(0)].contains(&output.status.code()), "{output:?}");
            if then == "up" {
                real.expect(0, UP);
                assert_eq!(real.expect(0, "status"), "right\n");
            }
            real.expect(0, "down");
            assert_same(&before, &snapshot(&real.host, &[]));
            assert!(!real.state.exists());
        }
    }
}

#[test]
#[ignore = "needs root: tests/run"]
fn two_at_once_do_not_mix() {
    let real = Box::new();
    fs::create_dir(&real.state).unwrap();
    let lock = fs::File::open(&real.state).unwrap();
    lock.lock().unwrap();
    let before = snapshot(&real.host, &[]);
    assert!(real.expect(75, UP).contains("another smtp-realserver is at work"));
    assert_same(&before, &snapshot(&real.host, &[]));
    drop(lock);
    real.expect(0, UP);
    real.expect(0, "down");
}

#[test]
#[ignore = "needs root: tests/run"]
fn a_vip_that_cannot_be_is_refused_and_nothing_is_done() {
    let real = Box::new();
    real.host.ip("addr add 10.99.0.77/32 dev eth0\nlink add eth1 type veth peer name eth2\naddr add 10.99.0.78/24 dev lo\n");
    let before = snapshot(&real.host, &[]);
    for (code, arguments, words) in [
        (64, "--forward gate --vip 224.0.0.1", "multicast"),
        (64, "--forward gate --vip 127.0.0.1", "loopback"),
        (64, "--forward gate --vip 10.99.0.0/24", "not a network"),
        (64, "--forward gate --vip mail.example.net", "not an address"),
        (64, "--forward gate", "no VIP is given"),
        (64, "--vip 10.99.0.100", "--forward"),
        (64, "--forward nat --vip 10.99.0.100", "gate"),
        (64, "--forward gate --vip 10.99.0.100 --dummy ../x", "letters"),
        (78, "--forward gate --vip 10.99.0.0", "address of the network of eth0"),
        (78, "--forward gate --vip 10.99.0.255", "broadcast address"),
        (78, "--forward gate --vip 10.99.0.11", "this box's own address"),
        (78, "--forward gate --vip 10.99.0.77", "ip address delete 10.99.0.77/32 dev eth0"),
        (78, "--forward gate --vip 10.99.0.78", "with the prefix /24"),
        (78, "--forward gate --vip 10.99.0.100 --dummy eth1", "no dummy interface"),
        (
            78,
            "--forward masq --vip 10.99.0.100 --director 10.99.0.2",
            "ip -4 route replace default via 10.99.0.2",
        ),
        (69, "--forward gate --vip 10.99.0.100 --postfix -c /nonexistent", "nothing is done"),
    ] {
        let said = real.expect(code, &format!("up {arguments}"));
        assert!(said.contains(words), "{arguments}: {said}");
    }
    assert_same(&before, &snapshot(&real.host, &[]));
    assert!(!real.state.exists());

    // What is set up in one way is not set up in another on top of it.
    real.expect(0, "up --forward gate --vip 10.99.0.100");
    let said = real.expect(78, "up --forward masq --vip 10.99.0.100");
    assert!(said.contains("smtp-realserver down --vip 10.99.0.100"), "{said}");
    real.expect(0, "down");
    fs::create_dir(&real.state).unwrap();
    fs::write(real.state.join("record.json"), "{").unwrap();
    let damaged = expected(&on(&real.host, &[], &real.state, UP), 78, UP);
    assert!(damaged.contains("record.json"), "{damaged}");
    fs::remove_dir_all(&real.state).unwrap();
}
