//! A native tree as the text of a native file.
//!
//! Owns its layout: headers, inline tables, comments, notes. Refuses to know any key. Cannot fail.

use std::fmt::Write as _;
use std::ops::Range;

use super::parse::File;
use super::tree::{Entry, Node, Table};

/// What every file of ours begins with.
const OPENING: &str = "# Written by smtp-director import. Comments of the original stand where they stood; what begins with \"#:\"\n\
    # says what was decided where the two differ.\n\n";

/// The text that means what `root` does.
pub(super) fn write(file: &File<'_>, root: &Table) -> String {
    let mut out = Writer { file, text: OPENING.to_owned() };
    out.table("", root);
    out.comments(&file.rest);
    out.text
}

struct Writer<'a> {
    file: &'a File<'a>,
    text: String,
}

impl Writer<'_> {
    /// What stands below a header: its own keys first, as TOML wants it, then the tables with headers of their own.
    fn table(&mut self, path: &str, table: &Table) {
        self.comments(&table.comments);
        self.notes(&table.notes);
        // A table of a table that has a header is written in one line.
        let has_header = |entry: &&Entry| match &entry.node {
            Node::Tables(_) => true,
            Node::Table(_) => matches!(entry.key, "check" | "alert") && !path.ends_with("real"),
            _ => false,
        };
        for entry in table.entries.iter().filter(|entry| !has_header(entry)) {
            self.entry(entry);
        }
        for entry in table.entries.iter().filter(has_header) {
            let path = if path.is_empty() { entry.key.to_owned() } else { format!("{path}.{}", entry.key) };
            match &entry.node {
                Node::Tables(tables) => {
                    for table in tables {
                        let _ = writeln!(self.text, "\n[[{path}]]");
                        self.table(&path, table);
                    }
                }
                Node::Table(table) => {
                    let _ = writeln!(self.text, "\n[{path}]");
                    self.comments(&entry.comments);
                    self.notes(&entry.notes);
                    self.table(&path, table);
                }
                _ => {}
            }
        }
    }

    fn entry(&mut self, entry: &Entry) {
        self.comments_below(entry);
        let mut value = String::new();
        inline(&entry.node, &mut value);
        let _ = writeln!(self.text, "{} = {value}", entry.key);
    }

    /// The comments and notes of an entry, and of all that its line holds.
    fn comments_below(&mut self, entry: &Entry) {
        self.comments(&entry.comments);
        self.notes(&entry.notes);
        if let Node::Table(table) = &entry.node {
            self.comments(&table.comments);
            self.notes(&table.notes);
            for entry in &table.entries {
                self.comments_below(entry);
            }
        }
    }

    fn comments(&mut self, comments: &[Range<usize>]) {
        for comment in comments {
            // TOML has no control characters in comments but the tab.
            let text = self.file.text.get(comment.clone()).unwrap_or("").trim_end();
            let text: String = text.chars().filter(|c| *c == '\t' || !c.is_control()).collect();
            let _ = writeln!(self.text, "{text}");
        }
    }

    fn notes(&mut self, notes: &[String]) {
        for note in notes {
            let note: String = note.chars().filter(|c| !c.is_control()).collect();
            let _ = writeln!(self.text, "#: {note}");
        }
    }
}

fn inline(node: &Node, out: &mut String) {
    match node {
        Node::Text(text) => quote(text, out),
        Node::Whole(number) => out.push_str(&number.to_string()),
        Node::Flag(flag) => out.push_str(if *flag { "true" } else { "false" }),
        Node::List(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                inline(item, out);
            }
            out.push(']');
        }
        Node::Table(table) => {
            out.push_str("{ ");
            for (index, entry) in table.entries.iter().enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                out.push_str(entry.key);
                out.push_str(" = ");
                inline(&entry.node, out);
            }
            out.push_str(" }");
        }
        // They have headers.
        Node::Tables(_) => {}
    }
}

/// A basic string of TOML.
fn quote(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
