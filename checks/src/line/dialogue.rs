//! The conversation with a server that speaks in lines: a reply in, the next step out.
//!
//! Owns what is said and when, what each reply means for the server's health, and the last word: QUIT or LOGOUT is said
//! after a refusal too. Refuses to know sockets and time. Cannot fail: what a server says is data, and the
//! [`Failure`] is part of the result.

use std::collections::VecDeque;

use super::reply::{Reply, ReplyKind};
use super::script::{Move, Want, goodbye, greeting, moves};
use super::{LineSpec, Protocol};
use crate::credential::Credential;
use crate::smtp::dialogue::Unshown;
use crate::{Failure, Reason, Stage};

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Say nothing; the server speaks.
    Listen,
    /// Say this and CRLF; the next reply answers it.
    Send {
        /// Perhaps a secret.
        line: Unshown,
        /// What people see of it.
        shown: String,
    },
    /// Open a data connection to this port of the server, and then say `Dialogue::opened`.
    Open(u16),
    /// Read the file from the data connection, and then say `Dialogue::fetched`.
    Fetch,
    /// Close the connection: all is said.
    Close,
}

/// What a reply leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The reply was a good one.
    pub passed: bool,
    /// What to do next, either way.
    pub step: Step,
}

/// One conversation, from the moment that the connection stands. The server speaks first.
pub struct Dialogue<'a> {
    spec: &'a LineSpec,
    credential: Option<Credential>,
    stage: Stage,
    want: Want,
    moves: VecDeque<Move>,
    /// How many commands were said.
    commands: u32,
    failure: Option<Failure>,
}

impl<'a> Dialogue<'a> {
    /// A conversation that begins with [`Step::Listen`]. The credential is the one that `spec.login` names.
    #[must_use]
    pub fn new(spec: &'a LineSpec, credential: Option<Credential>) -> Self {
        Self {
            spec,
            stage: Stage::Banner,
            want: greeting(spec.protocol),
            moves: moves(spec, credential.as_ref()),
            credential,
            commands: 0,
            failure: None,
        }
    }

    /// What the next reply answers.
    #[must_use]
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// Takes the reply of the present stage and goes to the next.
    pub fn reply(&mut self, reply: &Reply) -> Turn {
        if self.stage == Stage::Quit {
            // The server is well, or it is known why not: how it says goodbye does not matter.
            return Turn { passed: reply.kind == ReplyKind::Done, step: Step::Close };
        }
        if self.failure.is_some() {
            return Turn { passed: false, step: self.quit() };
        }
        let ours = self.spec.protocol != Protocol::Imap || reply.tag == self.tag(reply.kind);
        let step = match (self.want, reply.kind) {
            _ if !ours => self.fail(Reason::Protocol, reply),
            (Want::DoneAtLast, ReplyKind::Begun) => return Turn { passed: true, step: Step::Listen },
            (Want::Done | Want::DoneAtLast, ReplyKind::Done)
            | (Want::More | Want::MoreOrDone, ReplyKind::More) => self.next(),
            (Want::Codes(codes), ReplyKind::Done) if reply.code.is_some_and(|code| codes.contains(&code)) => {
                self.next()
            }
            (Want::MoreOrDone, ReplyKind::Done) => {
                self.moves.pop_front();
                self.next()
            }
            (Want::Port, ReplyKind::Done) => {
                self.moves.pop_front();
                self.open(extended_port(&reply.text), reply)
            }
            // RFC 2428 section 3: an older server has only PASV.
            (Want::Port, ReplyKind::Permanent) => self.next(),
            (Want::OldPort, ReplyKind::Done) => self.open(old_port(&reply.text), reply),
            (Want::File, ReplyKind::Begun) => {
                self.want = Want::Done;
                return Turn { passed: true, step: Step::Fetch };
            }
            (_, ReplyKind::Temporary) => self.fail(Reason::Tempfail, reply),
            (_, ReplyKind::Permanent) => self.fail(Reason::Permfail, reply),
            _ => self.fail(Reason::Unexpected, reply),
        };
        Turn { passed: self.failure.is_none(), step }
    }

    /// Notes that the data connection stands.
    pub fn opened(&mut self) -> Step {
        self.next()
    }

    /// Notes what the file holds; `None` where it is longer than anybody would read.
    pub fn fetched(&mut self, content: Option<&[u8]>) -> Step {
        let pattern = self.spec.fetch.as_ref().and_then(|fetch| fetch.receive.as_ref());
        let failed = match (content, pattern) {
            (None, _) => Some((Reason::TooLong, "the file is too long")),
            (Some(content), Some(pattern)) => (!pattern.matches(&String::from_utf8_lossy(content)))
                .then_some((Reason::Mismatch, "the file does not match")),
            (Some(_), None) => None,
        };
        self.failure = failed.map(|(reason, text)| Failure {
            stage: self.stage,
            reason,
            code: None,
            text: text.to_owned(),
        });
        Step::Listen
    }

