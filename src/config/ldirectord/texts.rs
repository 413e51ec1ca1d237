//! Texts that Perl and its libraries read or write otherwise than we do: paths of URLs, regular expressions, names of servers.
//!
//! Owns how each is said so that it means here what it meant there. Refuses to know where they stand. Cannot fail.

/// A path as it goes over the wire: what may not stand in a URL is sent by its number.
pub(super) fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        match byte {
            b'!'..=b'~' if !b"\"<>\\^`{|}".contains(&byte) => out.push(char::from(byte)),
            byte => out += &format!("%{byte:02X}"),
        }
        out
    })
}

/// A regular expression, whose `$` and `\Z` stand before the last line end, too.
pub(super) fn pattern(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut in_class = false;
    let mut rest = text.chars();
    while let Some(one) = rest.next() {
        match one {
            '\\' => match rest.next() {
                Some('Z') if !in_class => out += r"\n?\z",
                next => {
                    out.push(one);
                    out.extend(next);
                }
            },
            '$' if !in_class => out += r"\n?$",
            _ => {
                in_class = one == '[' || in_class && one != ']';
                out.push(one);
            }
        }
    }
    out
}

/// A text of parts with colons between, as a monitor file has it: blanks between, and none of the backslashes.
pub(super) fn parted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut was_colon = false;
    for one in text.chars().filter(|one| *one != '\\') {
        match one {
            ':' if was_colon => {}
            ':' => out.push(' '),
            _ => out.push(one),
        }
        was_colon = one == ':';
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_not_stand_in_a_url_is_sent_by_its_number() {
        for (text, sent) in [
            ("index.html?a=b&c=%20#x", "index.html?a=b&c=%20#x"),
            ("say hello|there", "say%20hello%7Cthere"),
            ("<a>\"\\", "%3Ca%3E%22%5C"),
            ("ä", "%C3%A4"),
        ] {
            assert_eq!(escaped(text), sent);
        }
    }

    #[test]
    fn the_end_of_a_pattern_is_before_the_last_line_end_too() {
        for (text, said) in [
            ("^OK$", r"^OK\n?$"),
            (r"OK\Z", r"OK\n?\z"),
            (r"costs \$5", r"costs \$5"),
            (r"[$\Z]", r"[$\Z]"),
            (r"(a$|[\]$]b)$", r"(a\n?$|[\]$]b)\n?$"),
            (r"\", r"\"),
        ] {
            assert_eq!(pattern(text), said);
        }
    }

    #[test]
    fn parts_have_one_blank_between() {
        for (text, said) in [
            ("negotiate:http:tcp", "negotiate http tcp"),
            (r"80::25:1:gate:/a\b:", "80 25 1 gate /ab "),
            ("80:::1:masq:/ a: b:c", "80 1 masq / a  b c"),
        ] {
            assert_eq!(parted(text), said);
        }
    }
}
