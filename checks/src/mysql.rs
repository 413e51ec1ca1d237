//! The MySQL check: a login and a row (the client/server protocol, version 10), for MySQL and MariaDB.
//!
//! Owns the order of packets and what an answer means; [`packet`] has the bytes. Refuses to know sockets, prepared
//! statements and what is in a row. Fails with the server's error number where there is one.
//!
//! A client that leaves after the greeting is a connection error: after `max_connect_errors` of them in a row the server
//! shuts its host out (error 1129; MariaDB 10.11 does). So without a login a check logs in as a user that nobody has,
//! without a password: to be refused is an answer, costs the server one line in its log, and shuts nobody out.

mod packet;

use self::packet::{Greeting, Login, error};
use crate::credential::Credential;
use crate::smtp::reply::printable;
use crate::sql::SqlSpec;
use crate::talk::{Passed, Step, Talk, Trouble, Turn};
use crate::tls::{TlsMode, TlsSpec};
use crate::{Reason, Stage};

/// Who asks where there is no login.
const NOBODY: &str = "smtp-director";
/// One row is enough for us; a check should not make the server send a table.
const ONE_ROW: &str = "SET SQL_SELECT_LIMIT=1";

/// The conversation.
pub struct Dialogue<'a> {
    spec: &'a SqlSpec,
    credential: Option<Credential>,
    state: State,
    secured: bool,
    /// The number of the next packet of a command, the server's or ours.
    sequence: u8,
    greeting: Option<Greeting>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Greeting,
    Login,
    /// [`ONE_ROW`] was said.
    Limit,
    /// The statement was said.
    Answer,
    /// So many descriptions of columns are to come, and their end.
    Columns(u64),
    /// Rows until their end; whether one came.
    Rows(bool),
}

impl<'a> Dialogue<'a> {
    /// Before anything was said. A `credential` is one for `spec.login`.
    #[must_use]
    pub fn new(spec: &'a SqlSpec, credential: Option<Credential>) -> Self {
        Self { spec, credential, state: State::Greeting, secured: false, sequence: 0, greeting: None }
    }

    fn greeted(&mut self, payload: &[u8]) -> Result<Turn, Trouble> {
        let greeting = Greeting::read(payload).ok_or_else(|| Trouble::new(Reason::Protocol, payload))?;
        let received = vec![printable(&greeting.version)];
        let offered = greeting.offers_tls();
        self.greeting = Some(greeting);
        self.state = State::Login;
        let step = match &self.spec.tls {
            Some(_) if offered => {
                self.secured = true;
                let request = self.as_login().ssl_request();
                Step::Secure(self.numbered(&request))
            }
            Some(tls) if tls.mode != TlsMode::Opportunistic => {
                return Err(Trouble::new(Reason::MissingCapability, "the server does not offer TLS"));
            }
            _ => Step::Say(self.login()),
        };
        let passed = Passed { stage: Stage::Banner, code: None, sent: String::new(), received };
        Ok(Turn { step, passed: Some(passed) })
    }

    fn login(&mut self) -> Vec<u8> {
        let Some(greeting) = &self.greeting else { return Vec::new() };
        let response = self.as_login().response(greeting);
        self.numbered(&response)
    }