    /// Notes what the network did instead of a reply. The conversation is over: there is nobody to say goodbye to.
    pub fn lost(&mut self, reason: Reason, text: String) {
        if self.stage != Stage::Quit && self.failure.is_none() {
            let text = self.hushed(text);
            self.failure = Some(Failure { stage: self.stage, reason, code: None, text });
        }
    }

    /// The lines of a reply as they may be kept: none that repeats a secret.
    #[must_use]
    pub fn shown(&self, lines: Vec<String>) -> Vec<String> {
        lines.into_iter().map(|line| self.hushed(line)).collect()
    }

    /// Whether the server is well.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn finish(self) -> Result<(), Failure> {
        self.failure.map_or(Ok(()), Err)
    }

    /// The tag that a reply of this kind must have.
    fn tag(&self, kind: ReplyKind) -> Option<u32> {
        (kind != ReplyKind::More && self.commands > 0).then_some(self.commands)
    }

    fn next(&mut self) -> Step {
        match self.moves.pop_front() {
            Some(next) => self.say(next),
            None => self.quit(),
        }
    }

    fn quit(&mut self) -> Step {
        self.say(goodbye(self.spec.protocol))
    }

    fn say(&mut self, next: Move) -> Step {
        (self.stage, self.want) = (next.stage, next.want);
        if !next.continues {
            self.commands += 1;
        }
        let tag = match self.spec.protocol {
            Protocol::Imap if !next.continues => format!("a{} ", self.commands),
            _ => String::new(),
        };
        let shown = format!("{tag}{}", next.shown.unwrap_or(&next.line));
        Step::Send { line: Unshown(format!("{tag}{}", next.line)), shown }
    }

    fn open(&mut self, port: Option<u16>, reply: &Reply) -> Step {
        match port {
            Some(port) => Step::Open(port),
            None => self.fail(Reason::Protocol, reply),
        }
    }

    fn fail(&mut self, reason: Reason, reply: &Reply) -> Step {
        let text = self.hushed(reply.text.clone());
        self.failure = Some(Failure { stage: self.stage, reason, code: reply.code, text });
        self.quit()
    }

    /// A text that may be kept.
    fn hushed(&self, text: String) -> String {
        match &self.credential {
            Some(credential) if credential.is_in(&text) => "…".to_owned(),
            _ => text,
        }
    }
}

/// The port of `229 … (|||6446|)`; the delimiter may be any character.
fn extended_port(text: &str) -> Option<u16> {
    let (_, inside) = text.split_once('(')?;
    let (inside, _) = inside.rsplit_once(')')?;
    let delimiter = inside.chars().next()?;
    let mut fields = inside.split(delimiter);
    // Before the first delimiter; network; address.
    fields.by_ref().take(3).for_each(drop);
    fields.next()?.parse().ok().filter(|&port| port != 0)
}

