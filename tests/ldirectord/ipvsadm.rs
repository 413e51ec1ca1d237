//! A table of virtual servers in a file, by the command line of ipvsadm: what the original finds instead of the real one.
//!
//! EDGE: owns the files `table`, `operations` (each command line, with its exit status) and `changes` (what it changed, in the words of
//! the table) in the folder that `RECORDER` names, or here. A program of its own, since a start of the original makes a hundred calls. Refuses to know anything that the original does not say. As the real one does, it gives a
//! server that is added or edited and not reached by masquerading the port of its virtual, and refuses what is there already or is not.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

/// The settings of a virtual, and of each of its servers.
#[derive(Default)]
struct Virtual {
    settings: String,
    reals: BTreeMap<String, String>,
}

type Table = BTreeMap<String, Virtual>;

fn main() -> ExitCode {
    let folder = env::var_os("RECORDER").map_or_else(|| PathBuf::from("."), PathBuf::from);
    let words: Vec<String> = env::args().skip(1).collect();
    let mut table = parse(&fs::read_to_string(folder.join("table")).unwrap_or_default());
    if words.first().is_some_and(|word| word == "-L") {
        let _ = io::stdout().write_all(list(&table, words.iter().any(|w| w == "--thresholds")).as_bytes());
        return ExitCode::SUCCESS;
    }
    let said = Said::read(&words);
    let (status, change) = said.apply(&mut table);
    let append = |name: &str, line: String| {
        let log = OpenOptions::new().append(true).create(true).open(folder.join(name));
        log.and_then(|mut log| log.write_all(line.as_bytes()))
    };
    let logged = append("operations", format!("{status} {}\n", words.join(" ")))
        .and_then(|()| append("changes", format!("{status}\t{change}\n")));
    // Whole or not at all: the test reads it while the original runs.
    let whole = folder.join("table.new");
    let written = fs::write(&whole, show(&table)).and_then(|()| fs::rename(&whole, folder.join("table")));
    ExitCode::from(if logged.and(written).is_err() { 9 } else { status })
}

fn parse(text: &str) -> Table {
    let mut table = Table::new();
    for line in text.lines() {
        let parts: Vec<&str> = line.split('\t').collect();
        match parts.as_slice() {
            ["V", key, settings] => table.entry((*key).into()).or_default().settings = (*settings).into(),
            ["R", key, real, settings] => {
                table.entry((*key).into()).or_default().reals.insert((*real).into(), (*settings).into());
            }
            _ => {}
        }
    }
    table
}

fn show(table: &Table) -> String {
    let mut text = String::new();
    for (key, one) in table {
        text += &format!("V\t{key}\t{}\n", one.settings);
        for (real, settings) in &one.reals {
            text += &format!("R\t{key}\t{real}\t{settings}\n");
        }
    }
    text
}

/// What `-L -n` prints, as far as anybody reads it.
fn list(table: &Table, thresholds: bool) -> String {
    let mut text =
        "IP Virtual Server\nProt LocalAddress:Port Scheduler Flags\n  -> RemoteAddress:Port\n".to_owned();
    for (key, one) in table {
        let mut words = key.split(' ');
        let kind = match words.next() {
            Some("-t") => "TCP",
            Some("-u") => "UDP",
            _ => "FWM",
        };
        let address = words.next().unwrap_or("");
        let six = if words.next().is_some() { " IPv6" } else { "" };
        let settings: Vec<&str> = one.settings.split(' ').collect();
        let [scheduler, timeout, mask, ..] = settings.as_slice() else { continue };
        text += &format!("{kind} {address}{six} {scheduler}");
        if *timeout != "0" {
            text += &format!(" persistent {timeout}");
            if *mask != "-" {
                text += &format!(" mask {mask}");
            }
        }
        text.push('\n');
        for (real, settings) in &one.reals {
            let settings: Vec<&str> = settings.split(' ').collect();
            let [forward, weight, upper, lower] = settings.as_slice() else { continue };
            let name = match *forward {
                "-g" => "Route",
                "-m" => "Masq",
                _ => "Tunnel",
            };
            text += &match thresholds {
                true => format!("  -> {real} {upper} {lower} 0 0\n"),
                false => format!("  -> {real} {name} {weight} 0 0\n"),
            };
        }
    }
    text
}

/// A command line, with the defaults of ipvsadm.
struct Said {
    command: String,
    key: String,
    real: String,
    of_virtual: String,
    of_real: String,
}

impl Said {
    fn read(words: &[String]) -> Self {
        let mut words = words.iter().map(String::as_str);
        let mut next = || words.next().unwrap_or("");
        let (command, kind, address) = (next(), next(), next());
        let mut key = format!("{kind} {address}");
        let (mut scheduler, mut timeout, mut mask, mut flags, mut one) = ("wlc", "0", "-", "-", "-");
        let (mut real, mut forward, mut weight, mut upper, mut lower) = (String::new(), "-g", "1", "0", "0");
        while let Some(option) = Some(next()).filter(|option| !option.is_empty()) {
            match option {
                "-6" => key += " -6",
                "-o" => one = "ops",
                "-s" => scheduler = next(),
                "-p" => timeout = next(),
                "-M" => mask = next(),
                "-b" => flags = next(),
                "-r" => real = next().to_owned(),
                "-w" => weight = next(),
                "-x" => upper = next(),
                "-y" => lower = next(),
                "-g" | "-m" | "-i" => forward = option,
                _ => real = format!("?{option}"),
            }
        }
        // When one is deleted, it is the port that is said.
        if matches!(command, "-a" | "-e") && kind != "-f" && forward != "-m" {
            let port = address.rsplit_once(':').map_or("", |(_, port)| port);
            let host = real.rsplit_once(':').map_or(real.as_str(), |(host, _)| host);
            real = format!("{host}:{port}");
        }
        Self {
            command: command.to_owned(),
            key,
            real,
            of_virtual: format!("{scheduler} {timeout} {mask} {flags} {one}"),
            of_real: format!("{forward} {weight} {upper} {lower}"),
        }
    }

    /// Does it. The exit status, and what is changed, or would have been.
    fn apply(self, table: &mut Table) -> (u8, String) {
        let Self { command, key, real, of_virtual, of_real } = self;
        let have = table.contains_key(&key);
        let there = table.get(&key).is_some_and(|one| one.reals.contains_key(&real));
        let (good, sign) = match command.as_str() {
            "-A" => (!have, "+V"),
            "-E" => (have, "~V"),
            "-D" => (have, "-V"),
            "-a" => (have && !there, "+R"),
            "-e" => (there, "~R"),
            "-d" => (there, "-R"),
            _ => (false, "?"),
        };
        let change = match sign {
            "+V" | "~V" => format!("{sign}\t{key}\t{of_virtual}"),
            "-V" => format!("{sign}\t{key}"),
            "-R" => format!("{sign}\t{key}\t{real}"),
            _ => format!("{sign}\t{key}\t{real}\t{of_real}"),
        };
        if good && sign == "-V" {
            table.remove(&key);
        } else if good {
            let one = table.entry(key).or_default();
            match sign {
                "+V" | "~V" => one.settings = of_virtual,
                "-R" => drop(one.reals.remove(&real)),
                _ => drop(one.reals.insert(real, of_real)),
            }
        }
        (u8::from(!good), change)
    }
}
