//! What is said before the first message: banner, EHLO, STARTTLS, AUTH.
//!
//! Owns the order of these steps, what a server offers, and the credentials of AUTH PLAIN, LOGIN and XOAUTH2.
//! Refuses to know sockets and time. Fails with a [`Trouble`]. No password is said outside TLS unless the plan says
//! so, and none is ever shown.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::reply::Reply;
use super::{Chunking, Hello, Pipeline, Security, SmtpPlan};
use crate::words::{Class, Phase, Trouble};

/// A mechanism of AUTH (RFC 4954).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// RFC 4616.
    Plain,
    /// `draft-murchison-sasl-login`.
    Login,
    /// A bearer token instead of a password.
    Xoauth2,
}

/// Who to log in as.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// How; `None`: PLAIN where it is offered, else LOGIN.
    pub mechanism: Option<Mechanism>,
    /// The user.
    pub user: String,
    /// The password or token.
    pub password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(…)")
    }
}

/// What a server offers, as far as it matters here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "that is what capabilities are")]
pub struct Offers {
    /// RFC 2920.
    pub pipelining: bool,
    /// RFC 3030.
    pub chunking: bool,
    /// RFC 1870.
    pub size: bool,
    /// RFC 6152.
    pub eight_bit: bool,
    /// RFC 6531.
    pub utf8: bool,
    /// RFC 3207.
    pub starttls: bool,
    /// RFC 4616.
    pub plain: bool,
    /// LOGIN.
    pub login: bool,
}

impl Offers {
    fn of(reply: Reply<'_>) -> Self {
        let mut offers = Self::default();
        for line in reply.lines().skip(1) {
            let mut words = line.split(|&byte| byte == b' ' || byte == b'=');
            let keyword = words.next().unwrap_or_default();
            let is = |word: &str| keyword.eq_ignore_ascii_case(word.as_bytes());
            offers.pipelining |= is("PIPELINING");
            offers.chunking |= is("CHUNKING");
            offers.size |= is("SIZE");
            offers.eight_bit |= is("8BITMIME");
            offers.utf8 |= is("SMTPUTF8");
            offers.starttls |= is("STARTTLS");
            if is("AUTH") {
                for word in words {
                    offers.plain |= word.eq_ignore_ascii_case(b"PLAIN");
                    offers.login |= word.eq_ignore_ascii_case(b"LOGIN");
                }
            }
        }
        offers
    }
}

/// What to do next.
#[derive(Clone, PartialEq, Eq)]
pub enum Act {
    /// Send this line, and give the reply.
    Say(String),
    /// Wait for a reply.
    Hear,
    /// Make the connection TLS, then say so.
    Handshake,
    /// Messages may come.
    Ready,
    /// The session shall end here, as the plan says.
    Over,
    /// It did not work.
    Fail(Trouble),
}

/// A session up to its first message.
pub struct Opening<'p> {
    plan: &'p SmtpPlan,
    login: Option<&'p Login>,
    phase: Phase,
    secure: bool,
    /// HELO is what is said now, EHLO having been refused.
    plain_hello: bool,
    /// What LOGIN says last.
    secret: Option<String>,
    /// What the server offers.
    pub offers: Offers,
}

impl<'p> Opening<'p> {
    /// A session on a connection that was just made; `number` chooses who logs in.
    #[must_use]
    pub fn new(plan: &'p SmtpPlan, number: u64) -> (Self, Act) {
        let count = u64::try_from(plan.logins.len()).unwrap_or(u64::MAX);
        let login = number.checked_rem(count).and_then(|place| plan.logins.get(usize::try_from(place).ok()?));
        let mut opening = Self {
            plan,
            login,
            phase: Phase::Connect,
            secure: false,
            plain_hello: false,
            secret: None,
            offers: Offers::default(),
        };
        let act = if plan.end.phase() == Some(Phase::Connect) {
            Act::Over
        } else if plan.security == Security::Implicit {
            opening.phase = Phase::Tls;
            Act::Handshake
        } else {
            opening.phase = Phase::Banner;
            Act::Hear
        };
        (opening, act)
    }

    /// What is going on.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The handshake went well.
    pub fn secured(&mut self) -> Act {
        self.secure = true;
        if self.plan.end.phase() == Some(Phase::Tls) {
            return Act::Over;
        }
        if self.plan.security == Security::Implicit {
            self.phase = Phase::Banner;
            return Act::Hear;
        }
        self.hello()
    }

