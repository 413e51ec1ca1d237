//! What is said: the directives of one virtual and those for all, and what is wrong with their values.
//!
//! Owns the look for the nearest statement of a name, and the reading of numbers and of yes and no. Refuses to know what a
//! directive means. A value that is wrong is a problem at its place, and has a default from then on.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;

use super::directive::Shape;
use super::parse::{File, Statement};
use super::tree::{Node, Table};
use super::{Names, server};
use crate::config::diagnostic::{Diagnostic, Place, printable};

/// More characters of a value are not shown.
const LONGEST: usize = 200;

/// What is said for one virtual, and for all.
pub(super) struct Said<'a> {
    pub(super) file: &'a File<'a>,
    pub(super) globals: &'a BTreeMap<&'static str, &'a Statement>,
    pub(super) head: Option<&'a Statement>,
    pub(super) body: BTreeMap<&'static str, &'a Statement>,
    /// Whether the virtual is an address, and no firewall mark.
    pub(super) is_address: bool,
    pub(super) names: &'a dyn Names,
    pub(super) problems: &'a RefCell<Vec<Diagnostic>>,
}

impl<'a> Said<'a> {
    /// A directive of this virtual; the last of its name.
    pub(super) fn below(&self, name: &str) -> Option<&'a Statement> {
        self.body.get(name).copied()
    }

    /// A directive for all.
    pub(super) fn above(&self, name: &str) -> Option<&'a Statement> {
        self.globals.get(name).copied()
    }

    pub(super) fn nearest(&self, name: &str) -> Option<&'a Statement> {
        self.below(name).or(self.above(name))
    }

    /// The nearest number of that name, or the default.
    pub(super) fn near(&self, name: &str, default: u64) -> (u64, Option<&'a Statement>) {
        let from = self.nearest(name);
        (from.and_then(|statement| self.number(statement)).unwrap_or(default), from)
    }

    pub(super) fn value(&self, statement: &Statement) -> &'a str {
        self.file.text.get(statement.value.clone()).unwrap_or("")
    }

    pub(super) fn problem(&self, at: Range<usize>, message: String) {
        let problem = Diagnostic { place: Some(Place::Text(at)), message };
        self.problems.borrow_mut().push(problem);
    }

    /// `checktype: "x" {message}`.
    pub(super) fn wrong(&self, statement: &Statement, message: &str) {
        let shown = printable(&self.value(statement).chars().take(LONGEST).collect::<String>());
        self.problem(statement.value.clone(), format!("{}: \"{shown}\" {message}", statement.directive.name));
    }

    /// A problem of the virtual as a whole.
    pub(super) fn wrong_of_virtual(&self, message: &str) {
        if let Some(head) = self.head {
            self.problem(head.value.clone(), format!("virtual: {message}"));
        }
    }

    pub(super) fn wrong_inside(&self, statement: &Statement, (at, message): server::Wrong) {
        let start = statement.value.start;
        let name = statement.directive.name;
        self.problem(start + at.start..start + at.end, format!("{name}: {message}"));
    }

    /// A whole number, of seconds perhaps, and nothing else: ldirectord takes the first digits of anything.
    pub(super) fn number(&self, statement: &Statement) -> Option<u64> {
        let text = self.value(statement);
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (digits, unit) = text.split_at(end);
        let (least, seconds) = match statement.directive.shape {
            Shape::Seconds => (1, true),
            Shape::Number(least) => (u64::from(least), false),
            _ => (0, false),
        };
        let has_unit = matches!(unit.trim(), "s" | "sec" | "secs" | "second" | "seconds");
        let fits = unit.is_empty() || has_unit && (seconds || statement.directive.name == "emailalertfreq");
        let number = digits.parse::<u64>().ok().filter(|number| fits && *number >= least);
        if number.is_none() {
            let want = if seconds { "whole seconds" } else { "a whole number" };
            self.wrong(
                statement,
                &format!(
                    "is not {want} from {least}; ldirectord takes the first digits of it and skips the rest"
                ),
            );
        }
        number
    }

    /// Says what is wrong with values that nothing may ask for.
    pub(super) fn look_at(&self, statements: &[Statement]) {
        for statement in statements {
            match statement.directive.shape {
                Shape::Number(_) | Shape::Seconds => {
                    let number = self.number(statement);
                    if statement.directive.name == "checkport" && number.is_some_and(|port| port > 65_535) {
                        self.wrong(statement, "is no port; a number up to 65535");
                    }
                }
                // A bare word may stand for yes.
                Shape::YesNo if !self.value(statement).is_empty() => {
                    self.flag(statement);
                }
                _ => {}
            }
        }
    }

    pub(super) fn flag(&self, statement: &Statement) -> bool {
        match self.value(statement) {
            "yes" => true,
            "no" => false,
            _ => {
                self.wrong(statement, "is neither yes nor no");
                false
            }
        }
    }

    pub(super) fn near_flag(&self, name: &str, default: bool) -> (bool, Option<&'a Statement>) {
        let from = self.nearest(name);
        (from.map_or(default, |statement| self.flag(statement)), from)
    }

    pub(super) fn table(&self, at: Range<usize>) -> Table {
        Table::under(at, self.globals.values().copied())
    }

    /// A table of one key that nobody wrote.
    pub(super) fn table_of(&self, key: &'static str, node: Node) -> Table {
        let mut table = self.table(self.head.map_or(0..0, |head| head.value.clone()));
        table.put_default(key, node);
        table
    }
}

/// The last statement of each name: it is the one that counts.
pub(super) fn last_of(statements: &[Statement]) -> BTreeMap<&'static str, &Statement> {
    statements.iter().map(|statement| (statement.directive.name, statement)).collect()
}
