//! One table of the file, read key by key: what is there, what is wrong with it, what nobody knows.
//!
//! Owns the collecting of problems. Refuses to know which values make sense together. Never fails: a wrong value is a diagnostic and [`Setting::Wrong`], on which no rule is built.

use std::cell::RefCell;

use config::{Map, Value, ValueKind};

use super::source;
use super::vocabulary::{Advice, Scope, quoted, unknown};
use crate::config::diagnostic::{Diagnostic, Lines, Place, printable};

/// The text and what is wrong with it so far.
pub(super) struct Report<'a> {
    text: &'a str,
    lines: Lines<'a>,
    complete: bool,
    problems: RefCell<Vec<Diagnostic>>,
}

impl<'a> Report<'a> {
    /// `complete` is false when parts of the text could not be read.
    pub(super) fn new(text: &'a str, problems: Vec<Diagnostic>, complete: bool) -> Self {
        Self { text, lines: Lines::new(text), complete, problems: RefCell::new(problems) }
    }

    /// A problem that is one whatever the rest of the file says.
    pub(super) fn wrong(&self, place: &Place, message: String) {
        self.problems.borrow_mut().push(Diagnostic { place: Some(place.clone()), message });
    }

    /// Whether guessing what was meant still helps: it is slow, and a text with that many problems is something else.
    fn advice(&self) -> Advice {
        const MOST: usize = 1000;
        if self.problems.borrow().len() < MOST { Advice::Guess } else { Advice::None }
    }

    /// A problem of several keys, or of one that is not there. While the text has syntax errors nothing is said
    /// of these: what is missed may stand in a line that cannot be read.
    pub(super) fn rule(&self, place: &Place, message: String) {
        if self.complete {
            self.wrong(place, message);
        }
    }

    /// Like [`Report::rule`], of the whole file.
    pub(super) fn rule_of_file(&self, message: String) {
        if self.complete {
            self.problems.borrow_mut().push(Diagnostic { place: None, message });
        }
    }

    /// `line 7`, or the variable.
    pub(super) fn name_of(&self, place: &Place) -> String {
        match place {
            Place::Text(span) => format!("line {}", self.lines.position(span.start).0),
            Place::Environment(name) => name.clone(),
        }
    }

    /// Everything found, in file order, each once; the whole file first, the environment last.
    pub(super) fn into_problems(self) -> Vec<Diagnostic> {
        let mut problems = self.problems.into_inner();
        problems.sort_by(|a, b| order(a).cmp(&order(b)).then_with(|| a.message.cmp(&b.message)));
        problems.dedup();
        problems
    }
}

fn order(problem: &Diagnostic) -> (u8, usize, &str) {
    match &problem.place {
        None => (0, 0, ""),
        Some(Place::Text(span)) => (1, span.start, ""),
        Some(Place::Environment(name)) => (2, 0, name),
    }
}

/// What a key says.
#[derive(Clone, Debug, Default)]
pub(super) enum Setting<T> {
    /// Nothing: a default holds.
    #[default]
    Absent,
    /// Something that was reported; rules that need it keep silent.
    Wrong,
    /// This, there.
    Given(T, Place),
}

impl<T: Clone> Setting<T> {
    /// The value, or its default, or `None` when it is wrong.
    pub(super) fn known_or(&self, default: T) -> Option<T> {
        match self {
            Self::Absent => Some(default),
            Self::Wrong => None,
            Self::Given(value, _) => Some(value.clone()),
        }
    }

    /// A value to go on with. Where it was wrong the result is never used.
    pub(super) fn or(&self, default: T) -> T {
        self.known_or(default.clone()).unwrap_or(default)
    }

    pub(super) fn given(&self) -> Option<(&T, &Place)> {
        match self {
            Self::Given(value, place) => Some((value, place)),
            Self::Absent | Self::Wrong => None,
        }
    }

    /// This where it says something, `base` where not.
    pub(super) fn over(&self, base: &Self) -> Self {
        match self {
            Self::Absent => base.clone(),
            Self::Wrong | Self::Given(..) => self.clone(),
        }
    }

    pub(super) fn place(&self) -> Option<&Place> {
        self.given().map(|(_, place)| place)
    }

    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

/// A value and its place.
#[derive(Clone)]
pub(super) struct Raw<'a> {
    pub(super) kind: &'a ValueKind,
    pub(super) place: Place,
    /// As it is written in the file.
    written: &'a str,
}