/// The port of `227 … (h1,h2,h3,h4,p1,p2)`. The address is left aside: no server sends us to another one.
fn old_port(text: &str) -> Option<u16> {
    let start = text.get(4..)?.find(|char: char| char.is_ascii_digit())? + 4;
    let numbers = text.get(start..)?.split(|char: char| !char.is_ascii_digit() && char != ',').next()?;
    let numbers: Vec<u8> = numbers.split(',').map(|number| number.parse().ok()).collect::<Option<_>>()?;
    match numbers[..] {
        [_, _, _, _, high, low] => Some(u16::from_be_bytes([high, low])).filter(|&port| port != 0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::reply::Collector;
    use super::super::{FetchSpec, LoginSpec};
    use super::*;
    use crate::smtp::{AuthOver, Pattern};
    use proptest::prelude::*;

    fn spec(protocol: Protocol) -> LineSpec {
        let login = Some(LoginSpec { file: "/nowhere".into(), over: AuthOver::Anything });
        let receive = Some(Pattern::new("well").unwrap());
        let fetch = (protocol == Protocol::Ftp).then(|| FetchSpec { path: "state.txt".into(), receive });
        LineSpec { protocol, tls: None, login, fetch }
    }

    /// All that is said to these replies, in order, and what they lead to. A data connection always stands; `file` comes
    /// through it.
    fn converse(
        (spec, credential): (&LineSpec, Option<&str>),
        replies: &[&str],
        file: &str,
    ) -> (Vec<String>, Result<(), Failure>) {
        let credential = credential.map(|text| Credential::parse(text).unwrap());
        let (mut dialogue, mut step, mut said) = (Dialogue::new(spec, credential), Step::Listen, Vec::new());
        let (mut collector, text) = (Collector::new(spec.protocol), replies.concat());
        let mut rest = text.as_bytes();
        for _ in 0..60 {
            step = match step {
                Step::Close => return (said, dialogue.finish()),
                Step::Open(port) => {
                    said.push(format!("(connects to {port})"));
                    dialogue.opened()
                }
                Step::Fetch => dialogue.fetched(Some(file.as_bytes())),
                Step::Listen | Step::Send { .. } => {
                    if let Step::Send { line, shown } = &step {
                        assert!(!line.0.contains(['\r', '\n']) && !shown.contains("s3cret"), "{shown}");
                        said.push(line.0.clone());
                    }
                    let Ok((used, Some(reply))) = collector.feed(rest) else {
                        dialogue.lost(Reason::Closed, collector.rest());
                        return (said, dialogue.finish());
                    };
                    rest = &rest[used..];
                    dialogue.reply(&reply).step
                }
            };
        }
        panic!("{said:?} has no end");
    }

    const FILE: [&str; 10] = [
        "220-hello\r\n220 x\r\n",
        "331 who\r\n",
        "230 in\r\n",
        "200 binary\r\n",
        "229 Entering (|||6446|)\r\n",
        "150 here\r\n",
        "226 done\r\n",
        "221 bye\r\n",
        "",
        "",
    ];

    #[test]
    fn healthy_servers_hear_what_they_expect() {
        let nobody = |protocol| LineSpec { login: None, fetch: None, ..spec(protocol) };
        for (spec, credential, replies, expected) in [
            (nobody(Protocol::Pop), None, &["+OK\r\n", "+OK\r\n"][..], &["QUIT"][..]),
            (
                spec(Protocol::Pop),
                Some("tim:s3cret x"),
                &["+OK\r\n", "+OK\r\n", "+OK\r\n", "+OK\r\n"],
                &["USER tim", "PASS s3cret x", "QUIT"],
            ),
            (nobody(Protocol::Nntp), None, &["201 x\r\n", "205 x\r\n"], &["QUIT"]),
            (nobody(Protocol::Imap), None, &["* OK\r\n", "* BYE\r\na1 OK\r\n"], &["a1 LOGOUT"]),
            (
                spec(Protocol::Imap),
                Some("t\"m:s3cr\\et"),
                &["* OK\r\n", "* CAPABILITY\r\na1 OK\r\n", "a2 OK\r\n"],
                &["a1 LOGIN \"t\\\"m\" \"s3cr\\\\et\"", "a2 LOGOUT"],
            ),
            (
                spec(Protocol::Imap),
                Some("t:gr\u{fc}n"),
                &["* OK\r\n", "+ \r\n", "a1 OK\r\n", "a2 OK\r\n"],
                &["a1 LOGIN \"t\" {5}", "gr\u{fc}n", "a2 LOGOUT"],
            ),
            (
                spec(Protocol::Imap),
                Some("\u{fc}:\u{e9}"),
                &["* OK\r\n", "+\r\n", "+\r\n", "a1 OK\r\n", "a2 OK\r\n"],
                &["a1 LOGIN {2}", "\u{fc} {2}", "\u{e9}", "a2 LOGOUT"],
            ),
            (
                nobody(Protocol::Ftp),
                None,
                &["120 wait\r\n220 x\r\n", "230 no password needed\r\n", "221 x\r\n"],
                &["USER anonymous", "QUIT"],
            ),
            (
                spec(Protocol::Ftp),
                Some("tim:s3cret"),
                &FILE,
                &[
                    "USER tim",
                    "PASS s3cret",
                    "TYPE I",
                    "EPSV",
                    "(connects to 6446)",
                    "RETR state.txt",
                    "QUIT",
                ],
            ),
            (
                spec(Protocol::Ftp),
                None,
                &[
                    "220 x\r\n",
                    "331 x\r\n",
                    "230 x\r\n",
                    "200 x\r\n",
                    "500 EPSV?\r\n",
                    "227 =10,0,0,1,4,1\r\n",
                    "125 x\r\n226 x\r\n",
                    "221 x\r\n",
                ],
                &[
                    "USER anonymous",
                    "PASS smtp-director@",
                    "TYPE I",
                    "EPSV",
                    "PASV",
                    "(connects to 1025)",
                    "RETR state.txt",
                    "QUIT",
                ],
            ),
        ] {
            assert_eq!(
                converse((&spec, credential), replies, "all is well"),
                (expected.iter().map(|&line| line.to_owned()).collect(), Ok(()))
            );
        }
    }

    #[test]
    fn a_refusal_is_told_apart_and_answered_with_the_last_word() {
        use Protocol::{Ftp, Imap, Nntp, Pop};
        for (protocol, replies, stage, reason, code, last) in [
            (Pop, &["-ERR down\r\n"][..], Stage::Banner, Reason::Permfail, None, "QUIT"),
            (Pop, &["+OK\r\n", "+OK\r\n", "-ERR [IN-USE]\r\n"], Stage::Auth, Reason::Tempfail, None, "QUIT"),
            (Pop, &["+ x\r\n"], Stage::Banner, Reason::Unexpected, None, "QUIT"),
            (Imap, &["* BYE full\r\n"], Stage::Banner, Reason::Tempfail, None, "a1 LOGOUT"),
            (Imap, &["* OK\r\n", "a1 NO\r\n"], Stage::Auth, Reason::Permfail, None, "a2 LOGOUT"),
            (Imap, &["* OK\r\n", "a7 OK\r\n"], Stage::Auth, Reason::Protocol, None, "a2 LOGOUT"),
            (Nntp, &["400 full\r\n"], Stage::Banner, Reason::Tempfail, Some(400), "QUIT"),
            (Nntp, &["205 x\r\n"], Stage::Banner, Reason::Unexpected, Some(205), "QUIT"),
            (
                Ftp,
                &["220 x\r\n", "331 x\r\n", "530 no\r\n"],
                Stage::Auth,
                Reason::Permfail,
                Some(530),
                "QUIT",
            ),
            (
                Ftp,
                &["220 x\r\n", "331 x\r\n", "332 x\r\n"],
                Stage::Auth,
                Reason::Unexpected,
                Some(332),
                "QUIT",
            ),
        ] {
            let (said, verdict) = converse((&spec(protocol), Some("tim:s3cret")), replies, "");
            let failure = verdict.unwrap_err();
            assert_eq!((failure.stage, failure.reason, failure.code), (stage, reason, code), "{replies:?}");
            assert_eq!(said.last().map(String::as_str), Some(last));
        }
        let (said, verdict) = converse((&spec(Ftp), None), &FILE, "all is lost");
        assert_eq!(
            verdict.map_err(|failure| (failure.stage, failure.reason)),
            Err((Stage::Request, Reason::Mismatch))
        );
        assert_eq!(said.last().map(String::as_str), Some("QUIT"));
    }

    #[test]
    fn a_server_that_repeats_the_password_is_not_quoted() {
        let replies = ["+OK\r\n", "+OK\r\n", "-ERR no s3cret\r\n", "+OK\r\n"];
        let (_, verdict) = converse((&spec(Protocol::Pop), Some("tim:s3cret")), &replies, "");
        assert_eq!(verdict.unwrap_err().text, "\u{2026}");
    }

    #[test]
    fn ports_of_data_connections_are_read() {
        for (text, port) in [
            ("229 Entering Extended Passive Mode (|||6446|)", Some(6446)),
            ("229 x (!!!65535!)", Some(65535)),
            ("229 x (|1|10.0.0.1|21|)", Some(21)),
            ("229 x (|||0|)", None),
            ("229 x (|||65536|)", None),
            ("229 x ()", None),
            ("229 x |||1|", None),
        ] {
            assert_eq!(extended_port(text), port, "{text}");
        }
        for (text, port) in [
            ("227 Entering Passive Mode (127,0,0,1,200,10).", Some(51210)),
            ("227 =1,2,3,4,0,21", Some(21)),
            ("227 x (1,2,3,4,0,0)", None),
            ("227 x (1,2,3,4,5)", None),
            ("227 x (1,2,3,4,256,1)", None),
            ("227", None),
            ("227 \u{e4}", None),
        ] {
            assert_eq!(old_port(text), port, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_conversation_ends_and_says_nothing_illegal(
            replies in prop::collection::vec(
                prop::sample::select(vec![
                    "+OK\r\n", "-ERR x\r\n", "+ x\r\n", "* OK x\r\n", "* BYE\r\n", "a1 OK\r\n", "a2 NO\r\n", "120 x\r\n",
                    "150 x\r\n", "200 x\r\n", "220 x\r\n", "229 (|||9|)\r\n", "227 1,2,3,4,5,6\r\n", "331 x\r\n", "421 x\r\n",
                    "500 x\r\n", "220-x\r\n", "s3cret\r\n",
                ]),
                0..12,
            ),
        ) {
            for protocol in [Protocol::Pop, Protocol::Imap, Protocol::Nntp, Protocol::Ftp] {
                let (_, verdict) = converse((&spec(protocol), Some("tim:s3cret")), &replies, "all is well");
                if let Err(failure) = verdict {
                    prop_assert!(!failure.text.contains("s3cret"));
                }
            }
        }
    }
}
