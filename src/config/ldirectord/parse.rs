//! Text to statements: lines, indentation, comments, quotes.
//!
//! Owns the grammar. Refuses to know what a directive means; the shape of its value is in its row. Never fails: what
//! cannot be read is a diagnostic, and the rest is read nevertheless.
//!
//! Where the original is stricter by accident (a blank line ends a section, a `#` in quotes cuts the line off, blanks at the end
//! of a line belong to `yes`), the text is read as it is meant; whatever the original accepts and means is read the same.

use std::ops::Range;

use super::directive::{DIRECTIVES, Directive, Fate, Scope, Shape, find};
use crate::config::diagnostic::{Diagnostic, Place, printable};

/// A file as statements.
#[derive(Debug, Default)]
pub(super) struct File<'a> {
    pub(super) text: &'a str,
    pub(super) globals: Vec<Statement>,
    pub(super) sections: Vec<Section>,
    /// Comments after the last statement.
    pub(super) rest: Vec<Range<usize>>,
}

/// A virtual and what stands below it.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) head: Statement,
    pub(super) body: Vec<Statement>,
}

/// One line that says something.
#[derive(Clone, Debug)]
pub(super) struct Statement {
    pub(super) directive: &'static Directive,
    pub(super) key: Range<usize>,
    /// The value without its quotes.
    pub(super) value: Range<usize>,
    /// Comments in the lines before it, and the one behind it.
    pub(super) comments: Vec<Range<usize>>,
}

/// Blanks of that many columns are what a directive of a virtual begins with; a tab counts as many.
const INDENT: usize = 4;

/// After so many problems nobody is told what may have been meant: it takes its time, and no report shows it.
const MOST_GUESSED: usize = 1000;

/// Reads `text`, and says what is wrong with its form.
pub(super) fn parse(text: &str) -> (File<'_>, Vec<Diagnostic>) {
    let mut parser = Parser {
        file: File { text, ..File::default() },
        problems: Vec::new(),
        comments: Vec::new(),
        in_section: false,
    };
    // Not one line of it would be: all of them would be wrong in the same way.
    if let Some(at) = text.find('\0') {
        parser.wrong(at..at + 1, "a zero byte: this is no text".to_owned());
        return (parser.file, parser.problems);
    }
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let content = line.trim_end_matches(['\n', '\r']);
        parser.line(start..start + content.len());
        start += line.len();
    }
    parser.file.rest = parser.comments;
    (parser.file, parser.problems)
}

struct Parser<'a> {
    file: File<'a>,
    problems: Vec<Diagnostic>,
    comments: Vec<Range<usize>>,
    in_section: bool,
}

