//! EDGE: reads the configuration file and the host name.
//!
//! Owns the limits of a file (regular, at most 1 MiB, UTF-8), which of the two kinds it is, and the whole report of what is wrong
//! with it. Refuses to know what the text means. Fails with [`LoadError`], whose text is all that a person needs.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, FileType};
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use super::diagnostic::{Diagnostic, render};
use super::names::Machine;
use super::{Config, ldirectord, native};

/// Where the configuration is unless the command line says otherwise.
pub const DEFAULT_PATH: &str = "/etc/smtp-director/smtp-director.toml";

/// Largest file that is read, in bytes: ten thousand real servers written one by one.
pub const MAX_SIZE: u64 = 1024 * 1024;

/// What EHLO says where the host has no usable name.
const NO_HOST_NAME: &str = "localhost";

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It cannot be opened or read.
    #[error("{}: cannot read the configuration: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Reading it may never end.
    #[error("{}: is {kind}; the configuration is a regular file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// More than [`MAX_SIZE`].
    #[error("{}: is larger than {} KiB; this is no configuration", path.display(), MAX_SIZE / 1024)]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Not UTF-8, which TOML is.
    #[error("{}:{line}: error: not UTF-8 at byte {offset} of the file; save it as UTF-8", path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// The line of the first bad byte, from 1.
        line: usize,
        /// Its offset, from 0.
        offset: usize,
    },
    /// It can be read and is wrong.
    #[error("{report}")]
    Invalid {
        /// Every problem with its source line, many lines.
        report: String,
        /// How many problems.
        problems: usize,
    },
}

/// Reads the file at `path` and lays the variables that begin with `SMTP_DIRECTOR__` over it.
///
/// A byte order mark and CRLF are accepted. Checks say the host's name in EHLO unless the file says otherwise, as it
/// is: many hosts have no fully qualified one, and the check sends no mail that a server could refuse for it.
///
/// # Errors
/// [`LoadError`]; its `Display` is the whole report.
pub fn load(
    path: &Path,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Config, LoadError> {
    let text = text_of(path)?;
    // What is not Unicode becomes U+FFFD, which no setting takes.
    let variables: Vec<_> = variables
        .into_iter()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
        .collect();
    let lowered = if is_ldirectord(path, &text) {
        let machine = Machine::default();
        ldirectord::lower(&text, &variables, &host_name(), &machine)
    } else {
        native::lower(&text, &variables, &host_name())
    };
    lowered.map_err(|problems| invalid(path, &text, &problems))
}

/// The native file that means the same as the `ldirectord.cf` at `path`.
///
/// # Errors
/// [`LoadError`]; its `Display` is the whole report.
pub fn import(path: &Path) -> Result<String, LoadError> {
    let text = text_of(path)?;
    let machine = Machine::default();
    let imported = ldirectord::import(&text, &host_name(), &machine);
    imported.map_err(|problems| invalid(path, &text, &problems))
}

fn invalid(path: &Path, text: &str, problems: &[Diagnostic]) -> LoadError {
    LoadError::Invalid {
        report: render(&path.display().to_string(), text, problems),
        problems: problems.len(),
    }
}

/// By its ending; any other file by what it holds. A native file may have the ending of the other, so that it can take its
/// place: no line of an `ldirectord.cf` begins with two brackets.
fn is_ldirectord(path: &Path, text: &str) -> bool {
    match path.extension().and_then(OsStr::to_str) {
        Some("cf") => !text.lines().any(|line| line.starts_with("[[")),
        Some("toml") => false,
        _ => ldirectord::is_ldirectord(text),
    }
}

/// The text of a file. Only TOML must be UTF-8: an old `ldirectord.cf` may be Latin-1, in which every byte is a character.
fn text_of(path: &Path) -> Result<String, LoadError> {
    let bytes = read(path)?;
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let offset = error.utf8_error().valid_up_to();
            let bytes = error.into_bytes();
            let latin1: String = bytes.iter().copied().map(char::from).collect();
            if !is_ldirectord(path, &latin1) {
                let line = bytes.iter().take(offset).filter(|byte| **byte == b'\n').count() + 1;
                return Err(LoadError::NotUtf8 { path: path.into(), line, offset });
            }
            latin1
        }
    };
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// Where a file says that the daemon serves, whatever else is wrong with the file.
#[must_use]
pub fn http_of(path: &Path) -> Option<SocketAddr> {
    let text = text_of(path).ok()?;
    if is_ldirectord(path, &text) {
        return Some(super::DEFAULT_HTTP);
    }
    let (table, _) = toml::de::DeTable::parse_recoverable(&text);
    table.get_ref().get("http")?.get_ref().as_str()?.parse().ok()
}

fn read(path: &Path) -> Result<Vec<u8>, LoadError> {
    let failed = |source| LoadError::Read { path: path.into(), source };
    // Asked before opening: opening a FIFO waits for a writer. Asked of the path, so a symbolic link is followed.
    let kind = fs::metadata(path).map_err(failed)?.file_type();
    if !kind.is_file() {
        return Err(LoadError::NotAFile { path: path.into(), kind: name_of(kind) });
    }
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(MAX_SIZE + 1).read_to_end(&mut bytes)).map_err(failed)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= MAX_SIZE) {
        Ok(bytes)
    } else {
        Err(LoadError::TooLarge { path: path.into() })
    }
}

fn name_of(kind: FileType) -> &'static str {
    match kind {
        _ if kind.is_dir() => "a directory",
        _ if kind.is_fifo() => "a pipe",
        _ if kind.is_socket() => "a socket",
        _ => "a device",
    }
}

/// The kernel's host name where EHLO can carry it: it may hold any byte, a line end too.
#[must_use]
pub fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if native::is_host_name(name) { name.to_string() } else { NO_HOST_NAME.to_string() }
}
