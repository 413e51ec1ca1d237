//! The command line: what can be asked for, and the exit code of each answer.
//!
//! Owns the commands and [`Exit`]. Each command is one file below. Refuses to end the process: `main.rs` does.

mod exporter;
mod http_load;
mod limit;
mod live;
mod merge;
mod output;
mod press;
mod sink;
mod target;

use std::ffi::OsString;
use std::fmt;
use std::path::Path;

use clap::{Parser, Subcommand};

use crate::report::Report;

/// How a command ended that did not succeed.
#[derive(Debug, PartialEq, Eq)]
pub struct Exit {
    /// The exit code.
    pub code: u8,
    /// What to print on standard error; nothing where the output said it already.
    pub message: String,
}

impl Exit {
    /// Wrong arguments.
    pub const USAGE: u8 = 1;
    /// The system refused something, or nothing at all succeeded.
    pub const SYSTEM: u8 = 2;
    /// Interrupted; what there was is reported.
    pub const INTERRUPTED: u8 = 3;
    /// The generator itself was the limit: the verdict is void.
    pub const SATURATED: u8 = 4;
    /// A threshold of `--fail-if` was crossed.
    pub const FAILED: u8 = 99;

    pub(crate) fn new(code: u8, message: impl fmt::Display) -> Self {
        Self { code, message: message.to_string() }
    }

    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self::new(Self::USAGE, message)
    }

    pub(crate) fn system(message: impl fmt::Display) -> Self {
        Self::new(Self::SYSTEM, message)
    }
}

#[derive(Debug, Parser)]
#[command(
    name = "smtp-loadgen",
    version,
    about = "Press on a farm of mail servers, with honest latency",
    max_term_width = 100
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Send mail to smtp://HOST:PORT (smtps://, lmtp:// and HTTP URLs may be mixed in).
    Smtp(Box<press::Arguments>),
    /// Fetch http://HOST:PORT/PATH (SMTP URLs may be mixed in).
    Http(Box<press::Arguments>),
    /// Be an SMTP server that counts what it takes and can be made ill.
    Sink(sink::Arguments),
    /// Add up HdrHistogram logs of several generators.
    Merge(merge::Merge),
    /// Hold two reports against each other.
    Compare(merge::Compare),
    /// Take the command line of http_load, and print as it does.
    #[command(name = "http_load", disable_help_flag = true)]
    HttpLoad {
        /// Its options, which may be cut short, and its file of URLs.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
}

/// Does what the arguments ask for.
///
/// # Errors
/// [`Exit`] with the code to end with.
pub fn main(arguments: Vec<OsString>) -> Result<(), Exit> {
    let called = arguments.first().and_then(|program| Path::new(program).file_name());
    if called == Some("http_load".as_ref()) {
        let words = arguments.iter().skip(1).map(|word| word.to_string_lossy().into_owned());
        return http_load::http_load(words.collect());
    }
    let given = arguments.iter().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let parsed = Arguments::try_parse_from(arguments).map_err(|error| {
        let code = if error.use_stderr() { Exit::USAGE } else { 0 };
        let _ = error.print();
        Exit { code, message: String::new() }
    })?;
    match parsed.command {
        Command::Smtp(arguments) => press::press(&arguments, press::Default::Smtp, given),
        Command::Http(arguments) => press::press(&arguments, press::Default::Http, given),
        Command::Sink(arguments) => sink::sink(&arguments),
        Command::Merge(arguments) => merge::merge(&arguments),
        Command::Compare(arguments) => merge::compare(&arguments),
        Command::HttpLoad { words } => http_load::http_load(words),
    }
}

/// What `smtp` or `http` with these words comes to, and the exit code. Shows nothing, and stores no report.
///
/// # Errors
/// [`Exit`] when it did not come to a report.
pub fn rehearse(words: &[&str]) -> Result<(Report, u8), Exit> {
    let given: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
    let words = std::iter::once("smtp-loadgen").chain(words.iter().copied());
    let parsed = Arguments::try_parse_from(words).map_err(Exit::usage)?;
    let (report, complaints) = match parsed.command {
        Command::Smtp(arguments) => press::perform(&arguments, press::Default::Smtp, given)?,
        Command::Http(arguments) => press::perform(&arguments, press::Default::Http, given)?,
        _ => return Err(Exit::usage("only smtp and http come to a report")),
    };
    let code = press::verdict(&report, &complaints).map_or_else(|exit| exit.code, |()| 0);
    Ok((report, code))
}

/// Reads one of a few words.
pub(crate) fn one_of<T: Clone>(text: &str, words: &[(&str, T)]) -> Result<T, String> {
    let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| value.clone());
    found.ok_or_else(|| {
        let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        format!("it is one of {}", words.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Arguments::command().debug_assert();
    }
}
