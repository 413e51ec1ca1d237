//! What is said to a server of each protocol, move by move.
//!
//! Owns the commands and how a user and a password are written in them. Refuses to know replies. Cannot fail: what
//! could not be said is not said.

use std::collections::VecDeque;

use super::{LineSpec, Protocol};
use crate::Stage;
use crate::credential::Credential;

/// One line to the server, and what it must lead to.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Move {
    pub(super) stage: Stage,
    pub(super) line: String,
    /// What people see of a line with a secret.
    pub(super) shown: Option<&'static str>,
    /// It goes on with the command before it.
    pub(super) continues: bool,
    pub(super) want: Want,
}

/// What a reply must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// Yes.
    Done,
    /// One of these codes.
    Codes(&'static [u16]),
    /// Yes, after "work has begun" or not.
    DoneAtLast,
    /// Go on.
    More,
    /// Go on; or yes, and then the next move is left out.
    MoreOrDone,
    /// The port of a data connection (RFC 2428 section 3); where the command is not known, the next move asks again.
    Port,
    /// The port of a data connection (RFC 959 section 4.1.2, PASV).
    OldPort,
    /// Work has begun: the file comes, and then yes.
    File,
}

/// What the server's first words must be.
pub(super) fn greeting(protocol: Protocol) -> Want {
    match protocol {
        Protocol::Pop | Protocol::Imap => Want::Done,
        // RFC 3977 section 5.1.1: with and without posting.
        Protocol::Nntp => Want::Codes(&[200, 201]),
        Protocol::Ftp => Want::DoneAtLast,
    }
}

/// The last word.
pub(super) fn goodbye(protocol: Protocol) -> Move {
    let line = if protocol == Protocol::Imap { "LOGOUT" } else { "QUIT" };
    say(Stage::Quit, line, Want::Done)
}

/// All between the greeting and the goodbye.
pub(super) fn moves(spec: &LineSpec, credential: Option<&Credential>) -> VecDeque<Move> {
    match (spec.protocol, credential.map(Credential::pair)) {
        (Protocol::Nntp, _) | (Protocol::Pop | Protocol::Imap, None) => VecDeque::new(),
        (Protocol::Pop, Some((user, password))) => VecDeque::from([
            hidden(&format!("USER {user}"), "USER …", Want::Done),
            hidden(&format!("PASS {password}"), "PASS …", Want::Done),
        ]),
        (Protocol::Imap, Some(login)) => imap_login(login),
        (Protocol::Ftp, login) => {
            let (user, password) = match login {
                Some((user, password)) => (
                    hidden(&format!("USER {user}"), "USER …", Want::MoreOrDone),
                    hidden(&format!("PASS {password}"), "PASS …", Want::Done),
                ),
                // RFC 1635.
                None => (
                    say(Stage::Auth, "USER anonymous", Want::MoreOrDone),
                    say(Stage::Auth, "PASS smtp-director@", Want::Done),
                ),
            };
            let mut moves = VecDeque::from([user, password]);
            if let Some(fetch) = &spec.fetch {
                moves.extend([
                    say(Stage::Request, "TYPE I", Want::Done),
                    say(Stage::Request, "EPSV", Want::Port),
                    say(Stage::Request, "PASV", Want::OldPort),
                    say(Stage::Request, &format!("RETR {}", fetch.path), Want::File),
                ]);
            }
            moves
        }
    }
}

fn say(stage: Stage, line: &str, want: Want) -> Move {
    Move { stage, line: line.to_owned(), shown: None, continues: false, want }
}

fn hidden(line: &str, shown: &'static str, want: Want) -> Move {
    Move { shown: Some(shown), ..say(Stage::Auth, line, want) }
}

/// LOGIN (RFC 3501 section 6.2.3). What is not ASCII cannot be quoted and goes as a literal, after the server's "+".
fn imap_login((user, password): (&str, &str)) -> VecDeque<Move> {
    const SHOWN: &str = "LOGIN …";
    let (mut moves, mut line) = (VecDeque::new(), "LOGIN".to_owned());
    for word in [user, password] {
        line.push(' ');
        if word.is_ascii() {
            line.push('"');
            for char in word.chars() {
                if matches!(char, '"' | '\\') {
                    line.push('\\');
                }
                line.push(char);
            }
            line.push('"');
        } else {
            let announced = format!("{line}{{{}}}", word.len());
            moves.push_back(Move { continues: !moves.is_empty(), ..hidden(&announced, SHOWN, Want::More) });
            word.clone_into(&mut line);
        }
    }
    moves.push_back(Move { continues: !moves.is_empty(), ..hidden(&line, SHOWN, Want::Done) });
    moves
}
