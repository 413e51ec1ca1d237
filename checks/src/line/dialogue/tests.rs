use super::super::reply::Collector;
use super::super::{FetchSpec, LoginSpec};
use super::*;
use crate::smtp::{AuthOver, Pattern};
use proptest::prelude::*;

fn spec(protocol: Protocol) -> LineSpec {
    let login = Some(LoginSpec { from: "/nowhere".into(), over: AuthOver::Anything });
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
            &["USER tim", "PASS s3cret", "TYPE I", "EPSV", "(connects to 6446)", "RETR state.txt", "QUIT"],
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
        (Ftp, &["220 x\r\n", "331 x\r\n", "530 no\r\n"], Stage::Auth, Reason::Permfail, Some(530), "QUIT"),
        (Ftp, &["220 x\r\n", "331 x\r\n", "332 x\r\n"], Stage::Auth, Reason::Unexpected, Some(332), "QUIT"),
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