impl Parser<'_> {
    fn wrong(&mut self, span: Range<usize>, message: String) {
        self.problems.push(Diagnostic { place: Some(Place::Text(span)), message });
    }

    fn text(&self, span: &Range<usize>) -> &str {
        self.file.text.get(span.clone()).unwrap_or("")
    }

    fn line(&mut self, line: Range<usize>) {
        let text = self.file.text.get(line.clone()).unwrap_or("");
        let body = text.trim_start_matches([' ', '\t']);
        let start = line.end - body.len();
        let indent: usize =
            text.bytes().take(text.len() - body.len()).map(|b| if b == b'\t' { INDENT } else { 1 }).sum();
        if body.trim().is_empty() {
            return;
        }
        if body.starts_with('#') {
            self.comments.push(start..line.end);
            return;
        }
        if indent == 0 {
            self.in_section = false;
        }
        let Some((directive, key, value)) = self.split(start..line.end, indent) else { return };
        let before = std::mem::take(&mut self.comments);
        let head = matches!(directive.name, "virtual" | "virtual6");
        // What follows a virtual that is wrong belongs to it all the same.
        self.in_section |= head && indent == 0;
        let statement = self.value(directive, key, value, indent).map(|mut statement| {
            statement.comments.splice(0..0, before);
            statement
        });
        let Some(statement) = statement else { return };
        if head {
            self.file.sections.push(Section { head: statement, body: Vec::new() });
        } else if indent == 0 {
            self.file.globals.push(statement);
        } else if let Some(section) = self.file.sections.last_mut() {
            section.body.push(statement);
        }
    }

    /// The directive of a line, its key, and all that stands behind the `=`. `None` where that is wrong.
    fn split(
        &mut self,
        line: Range<usize>,
        indent: usize,
    ) -> Option<(&'static Directive, Range<usize>, Range<usize>)> {
        let text = self.file.text.get(line.clone()).unwrap_or("");
        let (name, behind) = match text.split_once('=') {
            Some((name, _)) => (name.trim_end(), line.start + name.len() + 1..line.end),
            None => (text.split('#').next().unwrap_or("").trim_end(), line.end..line.end),
        };
        let key = line.start..line.start + name.len();
        let Some(directive) = find(name) else {
            let message = unknown(name, indent, self.problems.len() < MOST_GUESSED);
            self.wrong(key, message);
            return None;
        };
        if let Some(message) = misplaced(directive, indent, self.in_section) {
            self.wrong(key, message);
            return None;
        }
        if directive.fate == Fate::Refused {
            self.wrong(key, format!("{name}: {}", directive.rule));
            return None;
        }
        // A word that has always been accepted by itself.
        if behind.is_empty() && name != "supervised" {
            self.wrong(key, format!("{name}: has no value; write {name}=…"));
            return None;
        }
        Some((directive, key, behind))
    }

    /// Finds the value and the comment behind it.
    fn value(
        &mut self,
        directive: &'static Directive,
        key: Range<usize>,
        behind: Range<usize>,
        indent: usize,
    ) -> Option<Statement> {
        let name = directive.name;
        let text = self.file.text.get(behind.clone()).unwrap_or("");
        let body = text.trim_start();
        let start = behind.end - body.len();
        let quoted = body.starts_with('"') && matches!(directive.shape, Shape::Quoted | Shape::Either);
        let end = match directive.shape {
            _ if quoted => end_of_quoted(body),
            Shape::Server => end_outside_quotes(body),
            // At the first column a `#` may be part of a value, as the original has it.
            _ if indent == 0 => end_before_comment(body),
            _ => body.find('#').unwrap_or(body.len()),
        };
        let comments = (end < body.len()).then(|| start + end..behind.end).into_iter().collect();
        let value = body.get(..end).unwrap_or("").trim_end();
        let mut span = start..start + value.len();
        if quoted {
            let inner = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
            match inner {
                None => {
                    self.wrong(
                        span,
                        format!("{name}: the closing quote is missing, or something follows it"),
                    );
                    return None;
                }
                Some(_) => span = span.start + 1..span.end - 1,
            }
        } else if directive.shape == Shape::Quoted && !value.is_empty() {
            let shown = printable(value);
            self.wrong(span, format!("{name}: needs its quotes; write {name}=\"{shown}\""));
            return None;
        }
        if self.text(&span).is_empty() && name != "supervised" {
            let at = if span.start < behind.end { span } else { key };
            self.wrong(at, format!("{name}: has no value"));
            return None;
        }
        if directive.shape == Shape::Word && self.text(&span).contains([' ', '\t']) {
            let (first, _) = self.text(&span).split_once([' ', '\t']).unwrap_or_default();
            let junk = span.start + first.len()..span.end;
            let shown = printable(self.text(&junk).trim());
            self.wrong(
                junk,
                format!("{name}: what is \"{shown}\" for? One word is enough; ldirectord skips the rest"),
            );
            return None;
        }
        Some(Statement { directive, key, value: span, comments })
    }
}

/// Where a quoted value ends: before a `#` that follows a closing quote, or at the end. A `#` within quotes is text.
fn end_of_quoted(body: &str) -> usize {
    let closed = |at: &usize| {
        let before = body.get(..*at).unwrap_or("").trim_end();
        before.len() > 1 && before.ends_with('"')
    };
    body.match_indices('#').map(|(at, _)| at).find(closed).unwrap_or(body.len())
}

fn end_outside_quotes(body: &str) -> usize {
    let mut inside = false;
    for (at, byte) in body.bytes().enumerate() {
        match byte {
            b'"' => inside = !inside,
            b'#' if !inside => return at,
            _ => {}
        }
    }
    body.len()
}

fn end_before_comment(body: &str) -> usize {
    let mut blank = true;
    for (at, byte) in body.bytes().enumerate() {
        if byte == b'#' && blank {
            return at;
        }
        blank = byte == b' ' || byte == b'\t';
    }
    body.len()
}

