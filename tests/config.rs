//! Configuration files on disk: what is read, what is refused, and that nothing is waited for.

use std::ffi::OsString;
use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use crate::scratch::Folder;
use smtp_director::config::load::{DEFAULT_PATH, LoadError, MAX_SIZE, load};
use smtp_director::config::{Config, DataplaneChoice, LogLevel};

const SMALL: &str = "[[virtual]]\naddress = \"192.0.2.25:25\"\n[[virtual.real]]\naddress = \"10.0.0.11\"\n";

fn read(path: &Path) -> Result<Config, LoadError> {
    load(path, [])
}

#[test]
fn every_shipped_example_loads() {
    let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/dist");
    let examples: Vec<_> = fs::read_dir(dist)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    assert!(!examples.is_empty());
    for path in examples {
        read(&path).unwrap_or_else(|error| panic!("{error}"));
    }
    assert!(DEFAULT_PATH.ends_with("/smtp-director.toml"));
}

#[test]
fn the_name_of_the_host_is_what_checks_say() {
    let folder = Folder::new("host");
    let config = read(&folder.file(SMALL)).unwrap();
    let spec = &config.virtuals[0].reals[0].checks[0].spec;
    let checks::Kind::Smtp(smtp) = &spec.kind else { panic!("{spec:?}") };
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert!([host.trim(), "localhost"].contains(&smtp.ehlo_name.as_str()));
}

#[test]
fn a_byte_order_mark_and_dos_line_ends_are_read() {
    let folder = Folder::new("bom");
    let dos = format!("\u{feff}{SMALL}").replace('\n', "\r\n");
    assert_eq!(read(&folder.file(&dos)).unwrap(), read(&folder.file(SMALL)).unwrap());
    let report = read(&folder.file(format!("\u{feff}lgo = 1\r\n{SMALL}"))).unwrap_err().to_string();
    assert!(report.contains("smtp-director.toml:1:1: error: lgo: unknown key in the top level; did you mean \"log\"?\n  lgo = 1\n  ^^^\n"), "{report}");
}

#[test]
fn the_report_names_the_file_and_every_problem() {
    let folder = Folder::new("report");
    let path = folder.file(format!("log = \"loud\"\n{SMALL}weight = 70000\n"));
    let name = path.display().to_string();
    let error = read(&path).unwrap_err();
    assert!(matches!(error, LoadError::Invalid { problems: 2, .. }));
    let want = format!(
        "{name}:1:7: error: log: \"loud\" is unknown; \"error\", \"warn\", \"info\", \"debug\" or \"trace\"\n  \
         log = \"loud\"\n        ^^^^^^\n\
         {name}:6:10: error: weight: 70000 is out of range; a whole number from 0 to 65535\n  \
         weight = 70000\n           ^^^^^\n"
    );
    assert_eq!(error.to_string(), want);
}

#[test]
fn variables_lie_over_the_file() {
    let folder = Folder::new("environment");
    let path = folder.file(format!("dataplane = \"ipvs\"\n{SMALL}"));
    let set = |name: &str, value: &str| (OsString::from(name), OsString::from(value));
    let config = load(
        &path,
        [set("SMTP_DIRECTOR__DATAPLANE", "proxy"), set("SMTP_DIRECTOR__LOG", "warn"), set("HOME", "/root")],
    )
    .unwrap();
    assert_eq!((config.dataplane, config.log), (DataplaneChoice::Proxy, LogLevel::Warn));
    let error = load(&path, [set("SMTP_DIRECTOR__LGO", "warn")]).unwrap_err();
    assert!(error.to_string().starts_with("SMTP_DIRECTOR__LGO: error: unknown variable; "), "{error}");
    // Bytes that are no text are no value.
    let bytes = std::os::unix::ffi::OsStringExt::from_vec(b"in\xfffo".to_vec());
    let error = load(&path, [("SMTP_DIRECTOR__LOG".into(), bytes)]).unwrap_err();
    assert!(
        error.to_string().starts_with("SMTP_DIRECTOR__LOG: error: log: \"in\u{fffd}fo\" is unknown"),
        "{error}"
    );
}

#[test]
fn what_is_no_file_is_said_to_be_none() {
    let folder = Folder::new("kinds");
    let fifo = folder.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let socket = folder.path().join("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    let link = folder.path().join("link");
    std::os::unix::fs::symlink("/dev/zero", &link).unwrap();
    for (path, want) in [
        (
            folder.path().join("missing.toml"),
            "cannot read the configuration: No such file or directory (os error 2)",
        ),
        (folder.path().to_owned(), "is a directory; the configuration is a regular file"),
        (fifo, "is a pipe; the configuration is a regular file"),
        (socket, "is a socket; the configuration is a regular file"),
        (link, "is a device; the configuration is a regular file"),
    ] {
        assert_eq!(read(&path).unwrap_err().to_string(), format!("{}: {want}", path.display()));
    }
}

#[test]
fn what_is_no_configuration_is_not_parsed() {
    let folder = Folder::new("bytes");
    let error = read(&folder.file(b"log = \"info\"\n# caf\xe9\n")).unwrap_err().to_string();
    assert!(error.ends_with(":2: error: not UTF-8 at byte 18 of the file; save it as UTF-8"), "{error}");
    let path = folder.file(SMALL);
    // Sparse: 10 MB that need no disk.
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(10_000_000).unwrap();
    let error = read(&path).unwrap_err().to_string();
    assert!(error.ends_with(": is larger than 1024 KiB; this is no configuration"), "{error}");
    let padding = usize::try_from(MAX_SIZE).unwrap() - SMALL.len() - 1;
    read(&folder.file(format!("{SMALL}#{}", "x".repeat(padding)))).unwrap();
    assert!(matches!(
        read(&folder.file(format!("{SMALL}#{}", "x".repeat(padding + 1)))),
        Err(LoadError::TooLarge { .. })
    ));
    let error = read(&folder.file("")).unwrap_err().to_string();
    assert!(
        error.contains(": error: there is no virtual; the smallest file is:\n  [[virtual]]\n"),
        "{error}"
    );
}
