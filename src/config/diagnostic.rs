//! Problems of a configuration and how a person sees them.
//!
//! Owns [`Diagnostic`], its [`Place`], and the compiler-style report made of them. Refuses to know what any key
//! means and where the text came from. Never fails: whatever the text holds, the report is printable.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::ops::Range;

/// Problems shown in full; a file with more of them has one cause.
const MOST_SHOWN: usize = 100;
/// Columns of a source line that are shown around the caret.
const WIDTH: usize = 100;

/// One problem of a configuration, where it is and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Where; `None` for a problem of the whole file.
    pub place: Option<Place>,
    /// What is wrong, with the value, and what would be right: one sentence, no final full stop. An example
    /// may follow on lines of its own.
    pub message: String,
}

/// A place in a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A byte range of the file's text.
    Text(Range<usize>),
    /// An environment variable, by its name.
    Environment(String),
}

/// Where the lines of a text begin.
#[derive(Debug)]
pub struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    /// Finds the line starts once, so that each lookup is a binary search.
    #[must_use]
    pub fn new(text: &'a str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, starts }
    }

    /// Line and column of a byte offset, both from 1, columns in characters; past the end is the end.
    #[must_use]
    pub fn position(&self, offset: usize) -> (usize, usize) {
        let offset = self.text.floor_char_boundary(offset);
        let line = self.starts.partition_point(|start| *start <= offset);
        let before = self.starts.get(line.saturating_sub(1)).and_then(|start| self.text.get(*start..offset));
        (line, before.map_or(0, |before| before.chars().count()) + 1)
    }

    /// The byte range of a line counted from 1, its end of line excluded.
    #[must_use]
    pub fn range(&self, line: usize) -> Range<usize> {
        let start = self.starts.get(line.saturating_sub(1)).copied().unwrap_or(self.text.len());
        let rest = self.text.get(start..).unwrap_or("");
        let length = rest.find('\n').unwrap_or(rest.len());
        let text = rest.get(..length).unwrap_or("");
        start..start + text.strip_suffix('\r').unwrap_or(text).len()
    }
}

/// The report: for each problem its place and message, the source line, and a caret line below what is meant.
///
/// `path` is what the person calls the file; `text` is what the places count in.
#[must_use]
pub fn render(path: &str, text: &str, diagnostics: &[Diagnostic]) -> String {
    let lines = Lines::new(text);
    let path = printable(path);
    let mut report = String::new();
    for Diagnostic { place, message } in diagnostics.iter().take(MOST_SHOWN) {
        let message = shortened(message).lines().map(printable).collect::<Vec<_>>().join("\n");
        // Writing to a String cannot fail.
        let _ = match place {
            None => writeln!(report, "{path}: error: {message}"),
            Some(Place::Environment(name)) => writeln!(report, "{}: error: {message}", printable(name)),
            Some(Place::Text(span)) => {
                let (line, column) = lines.position(span.start);
                let range = lines.range(line);
                let source = text.get(range.clone()).unwrap_or("");
                let marked = text.get(span.start..span.end.min(range.end)).map_or(0, |m| m.chars().count());
                let (shown, before, carets) = excerpt(source, column - 1, marked);
                writeln!(report, "{path}:{line}:{column}: error: {message}\n  {shown}")
                    .and_then(|()| writeln!(report, "  {}{}", " ".repeat(before), "^".repeat(carets)))
            }
        };
    }
    if let Some(more @ 1..) = diagnostics.len().checked_sub(MOST_SHOWN) {
        let _ = writeln!(report, "{path}: error: and {more} more problems");
    }
    report
}

/// A message without the middle of what it shows, where that is longer than anybody reads.
fn shortened(message: &str) -> Cow<'_, str> {
    const LONGEST: usize = 2000;
    const KEPT: usize = 500;
    if message.len() <= LONGEST {
        return message.into();
    }
    let end = message.ceil_char_boundary(message.len() - KEPT);
    let (start, end) = (message.get(..message.floor_char_boundary(KEPT)), message.get(end..));
    format!("{}…{}", start.unwrap_or(""), end.unwrap_or("")).into()
}

/// What of a line is shown, how many columns stand before the carets, and how many carets there are.
fn excerpt(source: &str, column: usize, marked: usize) -> (String, usize, usize) {
    let skipped = if column + marked.min(WIDTH / 2) < WIDTH { 0 } else { column.saturating_sub(WIDTH / 2) };
    let mut shown = String::from(if skipped > 0 { "…" } else { "" });
    let (mut before, mut carets, mut width) = (shown.chars().count(), 0, 0);
    for (index, c) in source.chars().enumerate().skip(skipped) {
        if width >= WIDTH {
            shown.push('…');
            break;
        }
        let length = shown.len();
        push_printable(&mut shown, c);
        let added = shown.get(length..).map_or(0, |added| added.chars().count());
        width += added;
        if index < column {
            before += added;
        } else if index < column + marked {
            carets += added;
        }
    }
    (shown, before, carets.max(1))
}

