//! `ldirectord.cf`: its text to the same tree that a native file is read to, and from there to a `Config`.
//!
//! Owns the order of the work and the door to it. Each directive is a row of `directive`; `parse` finds statements,
//! `lower` says them in native words, `import` writes those down. Refuses to know files and resolvers: names are asked of
//! [`Names`]. Fails with every problem at once, each at its place in the text.
//!
//! A file becomes a configuration through the native schema and in no other way. So whatever it can say has a native
//! form, and what `import` writes means the same.

mod address;
pub mod directive;
mod globals;
mod import;
mod lower;
mod parse;
mod reals;
mod said;
mod server;
mod service;
#[cfg(test)]
mod tests;
mod texts;
mod tree;
mod virtuals;

use std::net::IpAddr;

use super::Config;
use super::diagnostic::Diagnostic;
use super::native;
use crate::model::{Family, Protocol};

/// Who knows names: the machine, or a test.
pub trait Names {
    /// The addresses of a host, of that family; none where it has none.
    fn host(&self, name: &str, family: Family) -> Vec<IpAddr>;
    /// The port of a service, with that protocol or with any.
    fn port(&self, name: &str, protocol: Option<Protocol>) -> Option<u16>;
}

/// Reads a configuration from the text of an `ldirectord.cf`, with `variables` of the environment over it.
///
/// `host_name` is what checks say in EHLO.
///
/// # Errors
/// All problems, at least one, in the order of the text, those of the environment last.
pub fn lower(
    text: &str,
    variables: &[(String, String)],
    host_name: &str,
    names: &dyn Names,
) -> Result<Config, Vec<Diagnostic>> {
    let (file, problems) = parse::parse(text);
    let (root, problems) = lower::lower(&file, names, problems);
    native::lower_tree((text, root.values()), problems, variables, host_name)
}

/// The native file that means the same: its text, which holds every comment of the original and a note wherever the
/// meaning was decided.
///
/// # Errors
/// All problems, at least one, in the order of the text.
pub fn import(text: &str, host_name: &str, names: &dyn Names) -> Result<String, Vec<Diagnostic>> {
    let (file, problems) = parse::parse(text);
    let (root, problems) = lower::lower(&file, names, problems);
    native::lower_tree((text, root.values()), problems, &[], host_name)?;
    Ok(import::write(&file, &root))
}

/// Whether a text is an `ldirectord.cf`: a line begins with `virtual=` or `virtual6=`, which no native file has.
#[must_use]
pub fn is_ldirectord(text: &str) -> bool {
    text.lines().any(|line| {
        let Some(rest) = line.strip_prefix("virtual") else { return false };
        let (rest, is_v6) = rest.strip_prefix('6').map_or((rest, false), |rest| (rest, true));
        let value = rest.trim_start().strip_prefix('=').map(str::trim_start);
        value.is_some_and(|value| is_v6 || !value.starts_with('['))
    })
}
