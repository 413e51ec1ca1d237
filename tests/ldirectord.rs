//! `ldirectord.cf` beside the original: the same files, the same answers, the same tables.
//!
//! The first line of each file in `ldirectord/cases` says what comes of it. What the two do not do alike has a name there, a
//! row in the documentation, and a test here that fails when the difference is gone.

mod arguments;
mod broken;
mod commands;
mod generated;
mod monitor;
mod native;
mod operations;
mod original;
mod seeds;
mod servers;
mod transitions;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use self::native::Farm;
use self::operations::Ours;
pub(crate) use self::original::recorder;
use self::original::{Original, Running, Start};
use self::servers::Servers;
use crate::scratch::Folder;
use smtp_director::config::Config;

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
    cases_in("cases")
}

fn cases_in(name: &str) -> Vec<Case> {
    let entries = fs::read_dir(folder().join(name)).unwrap();
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
        None if matches!(said, "accepted" | "same") => Verdict::Accepted,
        None if said == "refused" => Verdict::Refused,
        Some(("only here", why)) => Verdict::OnlyHere(why.to_owned()),
        Some(("only there", why)) => Verdict::OnlyThere(why.to_owned()),
        Some(("another table" | "differs", why)) => Verdict::AnotherTable(why.to_owned()),
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
        ("@ECHO@", servers.echo.to_string()),
    ] {
        bytes = replace(&bytes, mark.as_bytes(), value.as_bytes());
    }
    let path = folder.path().join(format!("{}.cf", case.name));
    fs::write(&path, bytes).unwrap();
    scripts(folder.path());
    path
}

/// Checks by commands that files ask for.
fn scripts(folder: &Path) {
    executable(&folder.join("port"), "#!/bin/sh\n[ \"$4\" != 0 ]\n");
    fs::write(folder.join("check.pl"), "exit($ARGV[2] eq '127.0.0.3' ? 0 : 1);\n").unwrap();
    // Well are those whose address ends in an odd number.
    executable(&folder.join("odd"), "#!/bin/sh\ncase $3 in *[13579] | *[13579]]) exit 0 ;; esac\nexit 1\n");
}

fn executable(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
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
    scripts(folder.path());
    let servers = Servers::ports_only();
    let mut refused = 0;
    for seed in 0..1000 {
        let path = folder.path().join("random.cf");
        let generated::Generated { text, valid } = generated::file(seed, folder.path(), &servers);
        fs::write(&path, &text).unwrap();
        let farm = match Farm::load(&path) {
            Ok(farm) => farm,
            Err(report) if valid => panic!("{seed}: {report}\n{text}"),
            Err(_) => {
                refused += 1;
                continue;
            }
        };
        assert!(valid, "{seed} is taken\n{text}");
        let native = folder.path().join("imported.toml");
        fs::write(&native, smtp_director::config::load::import(&path).unwrap()).unwrap();
        let imported = Farm::load(&native).unwrap_or_else(|report| panic!("{seed}: {report}"));
        assert_eq!(imported.config, farm.config, "{seed}\n{text}");
    }
    assert!((20..200).contains(&refused), "{refused}");
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

/// What is wrong with a case, if anything, and whether the two tables were compared.
fn compare(case: &Case, servers: &Servers) -> Result<bool, String> {
    let folder = Folder::new(&format!("ld-{}", case.name));
    let path = file_of(case, &folder, servers);
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
        let (name, verdict) = (&case.name, &case.verdict);
        return Err(format!("{name}: {verdict:?}: the original {accepts}, we {}", ours.is_ok()));
    }
    let Some(ours) = ours.ok().filter(|_| accepts) else { return Ok(false) };
    let Start::Runs(mut running) = original.start(&path) else { return Ok(false) };
    let (theirs, table) = (running.table(), native::show(&ours.table()));
    if (theirs == table) == matches!(case.verdict, Verdict::AnotherTable(_)) {
        return Err(format!("{}: {:?}:\n{theirs}--- ours\n{table}", case.name, case.verdict));
    }
    if case.verdict == Verdict::Accepted {
        let changes = start_and_stop(ours.config, &mut running);
        return changes.map(|()| true).map_err(|wrong| format!("{}: {wrong}", case.name));
    }
    Ok(true)
}

/// What is wrong with our start and our end beside the original's, which has started.
fn start_and_stop(config: Config, running: &mut Running) -> Result<(), String> {
    let (table, started) = (running.table(), running.log());
    let ours = Ours::start(config);
    ours.reaches(&table).map_err(|ours| format!("\n{table}--- ours\n{ours}"))?;
    let start = ours.log();
    running.stop();
    let (end, left) = ours.stop();
    let theirs = running.log();
    let since = |log: &str, before: &str| log.strip_prefix(before).unwrap_or("").to_owned();
    let (end, their_end) = (since(&end, &start), since(&theirs, &started));
    let mut wrong = operations::compare("", &started, &start);
    wrong.extend(operations::compare(&table, &their_end, &end));
    match wrong.as_slice() {
        [] if left == running.table() => Ok(()),
        _ => Err(format!("{wrong:#?}\n{theirs}--- ours\n{start}---\n{end}")),
    }
}

#[test]
#[ignore = "the original, from the package ldirectord: tests/run"]
fn the_original_comes_to_the_same_table_or_differs_as_is_known() {
    let servers = Servers::start();
    let cases = cases();
    let results = side_by_side(4, &cases, |case| compare(case, &servers));
    let wrong: Vec<&String> = results.iter().filter_map(|result| result.as_ref().err()).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    let both = |case: &&Case| matches!(case.verdict, Verdict::Accepted | Verdict::AnotherTable(_));
    let pairs = cases.iter().zip(&results).filter(|(case, _)| both(case));
    let (compared, not): (Vec<_>, Vec<_>) = pairs.partition(|(_, result)| **result == Ok(true));
    let not: Vec<&str> = not.iter().map(|(case, _)| case.name.as_str()).collect();
    println!("{} files, {} tables compared, not compared: {not:?}", cases.len(), compared.len());
    // Of these, the Perl module is in no package of Debian's.
    assert_eq!(not, ["service_oracle_down"]);
}

/// Does the same with many, a few at a time: what takes time are calls of programs, and waiting.
fn side_by_side<T: Sync, R: Send>(workers: usize, of: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some((at, one)) =
                    Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|at| Some((at, of.get(at)?)))
                {
                    let result = work(one);
                    results.lock().unwrap().push((at, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap();
    results.sort_by_key(|(at, _)| *at);
    results.into_iter().map(|(_, result)| result).collect()
}
