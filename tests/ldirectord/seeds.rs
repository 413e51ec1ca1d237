//! Random files, given to both.
//!
//! A few originals run side by side, each in a folder of its own.

use std::fs;

use super::generated;
use super::native::Farm;
use super::original::{Original, Start};
use super::servers::Servers;
use crate::scratch::Folder;

/// How many files are tried, unless `LDIRECTORD_SEEDS` says `first..end`.
const SEEDS: u64 = 1000;

fn seeds() -> Vec<u64> {
    let said = std::env::var("LDIRECTORD_SEEDS").unwrap_or_default();
    let range = said.split_once("..").and_then(|(first, end)| Some((first.parse().ok()?, end.parse().ok()?)));
    let (first, end) = range.unwrap_or((0, SEEDS));
    (first..end).collect()
}

/// What is wrong with a file, if anything.
fn try_one(seed: u64, servers: &Servers) -> Result<(), String> {
    let folder = Folder::new(&format!("ld-seed-{seed}"));
    let path = folder.path().join("random.cf");
    let generated::Generated { text, valid } = generated::file(seed, folder.path(), servers);
    fs::write(&path, &text).unwrap();
    super::scripts(folder.path());
    let maintenance = folder.path().join("maintenance");
    fs::create_dir(&maintenance).unwrap();
    for name in ["127.0.0.2", "127.0.1.3", "127.0.2.2:6000"] {
        fs::write(maintenance.join(name), "").unwrap();
    }
    let wrong = |what: &str| Err(format!("seed {seed}: {what}\n{text}"));
    let (running, ours) = match (Original::new(folder.path()).start(&path), Farm::load(&path)) {
        (Start::Refused, Err(_)) if !valid => return Ok(()),
        (Start::Runs(running), Ok(ours)) if valid => (running, ours),
        (Start::Ended, _) => return wrong("the original has ended"),
        (theirs, ours) => {
            let theirs = matches!(theirs, Start::Runs(_));
            let said = fs::read_to_string(folder.path().join("said")).unwrap_or_default();
            let said = said.lines().filter(|line| line.contains("rror")).collect::<Vec<_>>().join("\n");
            return wrong(&format!("valid: {valid}, taken there: {theirs} {said}, here: {:?}", ours.err()));
        }
    };
    let (theirs, ours) = (running.table(), ours.table_of_the_original());
    drop(running);
    if theirs == ours { Ok(()) } else { wrong(&format!("\n{theirs}--- ours\n{ours}---")) }
}

#[test]
#[ignore = "the original, from the package ldirectord: tests/run"]
fn a_thousand_random_files_come_to_the_same_table() {
    let servers = Servers::start();
    let results = super::side_by_side(4, &seeds(), |seed| try_one(*seed, &servers));
    let wrong: Vec<String> = results.into_iter().filter_map(Result::err).collect();
    assert!(
        wrong.is_empty(),
        "{} are wrong:\n{}",
        wrong.len(),
        wrong.into_iter().take(5).collect::<String>()
    );
}
