//! `ldirectord.cf` beside the original: the same files, the same answers, the same tables.
//!
//! The first line of each file in `ldirectord/cases` says what comes of it. What the two do not do alike has a name there, a
//! row in the documentation, and a test here that fails when the difference is gone.

mod generated;
mod native;
mod original;
mod servers;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use self::native::Farm;
use self::original::Original;
use self::servers::Servers;
use crate::scratch::Folder;

/// What the first line of a case says.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// Both take it, and come to the same table.
    Accepted,
    /// Both refuse it.
    Refused,
    /// Only we take it.
    OnlyHere(String),
    /// Only the original takes it.
    OnlyThere(String),
    /// Both take it, and come to different tables.
    AnotherTable(String),
}

impl Verdict {
    fn difference(&self) -> Option<&str> {
        match self {
            Self::Accepted | Self::Refused => None,
            Self::OnlyHere(name) | Self::OnlyThere(name) | Self::AnotherTable(name) => Some(name),
        }
    }
}

struct Case {
    name: String,
    bytes: Vec<u8>,
    verdict: Verdict,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ldirectord")
}

fn cases() -> Vec<Case> {
    let entries = fs::read_dir(folder().join("cases")).unwrap();
    let mut cases: Vec<Case> = entries.map(|entry| case(&entry.unwrap().path())).collect();
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    cases
}

fn case(path: &Path) -> Case {
    let name = path.file_stem().unwrap().to_string_lossy().into_owned();
    let bytes = fs::read(path).unwrap();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let first = text.lines().next().unwrap_or("");
    let said = first.split_once("#= ").unwrap_or_else(|| panic!("{name}: {first}")).1.trim();
    let verdict = match said.split_once(": ") {
        None if said == "accepted" => Verdict::Accepted,
        None if said == "refused" => Verdict::Refused,
        Some(("only here", why)) => Verdict::OnlyHere(why.to_owned()),
        Some(("only there", why)) => Verdict::OnlyThere(why.to_owned()),
        Some(("another table", why)) => Verdict::AnotherTable(why.to_owned()),
        _ => panic!("{name}: {said}"),
    };
    Case { name, bytes, verdict }
}

/// A case as a file, with what is known only now put in.
fn file_of(case: &Case, folder: &Folder, servers: &Servers) -> PathBuf {
    let mut bytes = case.bytes.clone();
    for (mark, value) in [
        ("@DIR@", folder.path().display().to_string()),
        ("@HTTP@", servers.http.to_string()),
        ("@SMTP@", servers.smtp.to_string()),
        ("@TCP@", servers.tcp.to_string()),
    ] {
        bytes = replace(&bytes, mark.as_bytes(), value.as_bytes());
    }
    let path = folder.path().join(format!("{}.cf", case.name));
    fs::write(&path, bytes).unwrap();
    fs::write(folder.path().join("check.pl"), "exit($ARGV[2] eq '127.0.0.3' ? 0 : 1);\n").unwrap();
    path
}

fn replace(bytes: &[u8], mark: &[u8], value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = bytes;
    while let Some(at) = rest.windows(mark.len()).position(|window| window == mark) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(value);
        rest = &rest[at + mark.len()..];
    }
    out.extend_from_slice(rest);
    out
}