/// `text` with everything escaped that could move a cursor, colour a terminal or turn the writing direction.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    text.chars().for_each(|c| push_printable(&mut out, c));
    out
}

fn push_printable(out: &mut String, c: char) {
    match c {
        '\t' => out.push(' '),
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' => {
            out.extend(c.escape_unicode());
        }
        c if c.is_control() => out.extend(c.escape_default()),
        c => out.push(c),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_message_keeps_its_ends() {
        let long = format!("virtual: \"{}\" has no port", "ä".repeat(100_000));
        let message = Diagnostic { place: None, message: long };
        let report = render("f", "", &[message]);
        assert!(
            report.starts_with("f: error: virtual: \"ää") && report.ends_with("ä\" has no port\n"),
            "{report}"
        );
        assert!(report.len() < 1100, "{}", report.len());
    }

    fn at(span: Range<usize>, message: &str) -> Diagnostic {
        Diagnostic { place: Some(Place::Text(span)), message: message.into() }
    }

    #[test]
    fn a_report_shows_the_line_and_underlines_the_value() {
        let text = "# farm\r\n\tweight = 70000\r\n";
        let problem = at(18..23, "weight: 70000 is out of range");
        assert_eq!(
            render("a.toml", text, &[problem]),
            "a.toml:2:11: error: weight: 70000 is out of range\n   weight = 70000\n            ^^^^^\n"
        );
    }

    #[test]
    fn a_problem_of_the_file_or_of_the_environment_has_no_line() {
        let problems = [
            Diagnostic { place: None, message: "no virtual".into() },
            Diagnostic {
                place: Some(Place::Environment("SMTP_DIRECTOR__LOG".into())),
                message: "log: x".into(),
            },
        ];
        let want = "a.toml: error: no virtual\nSMTP_DIRECTOR__LOG: error: log: x\n";
        assert_eq!(render("a.toml", "", &problems), want);
    }

    #[test]
    fn a_long_line_is_cut_around_the_caret() {
        let text = format!("{}BAD{}", "a".repeat(500), "b".repeat(500));
        let report = render("f", &text, &[at(500..503, "m")]);
        let [head, line, carets] = report.lines().collect::<Vec<_>>()[..] else { panic!("{report}") };
        assert_eq!(head, "f:1:501: error: m");
        assert!(line.starts_with("  …") && line.ends_with('…') && line.chars().count() < 110, "{line}");
        let before = line.chars().position(|c| c == 'B').unwrap();
        assert_eq!(carets, format!("{}^^^", " ".repeat(before)));
    }

    #[test]
    fn nothing_in_a_file_can_command_the_terminal() {
        let text = "a = \"\u{1b}[31m\u{202e}\" x";
        let report = render("p\u{7}", text, &[at(13..14, "\u{1b}]0;title")]);
        assert!(report.chars().all(|c| c == '\n' || !c.is_control()), "{report:?}");
        assert!(!report.contains('\u{202e}'));
        assert!(report.contains("\\u{1b}[31m"), "{report}");
    }

    #[test]
    fn a_hundred_problems_are_enough() {
        let many = vec![at(0..1, "m"); 103];
        let report = render("f", "a", &many);
        assert_eq!(report.lines().count(), 301);
        assert!(report.ends_with("f: error: and 3 more problems\n"));
        assert_eq!(render("f", "a", &many[..100]).lines().count(), 300);
    }

    proptest! {
        #[test]
        fn any_place_in_any_text_can_be_shown(text in "\\PC{0,40}\n?\\PC{0,40}", a in 0usize..300, n in 0usize..300) {
            let report = render("f", &text, &[at(a..a + n, "m")]);
            prop_assert_eq!(report.lines().count(), 3);
        }

        #[test]
        fn a_position_leads_back_to_its_offset(text in "[a-zé\n]{0,60}", pick in 0usize..60) {
            let offset = text.floor_char_boundary(pick);
            let (line, column) = Lines::new(&text).position(offset);
            let start = Lines::new(&text).range(line).start;
            let back: usize = text[start..].chars().take(column - 1).map(char::len_utf8).sum();
            prop_assert_eq!(start + back, offset);
        }
    }
}