impl<'a> Raw<'a> {
    fn new(report: &Report<'a>, value: &'a Value, name: &str) -> Self {
        let (_, place) = source::places(value, name);
        let written = match &place {
            Place::Text(span) => report.text.get(span.clone()).unwrap_or(""),
            Place::Environment(_) => "",
        };
        Self { kind: &value.kind, place, written }
    }

    /// The value as a message shows it: as written, on one line, and not more than a line of it.
    pub(super) fn shown(&self) -> String {
        const MOST: usize = 60;
        let written = match self.kind {
            ValueKind::Table(_) | ValueKind::Array(_) => "this".to_string(),
            ValueKind::String(text) if self.written.is_empty() || self.written.contains('\n') => {
                format!("{text:?}")
            }
            _ => self.written.to_string(),
        };
        match written.char_indices().nth(MOST) {
            Some((end, _)) => format!("{}…", written.get(..end).unwrap_or("")),
            None => written,
        }
    }

    /// `5 is a number; {want}`.
    pub(super) fn is_not(&self, want: &str) -> String {
        let kind = match self.kind {
            ValueKind::Boolean(_) => "a boolean",
            ValueKind::String(_) => "a string",
            ValueKind::Float(_) => "a fraction",
            ValueKind::Table(_) => "a table",
            ValueKind::Array(_) => "a list",
            ValueKind::Nil => "a date",
            _ => "a number",
        };
        format!("{} is {kind}; {want}", self.shown())
    }
}

/// One table of the file.
pub(super) struct Fields<'a> {
    report: &'a Report<'a>,
    scope: &'static Scope,
    values: Option<&'a Map<String, Value>>,
    /// Its header, or the braces of an inline table.
    pub(super) place: Place,
}

impl<'a> Fields<'a> {
    /// A table of the kind `scope`; reports every key that it cannot hold.
    pub(super) fn open(report: &'a Report<'a>, scope: &'static Scope, value: &'a Value) -> Self {
        let (_, place) = source::places(value, "");
        let values = match &value.kind {
            ValueKind::Table(values) => Some(values),
            _ => None,
        };
        let mut strangers: Vec<_> =
            values.into_iter().flatten().filter(|(key, _)| !scope.keys.contains(&key.as_str())).collect();
        // The map has no order of its own, and from some number of problems on it matters which comes first.
        strangers.sort_by_key(|(key, _)| *key);
        for (key, value) in strangers {
            let (place, _) = source::places(value, key);
            report.wrong(&place, unknown(key, scope, report.advice()));
        }
        Self { report, scope, values, place }
    }

