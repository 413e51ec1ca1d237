//! EDGE: `import`: the native file that means the same as an `ldirectord.cf`.
//!
//! Owns where it is written to: standard output, or a new file that only its owner can read, since it may hold passwords. Refuses to
//! write over anything.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::Exit;
use crate::config::load;

pub(super) fn import(file: &Path, output: Option<&Path>) -> Result<(), Exit> {
    let text = load::import(file)?;
    let Some(output) = output else {
        std::io::stdout().lock().write_all(text.as_bytes())?;
        return Ok(());
    };
    let failed = |error| Exit::new(Exit::IO, format!("{}: {error}", output.display()));
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(output).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)
}
