//! A native file as a tree that knows where in the original each value comes from, and what was said beside it.
//!
//! Owns the tree and its two forms: values for the native schema, and what `import` writes. Refuses to know any key.
//! Cannot fail.

use std::collections::BTreeSet;
use std::ops::Range;

use config::{Map, Value, ValueKind};

use super::parse::Statement;
use crate::config::native::located;

/// A value of the native file.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Text(String),
    Whole(u64),
    Flag(bool),
    List(Vec<Node>),
    Table(Table),
    /// An array of tables, each with a header of its own.
    Tables(Vec<Table>),
}

/// A key and its value.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: &'static str,
    pub(super) node: Node,
    at: (Range<usize>, Range<usize>),
    /// Comments that stand before it.
    pub(super) comments: Vec<Range<usize>>,
    /// What was decided.
    pub(super) notes: Vec<String>,
}

/// Keys in the order in which they are written.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    pub(super) entries: Vec<Entry>,
    at: Range<usize>,
    /// Comments and notes that belong to no key.
    pub(super) comments: Vec<Range<usize>>,
    pub(super) notes: Vec<String>,
    attached: BTreeSet<usize>,
}

impl Table {
    /// An empty table that stands for this part of the text.
    pub(super) fn at(at: Range<usize>) -> Self {
        Self { at, ..Self::default() }
    }

    /// An empty table to which the comments of these statements do not belong.
    pub(super) fn under<'a>(at: Range<usize>, foreign: impl Iterator<Item = &'a Statement>) -> Self {
        Self { at, attached: foreign.map(|statement| statement.key.start).collect(), ..Self::default() }
    }

    /// Adds a key that a statement says, or nobody.
    pub(super) fn put_found(&mut self, source: Option<&Statement>, key: &'static str, node: Node) {
        match source {
            Some(source) => self.put(source, key, node),
            None => self.put_default(key, node),
        }
    }

    /// Adds a key that `source` says; a statement brings its comments once.
    pub(super) fn put(&mut self, source: &Statement, key: &'static str, node: Node) {
        let value = source.value.clone();
        self.adopt(&node);
        let comments = self.comments_of(source);
        self.entries.push(Entry { key, node, at: (source.key.clone(), value), comments, notes: Vec::new() });
    }

    /// Adds a key that nobody says: a default of ldirectord's that is none here.
    pub(super) fn put_default(&mut self, key: &'static str, node: Node) {
        self.adopt(&node);
        let at = (self.at.clone(), self.at.clone());
        self.entries.push(Entry { key, node, at, comments: Vec::new(), notes: Vec::new() });
    }

    /// What is attached below is attached.
    fn adopt(&mut self, node: &Node) {
        if let Node::Table(table) = node {
            self.attached.extend(&table.attached);
        }
    }

    /// Says what was decided about the key that was added last, or about the table where it has none.
    pub(super) fn note(&mut self, note: impl Into<String>) {
        match self.entries.last_mut() {
            Some(entry) => entry.notes.push(note.into()),
            None => self.notes.push(note.into()),
        }
    }

    /// The comments of a statement, the first time that they are asked for.
    fn comments_of(&mut self, source: &Statement) -> Vec<Range<usize>> {
        if self.attached.insert(source.key.start) { source.comments.clone() } else { Vec::new() }
    }

    /// Keeps the comments of each statement that said nothing in native words.
    pub(super) fn keep_comments<'a>(&mut self, sources: impl Iterator<Item = &'a Statement>) {
        for source in sources {
            let comments = self.comments_of(source);
            self.comments.extend(comments);
        }
    }

    /// The table for the native schema.
    pub(super) fn values(&self) -> Value {
        let entry = |entry: &Entry| (entry.key.to_owned(), entry.node.value(&entry.at));
        let map: Map<String, Value> = self.entries.iter().map(entry).collect();
        located((&self.at, &self.at), ValueKind::Table(map))
    }
}

impl Node {
    /// Text.
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// A time in seconds, as the native file writes it.
    pub(super) fn seconds(seconds: u64) -> Self {
        Self::Text(format!("{seconds}s"))
    }

    fn value(&self, at: &(Range<usize>, Range<usize>)) -> Value {
        let kind = match self {
            Self::Text(text) => ValueKind::String(text.clone()),
            Self::Whole(number) => ValueKind::I128(i128::from(*number)),
            Self::Flag(flag) => ValueKind::Boolean(*flag),
            Self::List(items) => ValueKind::Array(items.iter().map(|item| item.value(at)).collect()),
            Self::Table(table) => return table.values(),
            Self::Tables(tables) => ValueKind::Array(tables.iter().map(Table::values).collect()),
        };
        located((&at.0, &at.1), kind)
    }
}
