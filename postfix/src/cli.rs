//! EDGE: the command line of `smtp-realserver`: what can be asked for, and the exit code of each answer.
//!
//! Owns the arguments and [`Exit`]. Refuses to end the process: `main.rs` does. Exit codes are those of `sysexits.h`.

use std::ffi::OsString;
use std::fmt;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use ipnet::IpNet;
use listenfd::ListenFd;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

use crate::agent::{Rules, Said, serve};
use crate::look::{Directories, Looker, What};
use crate::queue::Ask;
use crate::report::agent::render;
use crate::report::{Source, Trouble, render_text};
use crate::setup;
use crate::tls::{Files, acceptor};

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
    pub const USAGE: u8 = 64;
    /// The queue cannot be asked: no Postfix, no answer.
    pub const UNAVAILABLE: u8 = 69;
    /// The system refused something ordinary, such as a port to listen on.
    pub const OS: u8 = 71;
    /// `status`: something is wrong.
    pub const WRONG: u8 = 1;
    /// Another process is at work.
    pub const TEMPORARY: u8 = 75;
    /// The output could not be written.
    pub const IO: u8 = 74;
    /// This user may not read the queue.
    pub const PERMISSION: u8 = 77;
    /// A file of TLS is not what it should be.
    pub const CONFIG: u8 = 78;

    pub(crate) fn new(code: u8, message: impl fmt::Display) -> Self {
        Self { code, message: message.to_string() }
    }

    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self::new(Self::USAGE, message)
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
#[command(name = "smtp-realserver", version, about, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say once how the queue of Postfix is.
    Report {
        #[command(flatten)]
        look: Look,
        /// For people, for programs, or one line for HAProxy and smtp-director.
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Say it to every director that connects, until SIGTERM.
    Serve(Box<Serve>),
    #[command(flatten)]
    Setup(setup::cli::Command),
}

#[derive(Debug, clap::Args)]
struct Look {
    /// Configuration directory of an instance; may be repeated.
    #[arg(short, long = "config", value_name = "DIRECTORY", default_value = "/etc/postfix")]
    config: Vec<PathBuf>,
    /// All instances that `postmulti -l` shows as enabled.
    #[arg(long, conflicts_with = "config")]
    multi: bool,
    /// Where the queue figures come from.
    #[arg(long, value_enum, default_value_t = Origin::Auto)]
    source: Origin,
    /// An address that the director sends to, to look whether this box takes it; may be repeated.
    #[arg(long, value_name = "ADDRESS:PORT")]
    vip: Vec<SocketAddr>,
    /// The smtpd of master.cf that is watched, by its first column; the first one without this.
    #[arg(long, value_name = "SERVICE")]
    smtpd: Option<String>,
}

#[derive(Debug, clap::Args)]
struct Serve {
    #[command(flatten)]
    look: Look,
    /// What askers get.
    #[arg(long, value_enum, default_value_t = LineFormat::Agent)]
    format: LineFormat,
    /// Where to listen; may be repeated. Without it, the sockets that systemd hands over, or 127.0.0.1:9626.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Vec<SocketAddr>,
    /// Who may ask: an address, or a network such as 192.0.2.0/24; may be repeated. Without it, this box only.
    #[arg(long, value_name = "ADDRESS", value_parser = network)]
    allow: Vec<IpNet>,
    /// Our certificate, in PEM. With the next two, askers must speak TLS and show a certificate.
    #[arg(long, value_name = "FILE", requires_all = ["tls_key", "tls_client_ca"])]
    tls_certificate: Option<PathBuf>,
    /// Its key, in PEM.
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
    /// Who vouches for askers, in PEM.
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    tls_client_ca: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Text,
    Json,
    Agent,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LineFormat {
    Json,
    Agent,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Origin {
    /// The first that this user may.
    Auto,
    /// The names of the spool.
    Scan,
    /// The socket of showq.
    Showq,
    /// postqueue -j.
    Postqueue,
}

/// Does what the arguments ask for.
///
/// # Errors
/// [`Exit`] with the code to end with.
pub fn main(arguments: impl Iterator<Item = OsString>) -> Result<(), Exit> {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            let code = if error.use_stderr() { Exit::USAGE } else { 0 };
            error.print()?;
            return Err(Exit::new(code, ""));
        }
    };
    match arguments.command {
        Command::Report { look, format } => report(look, format),
        Command::Serve(arguments) => listen(*arguments),
        Command::Setup(command) => setup::cli::main(command),
    }
}

fn looker(look: Look) -> Result<Looker, Exit> {
    let what = What {
        directories: if look.multi { Directories::Multi } else { Directories::These(look.config) },
        ask: match look.source {
            Origin::Auto => Ask::Auto,
            Origin::Scan => Ask::Only(Source::Scan),
            Origin::Showq => Ask::Only(Source::Showq),
            Origin::Postqueue => Ask::Only(Source::Postqueue),
        },
        smtpd: look.smtpd,
        vips: look.vip,
    };
    Looker::new(what).map_err(|why| Exit::new(Exit::UNAVAILABLE, why))
}

