//! Files that are none, or hardly: each ends in a report that a person can read, soon.

use std::fmt::Write as _;
use std::fs;

use super::native::Farm;
use crate::scratch::Folder;

/// What is said of these bytes as a file.
fn report(name: &str, bytes: &[u8]) -> Result<(), String> {
    let folder = Folder::new(&format!("ld-broken-{name}"));
    let path = folder.path().join("broken.cf");
    fs::write(&path, bytes).unwrap();
    let shown = path.display().to_string();
    let imported = smtp_director::config::load::import(&path).map_err(|error| error.to_string());
    let loaded = Farm::load(&path);
    assert_eq!(loaded.is_err(), imported.is_err(), "{name}");
    loaded.map(drop).map_err(|report| report.replace(&shown, "x.cf"))
}

const GOOD: &str = "virtual=192.0.2.1:25\n    real=127.0.0.2:25 gate\n    checktype=on\n";

#[test]
fn what_is_a_file_of_ldirectord_in_spite_of_its_form_is_taken() {
    let blanks = " ".repeat(100_000);
    let comments = format!("{GOOD}{}", "# a remark\n".repeat(90_000));
    for (name, text) in [
        ("no-final-newline", GOOD.trim_end().to_owned()),
        ("mark", format!("\u{feff}{GOOD}")),
        ("crlf", GOOD.replace('\n', "\r\n")),
        ("deep", GOOD.replace("    real", &format!("{blanks}real"))),
        ("deep-tabs", GOOD.replace("    real", &format!("{}real", "\t".repeat(50_000)))),
        ("deep-comment", GOOD.replace("    real", &format!("{blanks}# a remark\n    real"))),
        ("blank", format!("{blanks}\n{GOOD}{blanks}")),
        ("comments", comments),
        ("long-comment", format!("#{}\n{GOOD}", "x".repeat(1_000_000))),
    ] {
        assert_eq!(report(name, text.as_bytes()), Ok(()), "{name}");
    }
}

#[test]
fn what_is_no_file_of_ldirectord_is_said_to_be_none() {
    let zero = GOOD.replace("gate", "ga\0te");
    let binary: Vec<u8> =
        (0..200_000_u32).map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes()[2]).collect();
    for (name, bytes, said) in [
        ("nothing", Vec::new(), "x.cf: error: there is no virtual"),
        ("blanks", b" \t \n\n".to_vec(), "x.cf: error: there is no virtual"),
        ("remarks", b"# nothing\n".to_vec(), "x.cf: error: there is no virtual"),
        ("large", vec![b'#'; 10_000_000], "x.cf: is larger than 1024 KiB; this is no configuration"),
        ("zero", zero.into_bytes(), "x.cf:2:25: error: a zero byte: this is no text"),
        ("binary", binary, "error: a zero byte: this is no text"),
        (
            "page",
            b"<html><body>404</body></html>\n".to_vec(),
            "x.cf:1:1: error: \"<html><body>404</body></html>\" is no directive",
        ),
        ("returns", GOOD.replace('\n', "\r").into_bytes(), "x.cf:1:"),
    ] {
        let report = report(name, &bytes).unwrap_err();
        assert!(report.contains(said), "{name}: {}", &report[..report.len().min(1000)]);
        assert!(report.len() < 2000, "{name}: {}", report.len());
        assert!(!report.chars().any(|c| c.is_control() && c != '\n'), "{name}");
    }
}

#[test]
fn a_hundred_thousand_errors_are_a_report_of_a_hundred() {
    for (name, line) in [
        ("unknown", "chektime=\n"),
        ("valueless", "autoload=\n"),
        ("wrong", "fork=no!!\n"),
        ("indented", " quiesce\n"),
        ("virtual", "virtual=x\n"),
        ("server", "    real=\n"),
    ] {
        let mut text = if line.starts_with("    ") { GOOD.to_owned() } else { String::new() };
        (0..100_000).for_each(|_| text.push_str(line));
        let report = report(name, text.as_bytes()).unwrap_err();
        // The last of its name is the one that counts.
        let few = name == "wrong";
        assert!(few || report.ends_with("more problems\n"), "{name}: {}", &report[report.len() - 200..]);
        assert!(report.matches(": error: ").count() <= 101, "{name}");
        assert!(report.len() < 100_000, "{name}: {}", report.len());
    }
}

#[test]
fn lines_without_an_end_are_shown_in_part() {
    let long = "x".repeat(900_000);
    for (name, text) in [
        ("word", long.clone()),
        ("value", format!("virtual={long}\n    real=127.0.0.2:25 gate\n")),
        ("server", format!("{GOOD}    real={long} gate\n")),
        ("pair", format!("{GOOD}    real=127.0.0.3:25 gate \"{long}\n")),
        ("quotes", format!("{GOOD}    request={}\n", format_args!("\"{long}"))),
        ("words", format!("{GOOD}    real=127.0.0.3:25 gate {}\n", "1 ".repeat(400_000))),
        ("colons", format!("virtual={}\n", ":".repeat(900_000))),
        ("arrows", format!("{GOOD}    real={} gate\n", "->".repeat(400_000))),
        ("list", format!("emailalertstatus={}\n{GOOD}", "a,".repeat(400_000))),
        ("flags", format!("{GOOD}    schedflags={}\n", "a,".repeat(400_000))),
    ] {
        let report = report(name, text.as_bytes()).unwrap_err();
        assert!(report.len() < 20_000, "{name}: {}", report.len());
    }
}

#[test]
fn servers_without_number_are_refused() {
    let mut text = GOOD.to_owned();
    for at in 0..30_000_u32 {
        let _ = writeln!(text, "    real=10.{}.{}.{}:25 gate", at >> 16, at >> 8 & 255, at & 255);
    }
    let report = report("servers", text.as_bytes()).unwrap_err();
    assert!(report.len() < 100_000, "{}", report.len());
}
