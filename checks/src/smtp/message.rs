//! The message that a check sends where it sends one.
//!
//! Owns its bytes: small, marked for filters and people, and never answered by a robot; or those that it is given. Refuses
//! to know when it is sent. Cannot fail.

use super::DataSpec;
use crate::calendar::rfc5322;

/// The message up to and with the final dot, without the last CRLF, dated `now` (seconds since 1970).
pub(super) fn message(spec: &DataSpec, ehlo_name: &str, now: i64) -> String {
    if let Some(text) = &spec.text {
        return format!("{text}.");
    }
    let date = rfc5322(now);
    // An address literal has no place in a Message-ID without its brackets.
    let host = ehlo_name.trim_matches(['[', ']']);
    let from = if spec.from.is_empty() { format!("postmaster@{host}") } else { spec.from.clone() };
    format!(
        "Date: {date}\r\n\
         From: <{from}>\r\n\
         To: <{to}>\r\n\
         Subject: smtp-director check\r\n\
         Message-ID: <{now}.check@{host}>\r\n\
         Auto-Submitted: auto-generated\r\n\
         X-SMTP-Director: check\r\n\
         \r\n\
         This is a check of the mail farm. Whoever reads this: its recipient should be discarded.\r\n\
         .",
        to = spec.to,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_message_has_a_header_a_mark_and_one_dot() {
        let spec = DataSpec {
            from: String::new(),
            to: "void@example.com".into(),
            timeout: Duration::from_secs(1),
            text: None,
        };
        let text = message(&spec, "[192.0.2.1]", 0);
        let (header, body) = text.split_once("\r\n\r\n").unwrap();
        for line in [
            "Date: Thu, 1 Jan 1970 00:00:00 +0000",
            "From: <postmaster@192.0.2.1>",
            "To: <void@example.com>",
            "X-SMTP-Director: check",
        ] {
            assert!(header.split("\r\n").any(|have| have == line), "{line}");
        }
        assert!(
            body.ends_with("\r\n.") && text.split("\r\n").filter(|line| line.starts_with('.')).count() == 1
        );
        assert!(
            text.split("\r\n")
                .all(|line| line.len() <= 78 || !line.contains(':') || line.starts_with("This"))
        );
    }
}
