//! EDGE: who to log in as.
//!
//! Owns the secret and where it comes from: one line `user:password` of a regular file that others cannot read, or the
//! configuration itself.
//! Refuses to be shown: no `Display`, and `Debug` says nothing. Fails with a text that names the file and the
//! trouble, never its content.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Largest file, in bytes.
const MAX_FILE: u64 = 1024;
/// Any right of others.
const OTHERS: u32 = 0o007;

/// Where a user and a password come from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Login {
    /// The file, read at each check.
    File(PathBuf),
    /// The configuration, which then is as secret as the password.
    Written(Credential),
}

/// Where a secret without a user comes from.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Secret {
    /// The file, read at each check.
    File(PathBuf),
    /// The configuration.
    Written(String),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => f.debug_tuple("File").field(file).finish(),
            Self::Written(_) => f.write_str("Written(…)"),
        }
    }
}

impl Login {
    /// The user and the password.
    ///
    /// # Errors
    /// What is wrong with the file, for people.
    pub(crate) fn read(&self) -> Result<Credential, String> {
        match self {
            Self::File(file) => Credential::read(file),
            Self::Written(credential) => Ok(credential.clone()),
        }
    }
}

impl Secret {
    /// The secret.
    ///
    /// # Errors
    /// What is wrong with the file, for people.
    pub(crate) fn read(&self) -> Result<String, String> {
        match self {
            Self::File(file) => read_secret(file),
            Self::Written(secret) => Ok(secret.clone()),
        }
    }
}

impl From<PathBuf> for Login {
    fn from(file: PathBuf) -> Self {
        Self::File(file)
    }
}

impl From<PathBuf> for Secret {
    fn from(file: PathBuf) -> Self {
        Self::File(file)
    }
}

impl From<&str> for Login {
    fn from(file: &str) -> Self {
        Self::File(file.into())
    }
}

impl From<&str> for Secret {
    fn from(file: &str) -> Self {
        Self::File(file.into())
    }
}

/// A user and a password.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Credential {
    user: String,
    password: String,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(…)")
    }
}

impl Credential {
    /// A user and a password that are written where we are told of them; the password may be empty. `None` where one of
    /// them could end a line, is too long, or there is no user.
    #[must_use]
    pub fn new(user: &str, password: &str) -> Option<Self> {
        let short = u64::try_from(user.len() + password.len()).is_ok_and(|length| length < MAX_FILE);
        let good =
            short && !user.is_empty() && ![user, password].iter().any(|text| text.contains(char::is_control));
        good.then(|| Self { user: user.to_owned(), password: password.to_owned() })
    }

    /// Reads `file`.
    ///
    /// # Errors
    /// What is wrong with the file, for people.
    pub fn read(file: &Path) -> Result<Self, String> {
        let text = read(file)?;
        Self::parse(&text).ok_or_else(|| format!("{}: is not one line user:password", file.display()))
    }

    /// The user and the password.
    pub(crate) fn pair(&self) -> (&str, &str) {
        (&self.user, &self.password)
    }

    /// One line of printable characters; the first colon ends the user.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let line = text.strip_suffix('\n').unwrap_or(text);
        let line = line.strip_suffix('\r').unwrap_or(line);
        let (user, password) = line.split_once(':')?;
        let short = u64::try_from(text.len()).is_ok_and(|length| length <= MAX_FILE);
        let good = short && !user.is_empty() && !password.is_empty() && !line.contains(char::is_control);
        good.then(|| Self { user: user.to_owned(), password: password.to_owned() })
    }

    /// The initial response of PLAIN (RFC 4616), in base64.
    pub(crate) fn plain(&self) -> String {
        STANDARD.encode(format!("\0{}\0{}", self.user, self.password))
    }

    /// What LOGIN says first, in base64.
    pub(crate) fn user(&self) -> String {
        STANDARD.encode(&self.user)
    }

    /// What LOGIN says next, in base64.
    pub(crate) fn password(&self) -> String {
        STANDARD.encode(&self.password)
    }

    /// Whether a printable `text` gives the secret away: a server may repeat what it was told.
    pub(crate) fn is_in(&self, text: &str) -> bool {
        if self.password.is_empty() {
            return false;
        }
        let shown = crate::smtp::reply::printable(self.password.as_bytes());
        [self.plain(), self.password(), shown].iter().any(|secret| text.contains(secret.as_str()))
    }
}