    fn as_login(&self) -> Login<'_> {
        let (user, password) = self.credential.as_ref().map_or((NOBODY, ""), Credential::pair);
        let database = self.credential.as_ref().and(self.spec.database.as_deref());
        Login { user, password, database, tls: self.secured }
    }

    /// The answer to a login.
    fn judged(&mut self, payload: &[u8]) -> Result<Turn, Trouble> {
        let (_, password) = self.credential.as_ref().map_or((NOBODY, ""), Credential::pair);
        match payload {
            [0, ..] => {
                let sent = format!("login {}", self.credential.as_ref().map_or(NOBODY, |c| c.pair().0));
                self.state = State::Limit;
                let step = match (&self.credential, &self.spec.request) {
                    (Some(_), Some(_)) => Step::Say(self.query(ONE_ROW)),
                    _ => Step::Leave,
                };
                let passed = self.passed(Stage::Auth, &sent);
                Ok(Turn { step, passed: Some(passed) })
            }
            // AuthSwitchRequest: a plugin, and what it wants signed.
            [0xfe, switch @ ..] => {
                let (plugin, data) = packet::split(switch);
                let answer = packet::scramble(plugin, password, data.strip_suffix(&[0]).unwrap_or(data));
                let answer = match answer {
                    Some(answer) => answer,
                    None if plugin == b"mysql_clear_password" && self.secured => packet::clear(password),
                    None => {
                        let text = [b"a way to log in that is not known here: ", plugin].concat();
                        return Err(Trouble::new(Reason::Unexpected, text));
                    }
                };
                Ok(Turn::just(Step::Say(self.numbered(&answer))))
            }
            // caching_sha2_password knows the password, or wants it itself.
            [1, 3] => Ok(Turn::just(Step::Listen)),
            [1, 4] if self.secured => Ok(Turn::just(Step::Say(self.numbered(&packet::clear(password))))),
            [1, 4] => {
                let text = "the server asks for the password itself, which is said inside TLS only";
                Err(Trouble::new(Reason::Unexpected, text))
            }
            _ => Err(Trouble::protocol("no answer to a login")),
        }
    }

    fn passed(&self, stage: Stage, sent: &str) -> Passed {
        Passed { stage, code: None, sent: printable(sent.as_bytes()), received: Vec::new() }
    }

    /// The answer to a statement, or a part of it.
    fn answered(&mut self, payload: &[u8]) -> Result<Turn, Trouble> {
        /// What ends columns and rows.
        fn is_end(payload: &[u8]) -> bool {
            payload.first() == Some(&0xfe) && payload.len() < 9
        }
        self.state = match (self.state, payload.first()) {
            (State::Answer, Some(0)) => {
                return Err(Trouble::new(Reason::Unexpected, "a statement that has no rows"));
            }
            (State::Answer, Some(&columns @ 1..=0xfa)) => State::Columns(columns.into()),
            (State::Answer, Some(0xfc)) => match payload.get(1..).and_then(<[u8]>::first_chunk) {
                Some(&columns) => State::Columns(u16::from_le_bytes(columns).into()),
                None => return Err(Trouble::protocol("half a number")),
            },
            (State::Columns(0), _) if is_end(payload) => State::Rows(false),
            (State::Columns(left @ 1..), Some(_)) => State::Columns(left - 1),
            (State::Rows(seen), _) if is_end(payload) => {
                if !seen {
                    return Err(Trouble::new(Reason::Unexpected, "no row"));
                }
                let sent = self.spec.request.as_deref().unwrap_or_default();
                return Ok(Turn { step: Step::Leave, passed: Some(self.passed(Stage::Request, sent)) });
            }
            (State::Rows(_), Some(_)) => State::Rows(true),
            _ => return Err(Trouble::protocol("no answer to a statement")),
        };
        Ok(Turn::just(Step::Listen))
    }

    /// A packet with the next number.
    fn numbered(&mut self, payload: &[u8]) -> Vec<u8> {
        let bytes = packet::packet(self.sequence, payload);
        self.sequence = self.sequence.wrapping_add(1);
        bytes
    }

    /// COM_QUERY.
    fn query(&mut self, statement: &str) -> Vec<u8> {
        self.sequence = 0;
        self.numbered(&[&[3], statement.as_bytes()].concat())
    }
}

impl Talk for Dialogue<'_> {
    fn stage(&self) -> Stage {
        match self.state {
            State::Greeting => Stage::Banner,
            State::Login => Stage::Auth,
            State::Limit | State::Answer | State::Columns(_) | State::Rows(_) => Stage::Request,
        }
    }

    fn open(&mut self) -> Step {
        Step::Listen
    }

    fn secured(&mut self) -> Step {
        Step::Say(self.login())
    }

    fn length(&self, bytes: &[u8]) -> Result<Option<usize>, Trouble> {
        let Some(&[a, b, c, sequence]) = bytes.first_chunk() else { return Ok(None) };
        if sequence != self.sequence {
            return Err(Trouble::new(Reason::Protocol, bytes));
        }
        let length = u32::from_le_bytes([a, b, c, 0]);
        Ok(Some(4 + usize::try_from(length).unwrap_or(usize::MAX)))
    }

    fn hear(&mut self, message: &[u8]) -> Result<Turn, Trouble> {
        self.sequence = self.sequence.wrapping_add(1);
        let payload = message.get(4..).unwrap_or_default();
        if let [0xff, said @ ..] = payload {
            let trouble = error(said);
            let refused = self.state == State::Login && trouble.reason == Reason::Permfail;
            if refused && self.credential.is_none() {
                let passed = Passed { code: trouble.code, ..self.passed(Stage::Auth, "") };
                return Ok(Turn { step: Step::Leave, passed: Some(passed) });
            }
            return Err(trouble);
        }
        match self.state {
            State::Greeting => self.greeted(payload),
            State::Login => self.judged(payload),
            State::Limit if payload.first() == Some(&0) => {
                self.state = State::Answer;
                let request = self.spec.request.as_deref().unwrap_or_default();
                Ok(Turn::just(Step::Say(self.query(request))))
            }
            State::Limit => Err(Trouble::protocol("no answer to a statement")),
            State::Answer | State::Columns(_) | State::Rows(_) => self.answered(payload),
        }
    }

    fn goodbye(&mut self) -> Vec<u8> {
        /// COM_QUIT.
        const QUIT: &[u8] = &[1];
        // Before the login is done the server takes any packet for a password.
        match self.state {
            State::Greeting | State::Login => Vec::new(),
            State::Limit | State::Answer | State::Columns(_) | State::Rows(_) => packet::packet(0, QUIT),
        }
    }

    fn tls(&self) -> Option<&TlsSpec> {
        self.spec.tls.as_ref()
    }

    fn credential(&self) -> Option<&Credential> {
        self.credential.as_ref()
    }
}

#[cfg(test)]
mod tests;
