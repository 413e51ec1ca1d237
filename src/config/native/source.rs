//! Text and environment as layers of one `config` tree, in which every value knows its place.
//!
//! Owns the TOML layer, the list of variables that may override it, and the code by which a value's `origin`
//! carries its place through the merge. Refuses to know what any key means. Never fails: syntax errors are diagnostics, and what of
//! the text can be read is read nevertheless.
//!
//! Hazards of the `config` crate that this file is shaped by: its merge reads each top-level key as a path (`"a.b"`
//! would become a table) and rebuilds tables without their origin, so only the few scalars that can be overridden
//! are merged key by key and the rest passes inside an array. Its environment layer lower-cases names, so only exact, listed names reach it. Its `into_*` and serde
//! doors coerce (`true` to 1, 5.9 to 6): the tree is walked by `ValueKind` instead.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use config::{Environment, Map, Source, Value, ValueKind};
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use crate::config::diagnostic::{Diagnostic, Lines, Place, printable};

/// What every variable of ours begins with.
const PREFIX: &str = "SMTP_DIRECTOR";
const SEPARATOR: &str = "__";
/// The settings that the environment may override: scalars of the top level, nothing of the farm.
const OVERRIDABLE: [&str; 7] = ["dataplane", "http", "log", "log_format", "autoreload", "on_exit", "resync"];
/// What the `config` crate writes as origin of an environment value.
const ENVIRONMENT: &str = "the environment";

/// The merged layers.
pub(super) struct Layers {
    /// The root table.
    pub(super) root: Value,
    /// Syntax errors, duplicate keys and variables that mean nothing.
    pub(super) problems: Vec<Diagnostic>,
    /// False when parts of the text could not be read, so that a missing key may be a misread one.
    pub(super) complete: bool,
}

/// Reads `text` and lays `variables` over it.
pub(super) fn merge(text: &str, variables: &[(String, String)]) -> Layers {
    let (layer, problems) = TomlLayer::parse(text);
    merge_layer(layer, problems, variables)
}

/// Lays `variables` over a tree whose values are [`located`], and of whose text `problems` are known.
pub(super) fn merge_tree(root: Value, problems: Vec<Diagnostic>, variables: &[(String, String)]) -> Layers {
    let root = match root.kind {
        ValueKind::Table(root) => root,
        _ => Map::new(),
    };
    merge_layer(TomlLayer { root }, problems, variables)
}

fn merge_layer(layer: TomlLayer, mut problems: Vec<Diagnostic>, variables: &[(String, String)]) -> Layers {
    let complete = problems.is_empty();
    let environment = Environment::with_prefix(PREFIX)
        .separator(SEPARATOR)
        .source(Some(known_variables(variables, &mut problems)));
    let merged = config::Config::builder().add_source(layer).add_source(environment).build();
    let root = match merged {
        Ok(merged) => unwrap_rest(merged.cache),
        Err(error) => {
            problems.push(Diagnostic { place: None, message: error.to_string() });
            Value::default()
        }
    };
    Layers { root, problems, complete }
}

fn known_variables(
    variables: &[(String, String)],
    problems: &mut Vec<Diagnostic>,
) -> HashMap<String, String> {
    let prefix = format!("{PREFIX}{SEPARATOR}");
    let is_ours =
        |name: &str| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(&prefix));
    let mut known = HashMap::new();
    for (name, value) in variables.iter().filter(|(name, _)| is_ours(name)) {
        if OVERRIDABLE.iter().any(|key| variable(key) == *name) {
            known.insert(name.clone(), value.clone());
        } else {
            let list = OVERRIDABLE.map(variable).join(", ");
            problems.push(Diagnostic {
                place: Some(Place::Environment(name.clone())),
                message: format!("unknown variable; the environment can set {list}"),
            });
        }
    }
    known
}

/// The variable that overrides a top-level key.
fn variable(key: &str) -> String {
    format!("{PREFIX}{SEPARATOR}{}", key.to_ascii_uppercase())
}

/// Where a value of the merged tree and its key stand. `name` is its key.
pub(super) fn places(value: &Value, name: &str) -> (Place, Place) {
    let origin = value.origin().unwrap_or("");
    if origin == ENVIRONMENT {
        let place = Place::Environment(variable(name));
        return (place.clone(), place);
    }
    let mut numbers = origin.split(' ').map(|n| n.parse().unwrap_or(0));
    let mut span = || Place::Text(numbers.next().unwrap_or(0)..numbers.next().unwrap_or(0));
    (span(), span())
}

/// A value whose key and which itself stand there in the text.
pub(in crate::config) fn located((key, value): (&Range<usize>, &Range<usize>), kind: ValueKind) -> Value {
    Value::new(Some(&origin(key, value)), kind)
}

fn origin(key: &Range<usize>, value: &Range<usize>) -> String {
    format!("{} {} {} {}", key.start, key.end, value.start, value.end)
}

/// The TOML text as the lowest layer.
#[derive(Clone, Debug)]
struct TomlLayer {
    root: Map<String, Value>,
}

