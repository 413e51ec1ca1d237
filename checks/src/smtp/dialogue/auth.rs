//! The part of the conversation in which a password is said (RFC 4954).
//!
//! Owns when it may be said, how, and that nobody is shown it. Refuses to know where it comes from.

use super::{Dialogue, Step, Unshown};
use crate::smtp::ehlo::offers_auth;
use crate::smtp::reply::Reply;
use crate::smtp::{AuthOver, Mechanism};
use crate::{Reason, Stage};

impl Dialogue<'_> {
    /// Begins AUTH, or goes on without where none is wanted.
    pub(super) fn authenticate(&mut self) -> Step {
        let Some(auth) = &self.spec.auth else { return self.ask() };
        let missing = |text: &str| (Reason::MissingCapability, text.to_owned());
        let plain = offers_auth(&self.capabilities, "PLAIN");
        let mechanism = auth.mechanism.unwrap_or(if plain { Mechanism::Plain } else { Mechanism::Login });
        let refused = match (&self.credential, mechanism) {
            _ if !self.secure && auth.over == AuthOver::Tls => {
                Some(missing("no TLS, and no password without it"))
            }
            (None, _) => Some((Reason::Local, "there is no credential".to_owned())),
            (_, Mechanism::Plain) if !plain => Some(missing("AUTH PLAIN is not offered")),
            (_, Mechanism::Login) if !offers_auth(&self.capabilities, "LOGIN") => {
                Some(missing("AUTH LOGIN is not offered"))
            }
            _ => None,
        };
        if let Some((reason, text)) = refused {
            return self.fail(Stage::Auth, reason, text);
        }
        self.stage = Stage::Auth;
        match (mechanism, &self.credential) {
            (Mechanism::Plain, Some(credential)) => Step::SendUnshown {
                line: Unshown(format!("AUTH PLAIN {}", credential.plain())),
                shown: "AUTH PLAIN …".to_owned(),
            },
            _ => Step::Send("AUTH LOGIN".to_owned()),
        }
    }

    /// Goes on after 235, or after a question of LOGIN. Only the order of the questions counts: their text is free.
    pub(super) fn answer(&mut self, reply: &Reply) -> Step {
        if reply.code == 235 {
            return self.ask();
        }
        self.challenges += 1;
        let line = match (&self.credential, self.challenges) {
            (Some(credential), 1) => credential.user(),
            (Some(credential), _) => credential.password(),
            (None, _) => String::new(),
        };
        Step::SendUnshown { line: Unshown(line), shown: "…".to_owned() }
    }

    /// Whether 334 is part of the exchange: LOGIN asks twice, PLAIN was said with the command.
    pub(super) fn wants_challenge(&self) -> bool {
        let fixed = self.spec.auth.as_ref().and_then(|auth| auth.mechanism);
        let login = match fixed {
            Some(mechanism) => mechanism == Mechanism::Login,
            None => !offers_auth(&self.capabilities, "PLAIN"),
        };
        login && self.challenges < 2
    }

    /// `text`, unless it repeats the password: a server may, and logs last.
    pub(super) fn hushed(&self, text: String) -> String {
        match &self.credential {
            Some(credential) if credential.is_in(&text) => "(the server repeats the password)".to_owned(),
            _ => text,
        }
    }
}
