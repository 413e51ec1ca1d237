//! What a command is told by both: the arguments of an external check, one by one.

use std::fs;

use super::native::Farm;
use super::original::{Original, Start};
use super::servers::Servers;
use super::{Case, Verdict, executable, file_of, side_by_side};
use crate::scratch::Folder;

/// A virtual, and its servers.
const FILES: [&str; 10] = [
    "virtual=192.0.2.1:80\n real=127.0.0.2:80 gate\n real=127.0.0.3:80 masq 7",
    "virtual=192.0.2.1:80\n real=127.0.0.2:8080 gate\n real=127.0.0.3:8081 masq\n real=127.0.0.4:8082 ipip",
    "virtual=localhost:smtp\n real=localhost:submission masq",
    "virtual=192.0.2.1:53\n real=127.0.0.2:domain masq\n protocol=udp",
    "virtual6=[2001:db8::1]:80\n real6=[::1]:80 gate\n real6=[2001:db8:0:0::2]:8080 masq",
    "virtual6=[2001:db8::9]:smtp\n real6=[::1]:smtp gate",
    "virtual=7\n real=127.0.0.2:80 gate\n real=127.0.0.3:81 masq",
    "virtual=7\n real=127.0.0.2 gate\n real=127.0.0.3:0 masq",
    "virtual6=8\n real6=[::1]:80 gate\n real6=[::2] ipip",
    "virtual=192.0.2.1:80\n real=127.0.0.1->127.0.0.3:80 gate\n checkport=99",
];

/// What the command was told by the original and by us: a line for each call, in the order of the alphabet.
fn told(at: usize, text: &str, kind: &str) -> [String; 2] {
    let folder = Folder::new(&format!("ld-arguments-{at}-{kind}"));
    let calls = folder.path().join("calls");
    let shell = format!("for one; do printf '<%s>' \"$one\"; done >>{0}; echo >>{0}\n", calls.display());
    executable(&folder.path().join("tell"), &format!("#!/bin/sh\n{shell}"));
    let perl = format!(
        "open(my $out, '>>', '{}');\nprint $out map {{ \"<$_>\" }} @ARGV;\nprint $out \"\\n\";\n\
        close($out);\nexit(0);\n",
        calls.display()
    );
    fs::write(folder.path().join("tell.pl"), perl).unwrap();
    let text = text.replace("\n ", "\n    ");
    let script = if kind == "external" { "tell" } else { "tell.pl" };
    let text = format!("{text}\n    checktype={kind}\n    checkcommand=@DIR@/{script}\n");
    let case = Case { name: "arguments".to_owned(), bytes: text.into_bytes(), verdict: Verdict::Accepted };
    let path = file_of(&case, &folder, &Servers::ports_only());
    let collect = || {
        let said = fs::read_to_string(&calls).unwrap_or_default();
        let _ = fs::remove_file(&calls);
        let mut lines: Vec<&str> = said.lines().collect();
        lines.sort_unstable();
        lines.join("\n")
    };
    let Start::Runs(running) = Original::new(folder.path()).start(&path) else { panic!("{at}") };
    drop(running);
    let theirs = collect();
    let _ = Farm::load(&path).unwrap().table();
    [theirs, collect()]
}

#[test]
#[ignore = "the original, from the package ldirectord: tests/run"]
fn a_command_is_told_the_same_by_both() {
    for kind in ["external", "external-perl"] {
        let files: Vec<(usize, &str)> = FILES.into_iter().enumerate().collect();
        let results = side_by_side(4, &files, |(at, text)| told(*at, text, kind));
        for (text, [theirs, ours]) in FILES.iter().zip(results) {
            assert!(theirs.starts_with('<'), "{text}");
            assert_eq!(ours, theirs, "{kind}: {text}");
        }
    }
}
