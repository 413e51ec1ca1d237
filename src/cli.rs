//! The command line: what can be asked for, and the exit code of each answer.
//!
//! Owns the arguments and [`Exit`]. Each command is one file below. Refuses to end the process: `main.rs` does.
//! Quiet success; errors on standard error; exit codes are those of `sysexits.h`.

mod doctor;
mod import;
mod ldirectord;
mod plan;
mod probe;
mod run;
mod status;

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};

use crate::config::Config;
use crate::config::load::{DEFAULT_PATH, LoadError, load};
use crate::dataplane;

/// How a command ended that did not succeed.
#[derive(Debug, PartialEq, Eq)]
pub struct Exit {
    /// The exit code.
    pub code: u8,
    /// What to print on standard error; nothing where the output said it already.
    pub message: String,
}

impl Exit {
    /// A check found the server down (`probe`).
    pub const DOWN: u8 = 1;
    /// `probe`: the server serves, but not as it should.
    pub const DEGRADED: u8 = 2;
    /// Wrong arguments.
    pub const USAGE: u8 = 64;
    /// A host name has no address, or nobody says which.
    pub const NO_HOST: u8 = 68;
    /// Something that is needed is not there: IPVS, a running daemon.
    pub const UNAVAILABLE: u8 = 69;
    /// The system refused something ordinary, such as a port to listen on.
    pub const OS: u8 = 71;
    /// The output could not be written.
    pub const IO: u8 = 74;
    /// A permission is missing.
    pub const PERMISSION: u8 = 77;
    /// The configuration is wrong.
    pub const CONFIG: u8 = 78;

    fn new(code: u8, message: impl fmt::Display) -> Self {
        Self { code, message: message.to_string() }
    }
}

impl From<LoadError> for Exit {
    fn from(error: LoadError) -> Self {
        Self::new(Self::CONFIG, error)
    }
}

impl From<dataplane::Error> for Exit {
    fn from(error: dataplane::Error) -> Self {
        let code = match error {
            dataplane::Error::Permission => Self::PERMISSION,
            dataplane::Error::NotAvailable => Self::UNAVAILABLE,
            _ => Self::OS,
        };
        Self::new(code, error)
    }
}

/// A closed pipe is an end like any other: whoever reads has seen enough.
impl From<std::io::Error> for Exit {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self::new(0, ""),
            _ => Self::new(Self::IO, format!("cannot write: {error}")),
        }
    }
}

#[derive(Debug, Parser)]
#[command(name = "smtp-director", version, about, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Args)]
struct ConfigFile {
    /// The configuration file.
    #[arg(short, long, value_name = "FILE", default_value = DEFAULT_PATH)]
    config: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Direct: check the real servers and keep the table right, until SIGTERM. SIGHUP reloads.
    Run(ConfigFile),
    /// Say all that is wrong with a configuration; nothing when it is right.
    Validate {
        #[command(flatten)]
        option: ConfigFile,
        /// The configuration file, when it is not named by --config.
        #[arg(value_name = "FILE", conflicts_with = "config")]
        file: Option<PathBuf>,
    },
    /// Write the native configuration that means the same as an ldirectord.cf.
    Import {
        /// The file of ldirectord.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Where to write it; a file that is there already is left alone. Standard output without it.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Ask every server once and show what would change in the table now; changes nothing.
    Plan(ConfigFile),
    /// Ask one SMTP server once, step by step, or those of a virtual. Exit 0: up, 1: down, 2: degraded.
    Probe(Box<probe::Arguments>),
    /// Show the farm as a running daemon sees it.
    Status(status::Arguments),
    /// Be the command ldirectord; so is a link of that name to this program.
    #[command(disable_help_flag = true)]
    Ldirectord {
        /// As ldirectord has them; `smtp-director ldirectord --help` lists them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
        arguments: Vec<OsString>,
    },
    /// Say what is wrong with this machine as a director, why, and how to mend it. Exit 0: nothing, 1: advice, 2: wrong.
    Doctor(doctor::Arguments),
    /// Balance three SMTP servers in this process for half a minute; one fails and comes back.
    Demo,
}

/// Does what the arguments ask for.
///
/// # Errors
/// [`Exit`] with the code to end with.
pub fn main(arguments: impl Iterator<Item = OsString>) -> Result<(), Exit> {
    let arguments: Vec<OsString> = arguments.collect();
    if let Some((program, rest)) = arguments.split_first()
        && Path::new(program).file_name().is_some_and(|name| name == ldirectord::NAME)
    {
        return ldirectord::ldirectord(rest);
    }
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            let code = if error.use_stderr() { Exit::USAGE } else { 0 };
            error.print()?;
            return Err(Exit::new(code, ""));
        }
    };
    match arguments.command {
        Command::Run(file) => run::run(&file.config),
        Command::Validate { option, file } => read(&file.unwrap_or(option.config)).map(drop),
        Command::Import { file, output } => import::import(&file, output.as_deref()),
        Command::Plan(file) => plan::plan(&read(&file.config)?),
        Command::Probe(arguments) => probe::probe(&arguments),
        Command::Status(arguments) => status::status(&arguments),
        Command::Ldirectord { arguments } => ldirectord::ldirectord(&arguments),
        Command::Doctor(arguments) => doctor::doctor(&arguments),
        Command::Demo => crate::demo::demo().map_err(|error| Exit::new(Exit::OS, error)),
    }
}

fn read(file: &Path) -> Result<Config, Exit> {
    Ok(load(file, std::env::vars_os())?)
}

/// A runtime with as many threads as the work of this command needs.
fn runtime(threads: Threads) -> Result<tokio::runtime::Runtime, Exit> {
    let mut builder = match threads {
        Threads::One => tokio::runtime::Builder::new_current_thread(),
        Threads::Cores => tokio::runtime::Builder::new_multi_thread(),
    };
    builder.enable_all().build().map_err(|error| Exit::new(Exit::OS, format!("cannot start: {error}")))
}

#[derive(Clone, Copy)]
enum Threads {
    /// For what asks and answers.
    One,
    /// For what forwards mail by itself.
    Cores,
}
