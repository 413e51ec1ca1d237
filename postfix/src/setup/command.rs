//! EDGE: runs a command to its end, in time, and keeps what it says.
//!
//! Owns nothing. Refuses to know what the command is for. Fails with the command and its own words.

use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::bounded::{Bounded, with_system_path};

/// How long one may take: `postfix stop` and `modprobe` take some seconds.
const LIMIT: Duration = Duration::from_secs(60);
/// Most bytes of what it says.
const MOST: u64 = 8 << 20;
/// Most of its words that are passed on.
const MOST_WORDS: usize = 400;

/// Runs it. Returns its standard output.
pub(crate) fn run(words: &[String]) -> Result<String, String> {
    let [program, arguments @ ..] = words else { return Err("no command".to_owned()) };
    let failed = |why: &dyn std::fmt::Display| format!("{}: {why}", words.join(" "));
    let (mut said, errors) = std::io::pipe().map_err(|error| failed(&error))?;
    let mut command = Command::new(program);
    with_system_path(&mut command);
    command.args(arguments).env("LC_ALL", "C").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
    let mut child = command.spawn().map_err(|error| failed(&error))?;
    drop(command); // its end of the pipe
    let mut text = String::new();
    let read = match child.stdout.take() {
        Some(output) => Bounded::new(output, LIMIT, MOST).read_to_string(&mut text).map(drop),
        None => Ok(()),
    };
    if let Err(error) = read {
        let _ = child.kill();
        let _ = child.wait();
        return Err(failed(&error));
    }
    let status = child.wait().map_err(|error| failed(&error))?;
    if status.success() {
        return Ok(text);
    }
    // What it started may live on with the pipe: only what is there is read.
    let mut words_of_it = Vec::new();
    let mut errors = Bounded::new(&mut said, Duration::from_secs(1), MOST);
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = errors.read(&mut buffer) {
        words_of_it.extend_from_slice(buffer.get(..count).unwrap_or_default());
        if words_of_it.len() > MOST_WORDS * 4 {
            break;
        }
    }
    let why: String = String::from_utf8_lossy(&words_of_it).trim().chars().take(MOST_WORDS).collect();
    Err(if why.is_empty() { failed(&status) } else { failed(&why.replace('\n', "; ")) })
}

/// The same, from a line.
pub(crate) fn run_line(line: &str) -> Result<String, String> {
    run(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
}