    /// The value of a key, not yet looked at.
    pub(super) fn raw(&self, key: &'static str) -> Option<Raw<'a>> {
        Some(Raw::new(self.report, self.values?.get(key)?, key))
    }

    /// Reads a key; what `reader` says against the value is reported with the name of the key before it.
    pub(super) fn read<T>(
        &self,
        key: &'static str,
        reader: impl FnOnce(&Raw<'a>) -> Result<T, String>,
    ) -> Setting<T> {
        let Some(raw) = self.raw(key) else { return Setting::Absent };
        match reader(&raw) {
            Ok(value) => Setting::Given(value, raw.place),
            Err(message) => {
                self.report.wrong(&raw.place, format!("{key}: {message}"));
                Setting::Wrong
            }
        }
    }

    /// The table of a key. Another kind of value is reported and `None`.
    pub(super) fn table(&self, key: &'static str, scope: &'static Scope) -> Option<Self> {
        let value = self.values?.get(key)?;
        if matches!(value.kind, ValueKind::Table(_)) {
            return Some(Self::open(self.report, scope, value));
        }
        let raw = Raw::new(self.report, value, key);
        let is_not = raw.is_not(&format!("a table of {}", quoted(scope.keys)));
        self.report.wrong(&raw.place, format!("{key}: {is_not}"));
        None
    }

    /// The entries of a table whose keys are data: each key read by `name`, its value by `reader`.
    pub(super) fn rows<K, V>(
        &self,
        key: &'static str,
        name: impl Fn(&str) -> Result<K, String>,
        reader: impl Fn(&Raw<'a>) -> Result<V, String>,
    ) -> Vec<(K, V)> {
        let Some(value) = self.values.and_then(|values| values.get(key)) else { return Vec::new() };
        let ValueKind::Table(entries) = &value.kind else {
            let raw = Raw::new(self.report, value, key);
            self.report.wrong(&raw.place, format!("{key}: {}", raw.is_not("a table")));
            return Vec::new();
        };
        let mut entries: Vec<_> = entries.iter().collect();
        entries.sort_by_key(|(name, _)| *name);
        let mut rows = Vec::new();
        for (entry, value) in entries {
            let raw = Raw::new(self.report, value, entry);
            match (name(entry), reader(&raw)) {
                (Ok(name), Ok(value)) => rows.push((name, value)),
                (Err(message), _) => {
                    let (place, _) = source::places(value, entry);
                    self.report.wrong(&place, format!("{key}: {}", printable(&message)));
                }
                (_, Err(message)) => self.report.wrong(&raw.place, format!("{key}: {message}")),
            }
        }
        rows
    }

    /// The tables of an array of tables. Anything else is reported.
    pub(super) fn tables(&self, key: &'static str, scope: &'static Scope) -> Vec<Self> {
        let Some(value) = self.values.and_then(|values| values.get(key)) else { return Vec::new() };
        let title = scope.title;
        let items = match &value.kind {
            ValueKind::Array(items) => items.as_slice(),
            ValueKind::Table(_) => {
                let (_, place) = source::places(value, key);
                self.report
                    .wrong(&place, format!("{key}: there can be many; write {title} with double brackets"));
                std::slice::from_ref(value)
            }
            _ => {
                let raw = Raw::new(self.report, value, key);
                self.report.wrong(&raw.place, format!("{key}: {}", raw.is_not(&format!("write {title}"))));
                &[]
            }
        };
        let mut tables = Vec::new();
        for item in items {
            if matches!(item.kind, ValueKind::Table(_)) {
                tables.push(Self::open(self.report, scope, item));
            } else {
                let raw = Raw::new(self.report, item, key);
                self.report.wrong(&raw.place, format!("{key}: {}", raw.is_not(&format!("write {title}"))));
            }
        }
        tables
    }

    /// The elements of a list, each read by `reader`.
    pub(super) fn list<T>(
        &self,
        key: &'static str,
        reader: impl Fn(&Raw<'a>) -> Result<T, String>,
    ) -> Setting<Vec<T>> {
        let Some(raw) = self.raw(key) else { return Setting::Absent };
        let ValueKind::Array(items) = raw.kind else {
            self.report.wrong(&raw.place, format!("{key}: {}", raw.is_not("a list such as [\"fallback\"]")));
            return Setting::Wrong;
        };
        let mut good = Vec::new();
        for item in items {
            let item = Raw::new(self.report, item, key);
            match reader(&item) {
                Ok(value) => good.push(value),
                Err(message) => self.report.wrong(&item.place, format!("{key}: {message}")),
            }
        }
        if good.len() == items.len() { Setting::Given(good, raw.place) } else { Setting::Wrong }
    }

    /// Whether the key is there, whatever it says.
    pub(super) fn has(&self, key: &'static str) -> bool {
        self.values.is_some_and(|values| values.contains_key(key))
    }

    /// Reports a problem of this table as a whole.
    pub(super) fn rule(&self, message: String) {
        self.report.rule(&self.place, message);
    }

    /// Reports each of `keys` that is given here, at the key.
    pub(super) fn refuse(&self, keys: &[&'static str], reason: &str) {
        for key in keys {
            if let Some(value) = self.values.and_then(|values| values.get(*key)) {
                let (place, _) = source::places(value, key);
                self.report.rule(&place, format!("{key}: {reason}"));
            }
        }
    }

    /// Reports a value that is fine by itself, at the value.
    pub(super) fn refuse_value(&self, key: &'static str, message: &str) {
        if let Some(raw) = self.raw(key) {
            self.report.rule(&raw.place, format!("{key}: {} {message}", raw.shown()));
        }
    }

    /// Every key of this kind of table.
    pub(super) fn keys(&self) -> &'static [&'static str] {
        self.scope.keys
    }
}
