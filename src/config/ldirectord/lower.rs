//! Statements to a native tree.
//!
//! Owns the whole of it, by its parts: `globals`, `virtuals`, `reals`, and `service` for the checks. Refuses to know how a file is
//! written. Fails with problems at their places; the ranges of values are left to the native schema.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::Names;
use super::globals::lower_globals;
use super::parse::File;
use super::said::{Said, last_of};
use super::tree::{Node, Table};
use super::virtuals::{lower_virtual, read_fallback};
use crate::config::diagnostic::Diagnostic;
use crate::model::Family;

/// Says a file in native words. `problems` are those that are known already, to which more may come.
pub(super) fn lower(
    file: &File<'_>,
    names: &dyn Names,
    problems: Vec<Diagnostic>,
) -> (Table, Vec<Diagnostic>) {
    let problems = RefCell::new(problems);
    let globals = last_of(&file.globals);
    let said = Said {
        file,
        globals: &globals,
        head: None,
        body: BTreeMap::new(),
        is_address: true,
        names,
        problems: &problems,
    };
    let mut root = Table::at(0..0);
    said.look_at(&file.globals);
    lower_globals(&said, &mut root);
    let fallbacks = [Family::V4, Family::V6].map(|family| {
        let name = if family == Family::V4 { "fallback" } else { "fallback6" };
        said.above(name).and_then(|statement| read_fallback(&said, statement, (family, None)))
    });
    let virtuals: Vec<Table> =
        file.sections.iter().filter_map(|section| lower_virtual(&said, section, &fallbacks)).collect();
    root.keep_comments(file.globals.iter());
    if !virtuals.is_empty() {
        root.put_default("virtual", Node::Tables(virtuals));
    } else if problems.borrow().is_empty() {
        let message = "there is no virtual; it begins with virtual=192.0.2.25:25".to_owned();
        problems.borrow_mut().push(Diagnostic { place: None, message });
    }
    (root, problems.into_inner())
}
