//! What a daemon is given that is wrong: names that are none, files that change under it, a second one of its kind.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;

use rustix::process::Signal;

use super::servers::{answering, well};
use super::{Place, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_maintenance_directory_full_of_nonsense_takes_nobody_out_and_still_works() {
    let (sink, place) = (well(), Place::new("ld-nonsense"));
    let directory = place.path("maintenance");
    fs::create_dir(&directory).unwrap();
    let long = "x".repeat(255);
    let labels = ["a.".repeat(90), "b".repeat(63)].concat();
    let names: [&[u8]; 14] = [
        long.as_bytes(),
        labels.as_bytes(),
        b"127.0.0.1\n",
        b"a\nforged line",
        b"\x1b[31mred",
        b"\xff\xfe\x80",
        b"127.0.0.1:",
        b"127.0.0.1:99999",
        b":25",
        b"[127.0.0.1",
        b"*",
        b".hidden",
        b"name.invalid",
        b"name.invalid:25",
    ];
    for name in names {
        fs::write(directory.join(OsStr::from_bytes(name)), "").unwrap();
    }
    fs::create_dir(directory.join("127.0.0.99")).unwrap();
    symlink("/nonexistent", directory.join("127.0.0.98")).unwrap();
    for number in 0..3000 {
        fs::write(directory.join(format!("scrap {number}")), "").unwrap();
    }
    let server = sink.address();
    place.write_cf(&format!(
        "checkinterval=1\nquiescent=yes\nmaintenancedir={}\nvirtual={}\n    service=smtp\n    real={server} masq\n",
        directory.display(),
        place.vip
    ));
    assert_eq!(place.code("start"), Some(0));
    place.until_said("Added real server", 1);
    // It has been read: nobody has that name.
    place.until_said("name.invalid in the maintenance directory has no address", 1);
    assert!(!place.read("log").contains("Quiescent"), "{}", place.read("log"));
    // A good name among all that.
    fs::write(directory.join(server.to_string()), "").unwrap();
    place.until_said("Quiescent real server", 1);
    fs::remove_file(directory.join(server.to_string())).unwrap();
    place.until_said("Restored real server", 1);
    let log = place.read("log");
    assert!(log.lines().all(|line| line.starts_with('[')) && !log.contains("forged"), "{log}");
    assert_eq!(place.code("stop"), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_nobody_knows_refuse_a_reload_and_stop_no_check() {
    let (counts, place) = (std::sync::Arc::default(), Place::new("ld-names"));
    let server = answering(&counts);
    let text = format!("checkinterval=1\nvirtual={}\n    service=smtp\n    real={server} masq\n", place.vip);
    place.write_cf(&text);
    assert_eq!(place.code("start"), Some(0));
    place.until_said("Added real server", 1);
    place.write_cf(&format!("{text}    real=name.invalid:25 masq\n"));
    let output = place.ldirectord("reload");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("name.invalid"), "{output:?}");
    // And the daemon, when it is told to all the same.
    place.signal(Signal::HUP);
    place.until_said("reload refused", 1);
    assert!(place.read("log").contains("name.invalid"), "{}", place.read("log"));
    let before = counts.begun();
    until("it is asked again and again", || (counts.begun() > before + 3).then_some(()));
    assert_eq!(place.code("status"), Some(0));
    assert_eq!(place.code("stop"), Some(0));
    assert_eq!(place.code("start"), Some(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_written_over_with_anything_costs_the_daemon_nothing() {
    let (counts, place) = (std::sync::Arc::default(), Place::new("ld-over"));
    let server = answering(&counts);
    let text = format!(
        "autoreload=yes\ncheckinterval=1\nvirtual={}\n    service=smtp\n    real={server} masq\n",
        place.vip
    );
    place.write_cf(&text);
    let file = place.path("mail.cf");
    assert_eq!(place.code("start"), Some(0));
    place.until_said("Added real server", 1);
    let everything = [
        Vec::new(),
        vec![0; 4096],
        (0..=255).cycle().take(100_000).collect(),
        vec![b'#'; 10 << 20],
        b"virtual=\xff\xfe\n    real=\n".to_vec(),
    ];
    for (number, bytes) in everything.into_iter().enumerate() {
        fs::write(&file, bytes).unwrap();
        place.until_said("reload refused", number + 1);
    }
    // Not a file at all any more: a directory, a pipe that nobody writes to, one that never ends.
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    place.signal(Signal::HUP);
    place.until_said("reload refused", 6);
    fs::remove_dir(&file).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &file, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    place.signal(Signal::HUP);
    place.until_said("reload refused", 7);
    for (number, endless) in ["/dev/zero", "/dev/tty"].into_iter().enumerate() {
        fs::remove_file(&file).unwrap();
        symlink(endless, &file).unwrap();
        place.signal(Signal::HUP);
        place.until_said("reload refused", 8 + number);
    }
    fs::remove_file(&file).unwrap();
    let before = counts.begun();
    until("it is asked again and again", || (counts.begun() > before + 3).then_some(()));
    place.write_cf(&text.replace("masq", "masq 9"));
    place.until_said("(Weight set to 9)", 1);
    assert!(!place.read("log").contains("table: delete"), "{}", place.read("log"));
}