fn report(look: Look, format: Format) -> Result<(), Exit> {
    let document = looker(look)?.look();
    let mut out = std::io::stdout().lock();
    match format {
        Format::Json => out.write_all(document.render().as_bytes())?,
        Format::Agent => out.write_all(render(&document.sum).as_bytes())?,
        Format::Text => {
            for instance in &document.instances {
                out.write_all(render_text(&instance.name, &instance.report).as_bytes())?;
            }
            if document.instances.len() > 1 {
                out.write_all(render_text("all together", &document.sum).as_bytes())?;
            }
        }
    }
    out.flush()?;
    match (format, document.sum.trouble) {
        // The line says it, and spawn(8) would log every exit code.
        (Format::Agent, _) | (_, None) => Ok(()),
        (_, Some(trouble)) => Err(troubled(trouble)),
    }
}

fn troubled(trouble: Trouble) -> Exit {
    let (code, message) = match trouble {
        Trouble::Permission => {
            (Exit::PERMISSION, "the queue cannot be read: run as root, or see Permissions in the README")
        }
        Trouble::NoSpool => (Exit::UNAVAILABLE, "the queue_directory is no spool of Postfix"),
        Trouble::NoAnswer => (Exit::UNAVAILABLE, "Postfix does not list its queue; is it running?"),
        Trouble::Slow => (Exit::UNAVAILABLE, "reading the queue takes too long"),
        Trouble::TooLong | Trouble::Garbage => (Exit::UNAVAILABLE, "the list of the queue is not Postfix's"),
        Trouble::System => (Exit::OS, "the queue cannot be read"),
    };
    Exit::new(code, message)
}

fn listen(arguments: Serve) -> Result<(), Exit> {
    // A log that cannot be written costs its lines, not the agent.
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(false)
        .log_internal_errors(false)
        .init();
    let files = arguments.tls_certificate.zip(arguments.tls_key).zip(arguments.tls_client_ca);
    let tls = files
        .map(|((certificate, key), client_ca)| acceptor(&Files { certificate, key, client_ca }))
        .transpose()
        .map_err(|why| Exit::new(Exit::CONFIG, why))?;
    let allow = if arguments.allow.is_empty() {
        vec![
            IpNet::new_assert([127, 0, 0, 0].into(), 8),
            IpNet::new_assert(std::net::Ipv6Addr::LOCALHOST.into(), 128),
        ]
    } else {
        arguments.allow
    };
    let said = match arguments.format {
        LineFormat::Agent => Said::Line,
        LineFormat::Json => Said::Document,
    };
    let looker = looker(arguments.look)?;
    let os = |what: &str, error: &dyn fmt::Display| Exit::new(Exit::OS, format!("{what}: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| os("cannot start", &error))?;
    runtime.block_on(async {
        let mut terminate =
            signal(SignalKind::terminate()).map_err(|error| os("cannot catch SIGTERM", &error))?;
        let mut interrupt =
            signal(SignalKind::interrupt()).map_err(|error| os("cannot catch SIGINT", &error))?;
        let listeners = listeners(&arguments.listen)?;
        for listener in &listeners {
            let address = listener.local_addr().map_err(|error| os("a socket is none", &error))?;
            info!("smtp-realserver {} listens on {address}", env!("CARGO_PKG_VERSION"));
        }
        tokio::select! {
            () = serve(listeners, Rules { allow, tls, said }, looker) => {}
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(())
    })
}

fn listeners(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, Exit> {
    let failed = |what: &dyn fmt::Display, error: &std::io::Error| {
        Exit::new(Exit::OS, format!("cannot listen on {what}: {error}"))
    };
    let mut given = ListenFd::from_env();
    let mut found = Vec::new();
    if addresses.is_empty() {
        for index in 0..given.len() {
            let what = format!("socket {index} of LISTEN_FDS");
            let socket = given.take_tcp_listener(index).and_then(|socket| match socket {
                Some(socket) => socket.set_nonblocking(true).and_then(|()| TcpListener::from_std(socket)),
                None => Err(std::io::ErrorKind::NotFound.into()),
            });
            found.push(socket.map_err(|error| failed(&what, &error))?);
        }
    }
    let default = [SocketAddr::from(([127, 0, 0, 1], 9626))];
    let addresses = if addresses.is_empty() && found.is_empty() { &default[..] } else { addresses };
    for address in addresses {
        let socket = std::net::TcpListener::bind(address);
        let socket = socket.and_then(|socket| {
            socket.set_nonblocking(true)?;
            TcpListener::from_std(socket)
        });
        found.push(socket.map_err(|error| failed(address, &error))?);
    }
    Ok(found)
}

/// An address is a network of one.
fn network(text: &str) -> Result<IpNet, String> {
    let one = text.parse::<std::net::IpAddr>().map(IpNet::from);
    one.or_else(|_| text.parse()).map_err(|_| "an address, or a network such as 192.0.2.0/24".to_owned())
}
