//! The conversation with an SMTP server: a reply in, the next step out.
//!
//! Owns what is said and when, what each code means for the server's health, and the last word: QUIT is said after a
//! refusal too, because a server that is left without it logs "lost connection". Refuses to know sockets and time.
//! Cannot fail: what a server says is data, and the [`Failure`] is part of the result.

use smtp_proto::{
    EXT_8BIT_MIME, EXT_ATRN, EXT_AUTH, EXT_BINARY_MIME, EXT_BURL, EXT_CHECKPOINT, EXT_CHUNKING, EXT_CONNEG,
    EXT_CONPERM, EXT_DELIVER_BY, EXT_DSN, EXT_ENHANCED_STATUS_CODES, EXT_ETRN, EXT_EXPN, EXT_FUTURE_RELEASE,
    EXT_HELP, EXT_MT_PRIORITY, EXT_MTRK, EXT_NO_SOLICITING, EXT_ONEX, EXT_PIPELINING, EXT_REQUIRE_TLS,
    EXT_RRVS, EXT_SIZE, EXT_SMTP_UTF8, EXT_START_TLS, EXT_VERB, EXT_VRFY, EhloResponse,
};

use super::SmtpSpec;
use super::reply::Reply;
use crate::{Failure, Reason, Stage};

/// Longest name in EHLO (RFC 5321 section 4.5.3.1.2).
const MAX_DOMAIN: usize = 255;

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Say this and CRLF; the next reply answers it.
    Send(String),
    /// Close the connection: all is said.
    Close,
}

/// What a reply leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The reply was the one that lets mail flow.
    pub passed: bool,
    /// What to do next, either way.
    pub step: Step,
}

/// One conversation, from the moment that the connection stands. The server speaks first.
#[derive(Debug)]
pub struct Dialogue<'a> {
    spec: &'a SmtpSpec,
    /// What the next reply answers.
    stage: Stage,
    failure: Option<Failure>,
    capabilities: Vec<String>,
}

impl<'a> Dialogue<'a> {
    /// A conversation that waits for the banner.
    #[must_use]
    pub fn new(spec: &'a SmtpSpec) -> Self {
        Self { spec, stage: Stage::Banner, failure: None, capabilities: Vec::new() }
    }

    /// What the next reply answers.
    #[must_use]
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// Takes the reply of the present stage and goes to the next.
    pub fn reply(&mut self, reply: &Reply) -> Turn {
        let refusal = refusal(self.stage, reply);
        let passed = refusal.is_none();
        let step = match (self.stage, refusal) {
            (Stage::Banner, None) => self.ehlo(),
            (Stage::Ehlo, None) => {
                self.capabilities = capabilities(&reply.bytes);
                self.quit()
            }
            (Stage::Banner | Stage::Ehlo, Some(failure)) => {
                self.failure = Some(failure);
                self.quit()
            }
            // Mail would have flowed: how the server says goodbye does not matter.
            (Stage::Quit | Stage::Connect, _) => Step::Close,
        };
        Turn { passed, step }
    }

    /// Notes what the network did instead of a reply. The conversation is over: there is nobody to say QUIT to.
    pub fn lost(&mut self, failure: Failure) {
        if self.stage != Stage::Quit {
            self.failure = Some(failure);
        }
    }

    /// Whether the server is well, and the EHLO keywords that it offered, as far as smtp-proto knows them.
    pub fn finish(self) -> (Result<(), Failure>, Vec<String>) {
        (self.failure.map_or(Ok(()), Err), self.capabilities)
    }

    fn ehlo(&mut self) -> Step {
        self.stage = Stage::Ehlo;
        let name = &self.spec.ehlo_name;
        // A line end in the name would be a second command.
        if name.is_empty() || name.len() > MAX_DOMAIN || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
            let text = "our own EHLO name is not one that can be said".to_owned();
            self.failure = Some(Failure { stage: Stage::Ehlo, reason: Reason::Local, code: None, text });
            return self.quit();
        }
        Step::Send(format!("EHLO {name}"))
    }

    fn quit(&mut self) -> Step {
        self.stage = Stage::Quit;
        Step::Send("QUIT".to_owned())
    }
}