/// What is wrong with where a directive stands.
fn misplaced(directive: &Directive, indent: usize, in_section: bool) -> Option<String> {
    let name = directive.name;
    match (indent, directive.scope) {
        (1..INDENT, _) => Some(format!(
            "{name}: is indented by {indent}; a directive of a virtual begins with four blanks or a tab, any other at the \
             first column"
        )),
        (0, Scope::Virtual) => {
            Some(format!("{name}: belongs to a virtual; indent it with four blanks below virtual=…"))
        }
        (INDENT.., _) if !in_section => {
            Some(format!("{name}: is indented and below no virtual; begin it at the first column"))
        }
        (INDENT.., Scope::Global) => {
            Some(format!("{name}: is for all virtuals; begin it at the first column, outside of a virtual"))
        }
        _ => None,
    }
}

/// What is said to a word that is no directive.
fn unknown(name: &str, indent: usize, guess: bool) -> String {
    const LONGEST: usize = 40;
    let shown = printable(&name.chars().take(60).collect::<String>());
    let lower = name.to_ascii_lowercase();
    let fits = |directive: &&Directive| {
        directive.fate != Fate::Refused
            && match directive.scope {
                Scope::Both => true,
                Scope::Global => indent == 0,
                Scope::Virtual => indent > 0,
            }
    };
    let meant = DIRECTIVES
        .iter()
        .filter(|directive| guess && fits(directive) && name.len() <= LONGEST)
        .map(|directive| (strsim::osa_distance(&lower, directive.name), directive.name))
        .filter(|(distance, known)| *distance <= 2 && *distance < known.len())
        .min()
        .map(|(_, known)| format!("; did you mean \"{known}\"?"));
    format!("\"{shown}\" is no directive of ldirectord.cf{}", meant.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The statements of a section, or of all.
    fn said(text: &str) -> Vec<(&'static str, String)> {
        let (file, problems) = parse(text);
        assert_eq!(problems, vec![], "{text}");
        let all = file.globals.iter().chain(
            file.sections.iter().flat_map(|section| std::iter::once(&section.head).chain(&section.body)),
        );
        all.map(|one| (one.directive.name, text[one.value.clone()].to_owned())).collect()
    }

    #[test]
    fn values_end_where_they_are_meant_to() {
        for (line, value) in [
            ("    checktype=on # always", "on"),
            ("    request=\"a#b\" # behind", "a#b"),
            ("\trequest = \"a \"b\"", "a \"b"),
            ("    real=10.0.0.1:25 gate \"a#b\", \"c\" # one", "10.0.0.1:25 gate \"a#b\", \"c\""),
            ("      quiescent=yes \t\r", "yes"),
            ("    servicename=a name # x", "a name"),
        ] {
            let text = format!("virtual=192.0.2.1:25\n{line}\n");
            assert_eq!(said(&text)[1].1, value, "{line}");
        }
        assert_eq!(said("emailalertfrom=a#b@example.com # x")[0].1, "a#b@example.com");
    }

    #[test]
    fn a_section_ends_at_the_first_column_and_only_there() {
        let text = "virtual=1\n\n  \n# a\n    real=x\n\t# b\n    checktype=on\nfork=no\nvirtual=2\n";
        let names: Vec<_> = said(text).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["fork", "virtual", "real", "checktype", "virtual"]);
    }

    #[test]
    fn what_is_wrong_with_a_line_is_said_at_its_place() {
        for (text, marked, said) in [
            ("virtual=1\n   real=x", "real", "is indented by 3"),
            ("real=x", "real", "indent it with four blanks"),
            ("    real=x", "real", "below no virtual"),
            ("virtual=1\n    fork=no", "fork", "at the first column"),
            ("quiescent", "quiescent", "has no value; write"),
            ("quiescent=", "quiescent", "has no value"),
            ("logfile=/x", "/x", "needs its quotes"),
            ("logfile=\"/x", "\"/x", "closing quote"),
            ("virtual=1\n    checktype=on now", " now", "what is \"now\" for?"),
            ("timeout=3", "timeout", "took its place"),
            ("chektimeout=3", "chektimeout", "did you mean \"checktimeout\"?"),
            ("fork=no\n\0", "\0", "a zero byte"),
        ] {
            let (_, problems) = parse(text);
            let Some(Place::Text(at)) = problems[0].place.clone() else { panic!("{text}") };
            assert_eq!(&text[at], marked, "{text}");
            assert!(problems[0].message.contains(said), "{text}: {}", problems[0].message);
        }
    }
}
