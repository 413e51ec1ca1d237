//! EDGE: messages from files: eml, mbox, maildir.
//!
//! Owns the reading, the caps, and how a file becomes what can be sent. Fails with a text that names the file.

use crate::mail::Stored;

/// Reads a corpus.
///
/// # Errors
/// What is wrong.
pub fn read(_: &str) -> Result<Vec<Stored>, String> {
    Err("not yet".to_owned())
}