/// Key of all that the environment cannot override, as the one element of an array: an array is the only thing
/// that the merge passes on as it is.
const REST: &str = "rest";

impl Source for TomlLayer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, config::ConfigError> {
        let is_scalar = |value: &Value| !matches!(value.kind, ValueKind::Table(_));
        let (mut layer, rest): (Map<_, _>, Map<_, _>) = self
            .root
            .clone()
            .into_iter()
            .partition(|(key, value)| OVERRIDABLE.contains(&key.as_str()) && is_scalar(value));
        layer.insert(REST.into(), Value::new(None, vec![rest]));
        Ok(layer)
    }
}

/// Puts what [`TomlLayer::collect`] took apart together again, what was merged over what was not.
fn unwrap_rest(merged: Value) -> Value {
    let ValueKind::Table(mut scalars) = merged.kind else { return merged };
    let mut root = match scalars.remove(REST).map(|rest| rest.kind) {
        Some(ValueKind::Array(rest)) => rest.into_iter().next().unwrap_or_default(),
        _ => Value::default(),
    };
    if let ValueKind::Table(table) = &mut root.kind {
        table.extend(scalars);
    }
    root
}

impl TomlLayer {
    fn parse(text: &str) -> (Self, Vec<Diagnostic>) {
        let mut problems: Vec<Diagnostic> = Vec::new();
        let mut readable = Cow::Borrowed(text);
        // The parser stops building at some errors. Without the lines that it cannot read it sees more of the
        // rest, and finds more that it cannot read.
        for _ in 0..MOST_ROUNDS {
            let (_, errors) = DeTable::parse_recoverable(&readable);
            let new: Vec<_> = errors.iter().map(|error| syntax_problem(text, error)).collect();
            let is_done = errors.iter().all(|error| error.message() == DUPLICATE);
            problems.extend(new);
            if is_done || problems.len() >= MOST_SYNTAX_ERRORS {
                break;
            }
            readable = Cow::Owned(without_unreadable_lines(&readable, &errors));
        }
        let (tree, _) = DeTable::parse_recoverable(&readable);
        (Self { root: table(tree.get_ref()) }, problems)
    }
}

/// How often a text with syntax errors is read again without what could not be read.
const MOST_ROUNDS: usize = 4;
const DUPLICATE: &str = "duplicate key";
/// A file with more syntax errors is not TOML at all.
const MOST_SYNTAX_ERRORS: usize = 200;

fn syntax_problem(text: &str, error: &toml::de::Error) -> Diagnostic {
    let span = error.span().unwrap_or(text.len()..text.len());
    let message = match text.get(span.clone()) {
        Some(key) if error.message() == DUPLICATE => {
            format!("{}: is set twice; once is enough", printable(key))
        }
        _ => format!("not TOML: {}", error.message()),
    };
    Diagnostic { place: Some(Place::Text(span)), message }
}

/// The text with every unreadable line blanked, offsets unchanged. With a header goes all that it heads: its keys
/// would count for the table before.
fn without_unreadable_lines(text: &str, errors: &[toml::de::Error]) -> String {
    let lines = Lines::new(text);
    let mut bad: Vec<usize> = errors
        .iter()
        .filter(|error| error.message() != DUPLICATE)
        .filter_map(toml::de::Error::span)
        .map(|span| lines.position(span.start).0)
        .collect();
    bad.sort_unstable();
    let mut blank_table = false;
    let mut readable = String::with_capacity(text.len());
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let is_bad = bad.binary_search(&(index + 1)).is_ok();
        if line.trim_start().starts_with('[') {
            blank_table = is_bad;
        }
        if is_bad || blank_table {
            readable.extend(line.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }));
        } else {
            readable.push_str(line);
        }
    }
    readable
}

fn table(table: &DeTable<'_>) -> Map<String, Value> {
    table.iter().map(|(key, item)| (key.get_ref().to_string(), value(&key.span(), item))).collect()
}

fn array(array: &DeArray<'_>) -> Vec<Value> {
    array.iter().map(|item| value(&item.span(), item)).collect()
}

fn value(key: &Range<usize>, item: &Spanned<DeValue<'_>>) -> Value {
    let kind = match item.get_ref() {
        DeValue::String(text) => ValueKind::String(text.to_string()),
        DeValue::Boolean(value) => ValueKind::Boolean(*value),
        // Beyond i128 any integer is out of every range; the message shows the text.
        DeValue::Integer(n) => {
            ValueKind::I128(i128::from_str_radix(n.as_str(), n.radix()).unwrap_or(i128::MAX))
        }
        DeValue::Float(n) => ValueKind::Float(n.as_str().parse().unwrap_or(f64::NAN)),
        // `config` has no dates and no key of ours takes one: of the wrong type, whatever the key.
        DeValue::Datetime(_) => ValueKind::Nil,
        DeValue::Array(items) => ValueKind::Array(array(items)),
        DeValue::Table(items) => ValueKind::Table(table(items)),
    };
    Value::new(Some(&origin(key, &item.span())), kind)
}