/// The failure that `reply` is at `stage`, unless it is the one code that lets mail flow.
fn refusal(stage: Stage, reply: &Reply) -> Option<Failure> {
    let wanted = match stage {
        Stage::Connect | Stage::Banner => 220,
        Stage::Ehlo => 250,
        Stage::Quit => 221,
    };
    let reason = match reply.code {
        code if code == wanted => return None,
        400..=499 => Reason::Tempfail,
        500..=599 => Reason::Permfail,
        _ => Reason::Unexpected,
    };
    let text = reply.lines.first().cloned().unwrap_or_default();
    Some(Failure { stage, reason, code: Some(reply.code), text })
}

/// The keywords in the complete reply to EHLO; none if smtp-proto does not like it, which is no reason to be unwell.
fn capabilities(reply: &[u8]) -> Vec<String> {
    let offered = EhloResponse::parse(&mut reply.iter()).map_or(0, |ehlo| ehlo.capabilities);
    KEYWORDS.iter().filter(|(bit, _)| offered & bit != 0).map(|(_, name)| (*name).to_owned()).collect()
}

/// The names of smtp-proto's bits.
const KEYWORDS: [(u32, &str); 28] = [
    (EXT_8BIT_MIME, "8BITMIME"),
    (EXT_ATRN, "ATRN"),
    (EXT_AUTH, "AUTH"),
    (EXT_BINARY_MIME, "BINARYMIME"),
    (EXT_BURL, "BURL"),
    (EXT_CHECKPOINT, "CHECKPOINT"),
    (EXT_CHUNKING, "CHUNKING"),
    (EXT_CONNEG, "CONNEG"),
    (EXT_CONPERM, "CONPERM"),
    (EXT_DELIVER_BY, "DELIVERBY"),
    (EXT_DSN, "DSN"),
    (EXT_ENHANCED_STATUS_CODES, "ENHANCEDSTATUSCODES"),
    (EXT_ETRN, "ETRN"),
    (EXT_EXPN, "EXPN"),
    (EXT_FUTURE_RELEASE, "FUTURERELEASE"),
    (EXT_HELP, "HELP"),
    (EXT_MT_PRIORITY, "MT-PRIORITY"),
    (EXT_MTRK, "MTRK"),
    (EXT_NO_SOLICITING, "NO-SOLICITING"),
    (EXT_ONEX, "ONEX"),
    (EXT_PIPELINING, "PIPELINING"),
    (EXT_REQUIRE_TLS, "REQUIRETLS"),
    (EXT_RRVS, "RRVS"),
    (EXT_SIZE, "SIZE"),
    (EXT_SMTP_UTF8, "SMTPUTF8"),
    (EXT_START_TLS, "STARTTLS"),
    (EXT_VERB, "VERB"),
    (EXT_VRFY, "VRFY"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::reply::Splitter;
    use proptest::prelude::*;
    use std::time::Duration;

    fn spec(name: &str) -> SmtpSpec {
        let second = Duration::from_secs(1);
        SmtpSpec {
            ehlo_name: name.to_owned(),
            banner_timeout: second,
            ehlo_timeout: second,
            quit_timeout: second,
        }
    }

    fn reply(text: &str) -> Reply {
        Splitter::default().feed(text.as_bytes()).unwrap().1.unwrap()
    }

    /// What is said, how it fails, what was offered.
    type Talk = (Vec<String>, Option<(Stage, Reason, u16)>, Vec<String>);

    /// Everything that is said to a server that says `replies`, and the end of it.
    fn talk(replies: &[&str]) -> Talk {
        let spec = spec("director.example.com");
        let (mut dialogue, mut said) = (Dialogue::new(&spec), Vec::new());
        for text in replies {
            match dialogue.reply(&reply(text)).step {
                Step::Send(line) => said.push(line),
                Step::Close => break,
            }
        }
        let (verdict, capabilities) = dialogue.finish();
        (said, verdict.err().map(|f| (f.stage, f.reason, f.code.unwrap())), capabilities)
    }

    const EHLO: &str = "EHLO director.example.com";

    #[test]
    fn a_healthy_server_is_greeted_and_left() {
        let postfix = "250-mail.example.com\r\n250-PIPELINING\r\n250-SIZE 10240000\r\n250-ETRN\r\n250-STARTTLS\r\n\
            250-ENHANCEDSTATUSCODES\r\n250-8BITMIME\r\n250-DSN\r\n250-SMTPUTF8\r\n250-XCLIENT NAME ADDR\r\n250 CHUNKING\r\n";
        let (said, failure, capabilities) = talk(&["220-wait\r\n220 mail\r\n", postfix, "221 Bye\r\n"]);
        assert_eq!((said, failure), (vec![EHLO.to_owned(), "QUIT".to_owned()], None));
        assert_eq!(
            capabilities.join(" "),
            "8BITMIME CHUNKING DSN ENHANCEDSTATUSCODES ETRN PIPELINING SIZE SMTPUTF8 STARTTLS"
        );
    }

    #[test]
    fn capabilities_survive_odd_answers() {
        for (answer, expected) in [
            ("250\r\n", ""),
            ("250 mail\r\n", ""),
            ("250-mail\n250 size\n", "SIZE"),
            ("250-mail\r\n250-PIPELINING\r\n250\r\n", "PIPELINING"),
            ("250-\r\n250-\r\n250 AUTH=\r\n", "AUTH"),
            ("250-m\r\n250-SIZE abc\r\n250-AUTH FOO é\r\n250 DSN\r\n", "AUTH DSN SIZE"),
        ] {
            assert_eq!(talk(&["220 x\r\n", answer]).2.join(" "), expected, "{answer}");
        }
    }

    #[test]
    fn a_refusal_is_answered_with_quit() {
        use Reason::{Permfail, Tempfail, Unexpected};
        for (code, reason) in [
            (421, Tempfail),
            (450, Tempfail),
            (554, Permfail),
            (354, Unexpected),
            (221, Unexpected),
            (599, Permfail),
        ] {
            let refusal = format!("{code} no\r\n");
            let (said, failure, _) = talk(&[&refusal]);
            assert_eq!((said, failure), (vec!["QUIT".to_owned()], Some((Stage::Banner, reason, code))));
            let (said, failure, _) = talk(&["220 x\r\n", &refusal, "221 Bye\r\n"]);
            assert_eq!(said, [EHLO, "QUIT"]);
            assert_eq!(failure, Some((Stage::Ehlo, reason, code)));
        }
    }

    #[test]
    fn how_quit_is_answered_does_not_matter() {
        for end in ["221 Bye\r\n", "250 what\r\n", "421 x\r\n", "500 x\r\n"] {
            assert_eq!(talk(&["220 x\r\n", "250 x\r\n", end]).1, None);
        }
        let (spec, lost) = (
            spec("a"),
            Failure { stage: Stage::Quit, reason: Reason::Reset, code: None, text: String::new() },
        );
        let mut dialogue = Dialogue::new(&spec);
        dialogue.reply(&reply("220 x\r\n"));
        dialogue.reply(&reply("250 x\r\n"));
        dialogue.lost(lost);
        assert_eq!(dialogue.finish().0, Ok(()));
    }

    #[test]
    fn a_failure_says_what_the_server_said() {
        let spec = spec("a");
        let mut dialogue = Dialogue::new(&spec);
        dialogue.reply(&reply("421-4.3.2 too\x07 busy\r\n421 really\r\n"));
        let failure = dialogue.finish().0.unwrap_err();
        assert_eq!(failure.to_string(), "tempfail at banner: 421-4.3.2 too\\u{7} busy");
    }

    proptest! {
        #[test]
        fn nothing_illegal_is_ever_said(
            name in prop_oneof!["[a-z.]{1,20}", "\\PC*", "[a-z\r\n ]{0,300}"],
            codes in prop::collection::vec(prop_oneof![Just(220u16), Just(250), 200u16..600], 1..8),
        ) {
            let spec = spec(&name);
            let (mut dialogue, mut said) = (Dialogue::new(&spec), Vec::new());
            for code in codes {
                match dialogue.reply(&reply(&format!("{code} x\r\n"))).step {
                    Step::Send(line) => said.push(line),
                    Step::Close => break,
                }
            }
            for line in &said {
                prop_assert!(line.len() <= 510 && line.bytes().all(|b| b == b' ' || b.is_ascii_graphic()));
            }
            // EHLO at most once and first, QUIT at most once and last.
            prop_assert!(said.len() <= 2);
            prop_assert!(said.iter().rev().skip(1).all(|line| line.starts_with("EHLO ")));
            prop_assert!(said.last().is_none_or(|line| line == "QUIT" || line.starts_with("EHLO ")));
        }
    }
}