    /// The reply that was awaited.
    pub fn reply(&mut self, reply: Reply<'_>) -> Act {
        let code = reply.code;
        let done = self.phase;
        let refused = |class| Act::Fail(Trouble { phase: done, class, alive: code != 421 });
        let next = match done {
            Phase::Banner if code == 220 => self.hello(),
            Phase::Ehlo if code == 250 => {
                self.offers = if self.speaks_plainly() { Offers::default() } else { Offers::of(reply) };
                self.greeted()
            }
            Phase::Ehlo if code >= 500 && self.plan.hello == Hello::Ehlo && !self.plain_hello => {
                self.plain_hello = true;
                return self.hello();
            }
            Phase::Starttls if code == 220 => {
                self.phase = Phase::Tls;
                Act::Handshake
            }
            Phase::Starttls if self.plan.security == Security::Opportunistic => self.authenticate(),
            Phase::Auth if code == 235 => self.ready(),
            Phase::Auth if code == 334 => {
                return match self.secret.take() {
                    Some(secret) => Act::Say(secret),
                    None => refused(Class::Unexpected),
                };
            }
            _ => return refused(Class::of_code(code)),
        };
        // EHLO counts when no second one after STARTTLS is to come.
        let passed = done != Phase::Ehlo || self.phase != Phase::Starttls;
        if self.plan.end.phase() == Some(done) && passed { Act::Over } else { next }
    }

    fn speaks_plainly(&self) -> bool {
        self.plain_hello || self.plan.hello == Hello::Helo
    }

    fn hello(&mut self) -> Act {
        self.phase = Phase::Ehlo;
        let verb = match self.plan.hello {
            _ if self.speaks_plainly() => "HELO",
            Hello::Lhlo => "LHLO",
            Hello::Ehlo | Hello::Helo => "EHLO",
        };
        Act::Say(format!("{verb} {}\r\n", self.plan.name))
    }

    fn greeted(&mut self) -> Act {
        let wanted = match self.plan.security {
            Security::Off | Security::Implicit => false,
            Security::Opportunistic => self.offers.starttls,
            Security::Required => true,
        };
        if !wanted || self.secure {
            return self.authenticate();
        }
        if !self.offers.starttls {
            return self.missing(Phase::Starttls);
        }
        self.phase = Phase::Starttls;
        Act::Say("STARTTLS\r\n".to_owned())
    }

    fn missing(&self, phase: Phase) -> Act {
        Act::Fail(Trouble { phase, class: Class::MissingCapability, alive: true })
    }

    fn authenticate(&mut self) -> Act {
        let Some(Login { mechanism, user, password }) = self.login else { return self.ready() };
        let default = if self.offers.plain { Mechanism::Plain } else { Mechanism::Login };
        let mechanism = mechanism.unwrap_or(default);
        let offered = match mechanism {
            Mechanism::Plain => self.offers.plain,
            Mechanism::Login => self.offers.login,
            Mechanism::Xoauth2 => true,
        };
        if !offered || !(self.secure || self.plan.auth_in_clear) {
            return self.missing(Phase::Auth);
        }
        self.phase = Phase::Auth;
        Act::Say(match mechanism {
            Mechanism::Plain => {
                format!("AUTH PLAIN {}\r\n", STANDARD.encode(format!("\0{user}\0{password}")))
            }
            Mechanism::Login => {
                self.secret = Some(format!("{}\r\n", STANDARD.encode(password)));
                // The user goes with the command, as Postfix, Dovecot and Exchange take it.
                format!("AUTH LOGIN {}\r\n", STANDARD.encode(user))
            }
            Mechanism::Xoauth2 => {
                let text = format!("user={user}\x01auth=Bearer {password}\x01\x01");
                format!("AUTH XOAUTH2 {}\r\n", STANDARD.encode(text))
            }
        })
    }

    fn ready(&mut self) -> Act {
        let plan = self.plan;
        if plan.chunking == Chunking::Required && !self.offers.chunking {
            return self.missing(Phase::Body);
        }
        if plan.utf8 && !self.offers.utf8 {
            return self.missing(Phase::Mail);
        }
        Act::Ready
    }

    /// Whether commands may go out together.
    #[must_use]
    pub fn pipelines(&self) -> bool {
        match self.plan.pipeline {
            Pipeline::Off => false,
            Pipeline::Auto => self.offers.pipelining,
            Pipeline::Force => true,
        }
    }

