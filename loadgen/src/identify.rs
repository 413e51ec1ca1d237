//! Which real server is this?
//!
//! Owns where its name is looked for, and what is cut out there. Refuses to know connections. Cannot fail: who cannot
//! be told is nobody.

use checks::smtp::reply::printable;
use regex::bytes::Regex;

/// Longest name that is kept, in bytes.
const MAX_NAME: usize = 80;

/// Where a server's name is.
#[derive(Clone, Debug, Default)]
pub enum Identify {
    /// The first word of the banner.
    #[default]
    Banner,
    /// The first word of the reply to EHLO.
    Ehlo,
    /// The common name of its certificate.
    Certificate,
    /// The first group, or all, of what this finds in the banner.
    BannerMatch(Regex),
    /// The same in the final reply to each message.
    ReplyMatch(Regex),
    /// This header of HTTP answers.
    Header(String),
    /// Nobody asks.
    Never,
}

impl Identify {
    /// Reads `banner`, `ehlo`, `cert`, `banner:REGEX`, `reply:REGEX`, `header:NAME`, `none`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let regex = |pattern: &str| {
            regex::bytes::RegexBuilder::new(pattern)
                .size_limit(1 << 20)
                .build()
                .map_err(|error| format!("\"{pattern}\": {error}"))
        };
        match text.split_once(':') {
            None => match text {
                "banner" => Ok(Self::Banner),
                "ehlo" => Ok(Self::Ehlo),
                "cert" => Ok(Self::Certificate),
                "none" => Ok(Self::Never),
                _ => Err(format!(
                    "\"{text}\" is none of banner, ehlo, cert, banner:REGEX, reply:REGEX, header:NAME, none"
                )),
            },
            Some(("banner", pattern)) => regex(pattern).map(Self::BannerMatch),
            Some(("reply", pattern)) => regex(pattern).map(Self::ReplyMatch),
            Some(("header", name)) if !name.is_empty() => Ok(Self::Header(name.to_owned())),
            Some(_) => Err(format!("\"{text}\" is none of banner:REGEX, reply:REGEX, header:NAME")),
        }
    }

    /// By the text of a banner, after its code.
    #[must_use]
    pub fn by_banner(&self, text: &[u8]) -> Option<String> {
        match self {
            Self::Banner => word(text),
            Self::BannerMatch(regex) => found(regex, text),
            _ => None,
        }
    }

    /// By the text of the reply to EHLO, after its code.
    #[must_use]
    pub fn by_ehlo(&self, text: &[u8]) -> Option<String> {
        if matches!(self, Self::Ehlo) { word(text) } else { None }
    }

    /// By the text of the final reply.
    #[must_use]
    pub fn by_reply(&self, text: &[u8]) -> Option<String> {
        match self {
            Self::ReplyMatch(regex) => found(regex, text),
            _ => None,
        }
    }
}

fn word(text: &[u8]) -> Option<String> {
    let word = text.split(u8::is_ascii_whitespace).next()?;
    name(word)
}

fn found(regex: &Regex, text: &[u8]) -> Option<String> {
    let found = regex.captures(text)?;
    name(found.get(1).or_else(|| found.get(0))?.as_bytes())
}

/// A name as it is shown.
#[must_use]
pub fn name(bytes: &[u8]) -> Option<String> {
    let bytes = bytes.get(..bytes.len().min(MAX_NAME))?;
    if bytes.is_empty() { None } else { Some(printable(bytes)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_where_it_was_told_to_be() {
        for (how, place, text, expected) in [
            ("banner", 'b', "mx1.example.com ESMTP", Some("mx1.example.com")),
            ("banner", 'e', "mx1.example.com", None),
            ("ehlo", 'e', "mx2 Hello", Some("mx2")),
            ("banner:ESMTP on (\\w+)", 'b', "x ESMTP on web7 y", Some("web7")),
            ("reply:queued on \\S+", 'r', "2.0.0 queued on a1", Some("queued on a1")),
            ("banner", 'b', "", None),
            ("banner", 'b', "\u{1b}[2J x", Some("\\u{1b}[2J")),
        ] {
            let identify = Identify::parse(how).unwrap();
            let name = match place {
                'b' => identify.by_banner(text.as_bytes()),
                'e' => identify.by_ehlo(text.as_bytes()),
                _ => identify.by_reply(text.as_bytes()),
            };
            assert_eq!(name.as_deref(), expected, "{how} {text}");
        }
        for how in ["", "x", "x:y", "banner:(", "header:"] {
            assert!(Identify::parse(how).is_err(), "{how}");
        }
    }
}