/// Reads a secret without a user: one line of printable characters.
///
/// # Errors
/// What is wrong with the file, for people.
pub(crate) fn read_secret(file: &Path) -> Result<String, String> {
    let text = read(file)?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    let short = u64::try_from(text.len()).is_ok_and(|length| length <= MAX_FILE);
    if line.is_empty() || !short || line.contains(char::is_control) {
        return Err(format!("{}: is not one line with a secret", file.display()));
    }
    Ok(line.to_owned())
}

/// Reads a small file that others cannot. The rights are those of the file that is read, whatever happens to its name
/// meanwhile.
fn read(file: &Path) -> Result<String, String> {
    let trouble = |what: &dyn fmt::Display| format!("{}: {what}", file.display());
    // Opening a FIFO must not wait for its writer.
    let opened =
        File::options().read(true).custom_flags(libc::O_NONBLOCK).open(file).map_err(|e| trouble(&e))?;
    let metadata = opened.metadata().map_err(|e| trouble(&e))?;
    if !metadata.is_file() {
        return Err(trouble(&"is not a regular file"));
    }
    if metadata.mode() & OTHERS != 0 {
        return Err(trouble(&format!(
            "others have rights on it (mode {:04o}); chmod o= it",
            metadata.mode() & 0o7777
        )));
    }
    let mut text = String::new();
    opened.take(MAX_FILE + 1).read_to_string(&mut text).map_err(|e| trouble(&e.kind()))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_is_a_credential() {
        for (text, user, password) in
            [("u:p", "u", "p"), ("u@example.com:a:b c\n", "u@example.com", "a:b c"), ("u:p\r\n", "u", "p")]
        {
            let credential = Credential::parse(text).unwrap();
            assert_eq!((credential.user.as_str(), credential.password.as_str()), (user, password));
        }
        for text in ["", "u", "u:", ":p", "u:p\nv:q\n", "u:\0p", "\n"] {
            assert!(Credential::parse(text).is_none(), "{text:?}");
        }
        assert!(Credential::parse(&format!("u:{}", "p".repeat(2000))).is_none());
    }

    #[test]
    fn a_written_secret_is_one_line_and_never_shown() {
        let credential = Credential::new("u:v", "").unwrap();
        assert_eq!(credential.pair(), ("u:v", ""));
        assert!(!credential.is_in("535 no"), "nothing is given away by an empty password");
        for (user, password) in [("", "p"), ("u", "p\n"), ("u\0", "p"), ("u", "p".repeat(2000).as_str())] {
            assert!(Credential::new(user, password).is_none(), "{user:?}");
        }
        let shown = format!("{:?} {:?}", Login::Written(credential), Secret::Written("pst".to_owned()));
        assert_eq!(shown, "Written(Credential(…)) Written(…)");
        assert_eq!(
            Secret::from("/no/such/file").read().unwrap_err(),
            "/no/such/file: No such file or directory (os error 2)"
        );
    }

    #[test]
    fn a_credential_is_said_as_sasl_wants_it_and_never_shown() {
        let credential = Credential::parse("tim:tanstaaftanstaaf").unwrap();
        // The example of RFC 4616 section 4.
        assert_eq!(credential.plain(), "AHRpbQB0YW5zdGFhZnRhbnN0YWFm");
        assert_eq!(
            (credential.user(), credential.password()),
            ("dGlt".into(), "dGFuc3RhYWZ0YW5zdGFhZg==".into())
        );
        assert_eq!(format!("{credential:?}"), "Credential(…)");
        assert!(
            credential.is_in("535 tanstaaftanstaaf") && credential.is_in("535 AHRpbQB0YW5zdGFhZnRhbnN0YWFm")
        );
        assert!(!credential.is_in("535 5.7.8 no, tim"));
    }
}