#[test]
fn each_case_is_taken_or_refused_as_its_first_line_says() {
    let folder = Folder::new("ld-cases");
    let servers = Servers::ports_only();
    let mut wrong = Vec::new();
    for case in cases() {
        let loaded = Farm::load(&file_of(&case, &folder, &servers));
        let taken = !matches!(case.verdict, Verdict::Refused | Verdict::OnlyThere(_));
        match loaded {
            Ok(_) if taken => {}
            Err(report) if !taken => {
                // A line, a column, a caret.
                assert!(report.contains("\n  ") && report.contains('^'), "{}: {report}", case.name);
                assert!(report.lines().next().unwrap().matches(':').count() >= 3, "{report}");
            }
            Ok(_) => wrong.push(format!("{} is taken", case.name)),
            Err(report) => wrong.push(format!("{} is refused: {report}", case.name)),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_import_writes_means_the_same() {
    let folder = Folder::new("ld-import");
    let servers = Servers::ports_only();
    for case in cases() {
        let path = file_of(&case, &folder, &servers);
        let Ok(farm) = Farm::load(&path) else { continue };
        let text = smtp_director::config::load::import(&path).unwrap();
        let native = folder.path().join("imported.toml");
        fs::write(&native, &text).unwrap();
        let imported = Farm::load(&native).unwrap_or_else(|report| panic!("{}: {report}\n{text}", case.name));
        assert_eq!(imported.config, farm.config, "{}\n{text}", case.name);
        // No comment is lost.
        let original = case.bytes.iter().map(|byte| char::from(*byte)).collect::<String>();
        let written = text.lines().filter(|line| line.starts_with('#') && !line.starts_with("#:")).count();
        let comments = original.lines().filter(|line| line.trim_start().starts_with('#')).count();
        assert!(
            written >= comments + 2 || !original.is_ascii(),
            "{}: {written} of {comments}\n{text}",
            case.name
        );
    }
}

#[test]
fn one_success_is_enough_every_time() {
    let folder = Folder::new("ld-rise");
    let servers = Servers::ports_only();
    let mut checks = 0;
    for case in cases() {
        let Ok(farm) = Farm::load(&file_of(&case, &folder, &servers)) else { continue };
        for plan in farm.config.virtuals.iter().flat_map(|v| &v.reals).flat_map(|real| &real.checks) {
            assert_eq!((plan.rise, plan.damping), (1, false), "{}", case.name);
            checks += 1;
        }
    }
    assert!(checks > 40, "{checks}");
}

#[test]
fn a_thousand_random_files_mean_the_same_when_they_are_imported() {
    let folder = Folder::new("ld-random");
    for seed in 0..1000 {
        let path = folder.path().join("random.cf");
        let text = generated::file(seed);
        fs::write(&path, &text).unwrap();
        let farm = Farm::load(&path).unwrap_or_else(|report| panic!("{seed}: {report}\n{text}"));
        let native = folder.path().join("imported.toml");
        fs::write(&native, smtp_director::config::load::import(&path).unwrap()).unwrap();
        let imported = Farm::load(&native).unwrap_or_else(|report| panic!("{seed}: {report}"));
        assert_eq!(imported.config, farm.config, "{seed}\n{text}");
    }
}

#[test]
fn every_difference_is_documented_and_every_one_that_is_documented_has_a_case() {
    let page =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config/ldirectord/README.md"))
            .unwrap();
    let section = page.split("## Differences").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows =
        section.lines().filter_map(|line| line.strip_prefix("| **")?.split_once("**")).map(|(name, _)| name);
    let documented: BTreeSet<String> = rows.map(str::to_owned).collect();
    let tried: BTreeSet<String> =
        cases().iter().filter_map(|case| case.verdict.difference().map(str::to_owned)).collect();
    assert_eq!(documented, tried);
    assert!(page.contains(&smtp_director::config::ldirectord::directive::table()), "print it anew");
}

#[test]
#[ignore = "the original, from the package ldirectord: tests/run"]
fn the_original_comes_to_the_same_table_or_differs_as_is_known() {
    let servers = Servers::start();
    let mut wrong = Vec::new();
    let mut tables = 0;
    let mut ended = BTreeSet::new();
    for case in cases() {
        let folder = Folder::new(&format!("ld-{}", case.name));
        let path = file_of(&case, &folder, &servers);
        let original = Original::new(folder.path());
        let accepts = original.accepts(&path);
        let ours = Farm::load(&path);
        let (there, here) = match case.verdict {
            Verdict::Accepted | Verdict::AnotherTable(_) => (true, true),
            Verdict::Refused => (false, false),
            Verdict::OnlyHere(_) => (false, true),
            Verdict::OnlyThere(_) => (true, false),
        };
        if (accepts, ours.is_ok()) != (there, here) {
            wrong.push(format!(
                "{}: {:?}: the original {accepts}, we {}",
                case.name,
                case.verdict,
                ours.is_ok()
            ));
            continue;
        }
        let Ok(ours) = ours.as_ref().map_err(|_| ()) else { continue };
        if !accepts {
            continue;
        }
        let Some(theirs) = original.table(&path) else {
            ended.insert(case.name);
            continue;
        };
        let ours = ours.table();
        tables += 1;
        let same = theirs == ours;
        if same == matches!(case.verdict, Verdict::AnotherTable(_)) {
            wrong.push(format!("{}: {:?}:\n{theirs}--- ours\n{ours}", case.name, case.verdict));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(tables > 60, "{tables}");
    // What needs a Perl module that Debian only suggests.
    assert!(ended.iter().all(|name| name.starts_with("service_")), "{ended:?}");
}