    /// Whether content goes out by BDAT.
    #[must_use]
    pub fn chunks(&self) -> bool {
        self.plan.chunking != Chunking::Off && self.offers.chunking
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::End;
    use crate::smtp::reply::first;
    use proptest::prelude::*;

    /// What a plan says to these replies, and how it ends.
    fn talk(plan: &SmtpPlan, replies: &[&str]) -> (Vec<String>, Act) {
        let (mut opening, mut act) = Opening::new(plan, 0);
        let (mut said, mut replies) = (Vec::new(), replies.iter());
        loop {
            match act {
                Act::Say(line) => said.push(line.trim_end().to_owned()),
                Act::Hear => {}
                Act::Handshake => {
                    said.push("(tls)".to_owned());
                    act = opening.secured();
                    continue;
                }
                end => return (said, end),
            }
            let Some(reply) = replies.next() else { return (said, Act::Hear) };
            act = opening.reply(first(reply.replace('|', "\r\n").as_bytes()).unwrap().unwrap());
        }
    }

    fn plan() -> SmtpPlan {
        SmtpPlan { name: "me".into(), ..SmtpPlan::default() }
    }

    fn fail(phase: Phase, class: Class, alive: bool) -> Act {
        Act::Fail(Trouble { phase, class, alive })
    }

    const EHLO: &str = "250-x|250-STARTTLS|250-AUTH PLAIN LOGIN|250 PIPELINING|";

    #[test]
    fn a_session_is_opened_in_order() {
        let login = Login { mechanism: None, user: "u".into(), password: "p".into() };
        let full = SmtpPlan { security: Security::Required, logins: vec![login.clone()], ..plan() };
        let (said, end) = talk(&full, &["220 x|", EHLO, "220 go|", EHLO, "235 in|"]);
        assert_eq!(said, ["EHLO me", "STARTTLS", "(tls)", "EHLO me", "AUTH PLAIN AHUAcA=="]);
        assert!(end == Act::Ready);

        let login = Login { mechanism: Some(Mechanism::Login), ..login };
        let clear = SmtpPlan { logins: vec![login], auth_in_clear: true, ..plan() };
        let (said, end) = talk(&clear, &["220 x|", EHLO, "334 UGFzc3dvcmQ6|", "235 in|"]);
        assert_eq!(said, ["EHLO me", "AUTH LOGIN dQ==", "cA=="]);
        assert!(end == Act::Ready);

        let implicit = SmtpPlan { security: Security::Implicit, hello: Hello::Lhlo, ..plan() };
        let (said, _) = talk(&implicit, &["220 x|", EHLO]);
        assert_eq!(said, ["(tls)", "LHLO me"]);
    }

    #[test]
    fn what_goes_wrong_has_its_phase() {
        let required = SmtpPlan { security: Security::Required, ..plan() };
        let login = Login { mechanism: None, user: "u".into(), password: "p".into() };
        let auth = SmtpPlan { logins: vec![login], ..plan() };
        for (plan, replies, end) in [
            (&plan(), &["421 x|"][..], fail(Phase::Banner, Class::Tempfail, false)),
            (&plan(), &["554 x|"], fail(Phase::Banner, Class::Permfail, true)),
            (&plan(), &["220 x|", "450 x|"], fail(Phase::Ehlo, Class::Tempfail, true)),
            (&plan(), &["220 x|", "500 x|", "250 x|"], Act::Ready),
            (&plan(), &["220 x|", "500 x|", "500 x|"], fail(Phase::Ehlo, Class::Permfail, true)),
            (&plan(), &["250 x|"], fail(Phase::Banner, Class::Unexpected, true)),
            (&required, &["220 x|", "250 x|"], fail(Phase::Starttls, Class::MissingCapability, true)),
            (&required, &["220 x|", EHLO, "454 x|"], fail(Phase::Starttls, Class::Tempfail, true)),
            // No password in the clear.
            (&auth, &["220 x|", EHLO], fail(Phase::Auth, Class::MissingCapability, true)),
        ] {
            assert!(talk(plan, replies).1 == end, "{replies:?}");
        }
        let opportunistic = SmtpPlan { security: Security::Opportunistic, ..plan() };
        assert!(talk(&opportunistic, &["220 x|", "250 x|"]).1 == Act::Ready);
        assert!(talk(&opportunistic, &["220 x|", EHLO, "454 x|"]).1 == Act::Ready);
    }

    #[test]
    fn a_session_ends_after_the_phase_that_it_is_told_to() {
        let secure = |phase| SmtpPlan { security: Security::Required, end: End::Drop(phase), ..plan() };
        for (phase, said) in [
            (Phase::Connect, &[][..]),
            (Phase::Banner, &[]),
            (Phase::Starttls, &["EHLO me", "STARTTLS"]),
            (Phase::Tls, &["EHLO me", "STARTTLS", "(tls)"]),
            (Phase::Ehlo, &["EHLO me", "STARTTLS", "(tls)", "EHLO me"]),
        ] {
            let (all, end) = talk(&secure(phase), &["220 x|", EHLO, "220 x|", EHLO]);
            assert_eq!(all, said, "{phase:?}");
            assert!(end == Act::Over, "{phase:?}");
        }
    }

    proptest! {
        #[test]
        fn no_password_is_said_in_the_clear_whatever_a_server_says(
            replies in prop::collection::vec(prop_oneof![
                Just(EHLO), Just("220 x|"), Just("250 x|"), Just("334 x|"), Just("235 x|"), Just("454 x|"), Just("500 x|"),
            ], 0..9),
            security in prop_oneof![Just(Security::Off), Just(Security::Opportunistic), Just(Security::Required)],
        ) {
            let login = Login { mechanism: None, user: "u".into(), password: "p".into() };
            let (said, _) = talk(&SmtpPlan { security, logins: vec![login], ..plan() }, &replies);
            let tls = said.iter().position(|line| line == "(tls)").unwrap_or(usize::MAX);
            let auth = said.iter().position(|line| line.starts_with("AUTH"));
            prop_assert!(auth.is_none_or(|auth| auth > tls), "{:?}", said);
        }
    }
}
