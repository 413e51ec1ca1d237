//! Servers that fail and come back: the same changes at the same points, from the start to the end.
//!
//! Each file in `transitions` has two servers that an external check, or somebody who works on them, takes away and gives back.

use std::fs;
use std::path::Path;

use super::native::Farm;
use super::operations::{self, Ours};
use super::original::{Original, Running, Start};
use super::servers::Servers;
use super::{Case, Verdict, side_by_side};
use crate::scratch::Folder;

/// Who goes, and who comes back, between two moments of rest.
const STRETCHES: [(&str, bool, &[&str]); 4] = [
    ("one goes", true, &["127.0.0.2", "[2001:db8::2]"]),
    ("all go", true, &["127.0.0.1", "127.0.0.3", "127.0.0.4", "[2001:db8::3]"]),
    ("one comes back", false, &["127.0.0.2", "[2001:db8::2]"]),
    ("all come back", false, &["127.0.0.1", "127.0.0.3", "127.0.0.4", "[2001:db8::3]"]),
];
/// More rounds than failures are needed.
const ROUNDS: usize = 3;

fn write(case: &Case, folder: &Folder) -> std::path::PathBuf {
    let mut all = case.bytes.clone();
    all.splice(0..0, *b"checkinterval=1\n");
    let case = Case { name: case.name.clone(), bytes: all, verdict: case.verdict.clone() };
    let down = folder.path().join("down");
    fs::create_dir(&down).unwrap();
    super::executable(&folder.path().join("well"), &format!("#!/bin/sh\n[ ! -e {}/$3 ]\n", down.display()));
    super::file_of(&case, folder, &Servers::ports_only())
}

/// Both, and how far they have been compared.
struct Pair {
    ours: Ours,
    theirs: Running,
    table: String,
    seen: (usize, usize),
}

impl Pair {
    /// What is wrong with what was done since the last moment of rest.
    fn rest(&mut self, what: &str) -> Result<(), String> {
        let table = self.theirs.table();
        self.ours.reaches(&table).map_err(|ours| format!("{what}:\n{table}--- ours\n{ours}"))?;
        let (theirs, ours) = (self.theirs.log(), self.ours.log());
        self.judge(what, &theirs, &ours)?;
        self.table = table;
        Ok(())
    }

    fn judge(&mut self, what: &str, theirs: &str, ours: &str) -> Result<(), String> {
        let (before, here) = (&theirs[self.seen.0..], &ours[self.seen.1..]);
        self.seen = (theirs.len(), ours.len());
        match operations::compare(&self.table, before, here).as_slice() {
            [] => Ok(()),
            wrong => Err(format!("{what}: {wrong:#?}\n{before}--- ours\n{here}")),
        }
    }
}

/// How many changes of ours were compared, or what is wrong.
fn go_through(case: &Case) -> Result<usize, String> {
    let folder = Folder::new(&format!("ld-transition-{}", case.name));
    let path = write(case, &folder);
    let config = Farm::load(&path)?.config;
    let Start::Runs(theirs) = Original::new(folder.path()).start(&path) else {
        return Err("the original does not run".to_owned());
    };
    let mut pair = Pair { ours: Ours::start(config), theirs, table: String::new(), seen: (0, 0) };
    pair.rest("start")?;
    for (what, goes, names) in STRETCHES {
        for name in names {
            let file = folder.path().join("down").join(name);
            if goes { fs::write(file, "").unwrap() } else { fs::remove_file(file).unwrap() }
        }
        pair.theirs.ask(ROUNDS);
        pair.rest(what)?;
    }
    pair.theirs.stop();
    let (table, theirs) = (pair.theirs.table(), pair.theirs.log());
    let Pair { ours, seen, table: before, .. } = pair;
    let (ours, left) = ours.stop();
    let wrong = operations::compare(&before, &theirs[seen.0..], &ours[seen.1..]);
    if !wrong.is_empty() || left != table {
        return Err(format!("end: {wrong:#?}\n{table}--- ours\n{left}"));
    }
    Ok(ours.lines().count())
}

fn second_line(case: &Case) -> &str {
    let text = std::str::from_utf8(&case.bytes).unwrap();
    text.lines().nth(1).and_then(|line| line.strip_prefix("# ")).unwrap_or("?")
}

#[test]
#[ignore = "the original, from the package ldirectord: tests/run"]
fn servers_that_fail_and_come_back_are_the_same_changes() {
    let cases = super::cases_in("transitions");
    let results = side_by_side(8, &cases, go_through);
    let mut wrong = Vec::new();
    let mut changes = 0;
    for (case, result) in cases.iter().zip(results) {
        match (&case.verdict, result) {
            (Verdict::Accepted, Ok(count)) => changes += count,
            // When it shows stands in the second line.
            (Verdict::AnotherTable(_), Err(what)) if what.starts_with(second_line(case)) => {}
            (verdict, result) => wrong.push(format!("{}: {verdict:?}: {result:?}", case.name)),
        }
    }
    println!("{} files, {changes} changes", cases.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n").replace("\\n", "\n").replace("\\t", "\t"));
}

/// A folder of such files has each difference that it names in the documentation.
#[test]
fn what_differs_on_the_way_is_documented() {
    let page =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config/ldirectord/README.md"))
            .unwrap();
    for case in super::cases_in("transitions") {
        if let Some(name) = case.verdict.difference() {
            assert!(page.contains(&format!("| **{name}** |")), "{name}");
        }
    }
}
