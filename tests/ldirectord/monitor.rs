//! The lines of a monitor file, whose columns scripts know.

use std::fs;
use std::path::Path;

use super::native::Farm;
use super::operations::Ours;
use super::original::{Original, Start};
use super::servers::Servers;
use super::{Case, Verdict, file_of, side_by_side};
use crate::scratch::Folder;

/// Virtuals without their `monitorfile`. What is not there: types that the original has no lines for.
const FILES: [&str; 12] = [
    "virtual=192.0.2.1:80\n real=127.0.0.2:@HTTP@ masq\n request=\"/a b\"\n receive=\"^It W.rks\"\n virtualhost=www.example.com",
    "virtual=192.0.2.1:80\n real=127.0.0.2:80 gate 7 \"x:y\", \"no: way\" l:1 u:2\n checkport=@HTTP@\n httpmethod=get\n \
     service=http",
    "virtual=192.0.2.1:25\n real=127.0.0.2:@SMTP@ masq 3\n real=127.0.0.3:2 masq",
    "virtual=192.0.2.1:7777\n real=127.0.0.2:@SMTP@ ipip\n service=submission\n checktype=3",
    "virtual=192.0.2.1:7777\n real=127.0.0.2 gate 0\n checkport=@TCP@\n checktype=connect",
    "virtual=192.0.2.1:7777\n real=127.0.0.1->127.0.0.3:80 gate 4\n checktype=ping",
    "virtual=7\n real=127.0.0.2:@TCP@ masq\n checktype=connect\n request=\"unused\"",
    "virtual=7\n real=127.0.0.2:80 masq\n checktype=external\n checkcommand=@DIR@/odd",
    "virtual6=[2001:db8::1]:80\n real6=[::1]:@HTTP@ masq\n service=http\n receive=\"Works\"",
    "virtual6=8\n real6=[::1]:@ECHO@ gate\n service=simpletcp\n request=\"ab\"\n receive=\"b\"",
    "virtual=192.0.2.1:53\n real=127.0.0.2:53 masq\n checktype=connect\n protocol=udp\n ops=yes",
    "virtual=192.0.2.1:7777\n real=localhost:smtp masq\n checktype=connect\n login=\"a\"\n checkport=2",
];

/// The first line of each server, but for its time, its process and its last column.
fn lines(path: &Path) -> Vec<String> {
    let said = fs::read_to_string(path).unwrap_or_default();
    let mut lines = Vec::new();
    for line in said.lines() {
        // [Tue Nov 24 21:00:00 2026] [123] the server [up] why
        let mut parts = line.splitn(3, "] ");
        let (time, process, rest) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
        assert_eq!(time.split_whitespace().count(), 5, "{line}");
        assert!(time.starts_with('[') && process[1..].parse::<u32>().is_ok(), "{line}");
        let (end, _) =
            ["[up] ", "[down] "].iter().find_map(|word| Some((rest.find(word)? + word.len(), word))).unwrap();
        let known = rest[..end].to_owned();
        if !lines.contains(&known) {
            lines.push(known);
        }
    }
    lines.sort_unstable();
    lines
}

fn told(at: usize, text: &str, servers: &Servers) -> [Vec<String>; 2] {
    let folder = Folder::new(&format!("ld-monitor-{at}"));
    let file = folder.path().join("monitor");
    let text =
        format!("checkinterval=1\n{}\n    monitorfile=\"@DIR@/monitor\"\n", text.replace("\n ", "\n    "));
    let case = Case { name: "monitored".to_owned(), bytes: text.into_bytes(), verdict: Verdict::Accepted };
    let path = file_of(&case, &folder, servers);
    let Start::Runs(running) = Original::new(folder.path()).start(&path) else { panic!("{at}") };
    drop(running);
    let theirs = lines(&file);
    fs::remove_file(&file).unwrap();
    let farm = Farm::load(&path).unwrap_or_else(|report| panic!("{report}"));
    let ours = Ours::start(farm.config);
    crate::ldcommand::until("as many lines", || (lines(&file).len() >= theirs.len()).then_some(()));
    ours.stop();
    [theirs, lines(&file)]
}

#[test]
#[ignore = "the original, from the package ldirectord: tests/run"]
fn a_monitor_file_calls_servers_as_the_original_does() {
    let servers = Servers::start();
    let files: Vec<(usize, &str)> = FILES.into_iter().enumerate().collect();
    let results = side_by_side(4, &files, |(at, text)| told(*at, text, &servers));
    for (text, [theirs, ours]) in FILES.iter().zip(results) {
        assert!(!theirs.is_empty(), "{text}");
        assert_eq!(ours, theirs, "{text}");
    }
}
