//! The PostgreSQL check: a login and a row (the frontend/backend protocol, version 3).
//!
//! Owns the order of messages and what an answer means; postgres-protocol knows the bytes, and the passwords of MD5 and
//! SCRAM-SHA-256. Refuses to know sockets. Fails with the server's SQLSTATE in the text.
//!
//! Without a login the server is asked for a session and left at its question for a password: by then it has said
//! whether it starts up, shuts down or has no slot left, and it logs nothing. One that knows nobody of our name at all
//! logs a refusal, and is well.

use std::io;

use bytes::BytesMut;
use fallible_iterator::FallibleIterator as _;
use postgres_protocol::IsNull;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::backend::{ErrorFields, Message};
use postgres_protocol::message::frontend;

use crate::credential::Credential;
use crate::smtp::reply::printable;
use crate::sql::SqlSpec;
use crate::talk::{Passed, Step, Talk, Trouble, Turn};
use crate::tls::{TlsMode, TlsSpec};
use crate::{Reason, Stage};

/// Who asks where there is no login, and what every session is called.
const OURSELVES: &str = "smtp-director";

/// The conversation.
pub struct Dialogue<'a> {
    spec: &'a SqlSpec,
    credential: Option<Credential>,
    state: State,
    secured: bool,
}

enum State {
    /// SSLRequest was said.
    Offer,
    /// The session begins, and the server asks for a password or not.
    Login,
    /// SCRAM is under way.
    Scram(Box<ScramSha256>),
    /// The statement was said; whether a row came.
    Rows(bool),
}

impl<'a> Dialogue<'a> {
    /// Before anything was said. A `credential` is one for `spec.login`.
    #[must_use]
    pub fn new(spec: &'a SqlSpec, credential: Option<Credential>) -> Self {
        let state = if spec.tls.is_some() { State::Offer } else { State::Login };
        Self { spec, credential, state, secured: false }
    }

    fn startup(&self) -> Step {
        let user = self.credential.as_ref().map_or(OURSELVES, |credential| credential.pair().0);
        let mut parameters = vec![("user", user), ("application_name", OURSELVES)];
        if let Some(database) = &self.spec.database {
            parameters.push(("database", database));
        }
        // Fails for a NUL only, which no credential has; the server then sees a startup without a user.
        let mut buffer = BytesMut::new();
        let _ = frontend::startup_message(parameters, &mut buffer);
        Step::Say(buffer.to_vec())
    }

    /// What follows from the server's question for a password.
    fn log_in(&mut self, question: &Message) -> Result<Turn, Trouble> {
        let Some(credential) = &self.credential else { return Ok(self.is_there()) };
        let (user, password) = credential.pair();
        let password = password.as_bytes();
        let step = match question {
            Message::AuthenticationMd5Password(body) => {
                let hash = md5_hash(user.as_bytes(), password, body.salt());
                say(|buffer| frontend::password_message(hash.as_bytes(), buffer))?
            }
            Message::AuthenticationSasl(body) => {
                let known = body.mechanisms().any(|mechanism| Ok(mechanism == SCRAM_SHA_256));
                if !known.map_err(malformed)? {
                    return Err(Trouble::new(Reason::Unexpected, "the server does not offer SCRAM-SHA-256"));
                }
                let scram = ScramSha256::new(password, ChannelBinding::unsupported());
                let first =
                    say(|buffer| frontend::sasl_initial_response(SCRAM_SHA_256, scram.message(), buffer))?;
                self.state = State::Scram(Box::new(scram));
                first
            }
            Message::AuthenticationCleartextPassword if self.secured => {
                say(|buffer| frontend::password_message(password, buffer))?
            }
            Message::AuthenticationCleartextPassword => {
                let text = "the server asks for the password itself, which is said inside TLS only";
                return Err(Trouble::new(Reason::Unexpected, text));
            }
            _ => return Err(Trouble::new(Reason::Unexpected, "a way to log in that is not known here")),
        };
        Ok(Turn::just(step))
    }

    /// Without a login there is nothing more to ask.
    fn is_there(&self) -> Turn {
        Turn { step: Step::Leave, passed: Some(self.passed(Stage::Banner, "startup")) }
    }

    fn passed(&self, stage: Stage, sent: &str) -> Passed {
        Passed { stage, code: None, sent: printable(sent.as_bytes()), received: Vec::new() }
    }

    /// The server waits for a statement.
    fn ready(&self) -> Result<Turn, Trouble> {
        match (&self.state, &self.spec.request) {
            (State::Rows(true), Some(request)) => {
                Ok(Turn { step: Step::Leave, passed: Some(self.passed(Stage::Request, request)) })
            }
            (State::Rows(false), _) => Err(Trouble::new(Reason::Unexpected, "no row")),
            (_, None) => Ok(Turn { step: Step::Leave, passed: Some(self.passed(Stage::Auth, "startup")) }),
            (_, Some(request)) => {
                // The extended protocol, because it can ask for one row only.
                let step = say(|buffer| {
                    frontend::parse("", request, [], buffer)?;
                    let none = |(), _: &mut BytesMut| Ok(IsNull::Yes);
                    frontend::bind("", "", [], [], none, [], buffer)
                        .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
                    frontend::execute("", 1, buffer)?;
                    frontend::sync(buffer);
                    Ok(())
                })?;
                Ok(Turn { step, passed: Some(self.passed(Stage::Auth, "startup")) })
            }
        }
    }

    /// The answer to SSLRequest.
    fn offered(&mut self, answer: &[u8]) -> Result<Turn, Trouble> {
        let may = self.spec.tls.as_ref().is_some_and(|tls| tls.mode == TlsMode::Opportunistic);
        self.state = State::Login;
        match answer {
            b"S" => Ok(Turn::just(Step::Secure(Vec::new()))),
            b"N" if may => Ok(Turn::just(self.startup())),
            b"N" => Err(Trouble::new(Reason::MissingCapability, "the server does not offer TLS")),
            _ => Err(Trouble::protocol("no answer to SSLRequest")),
        }
    }
}

impl Talk for Dialogue<'_> {
    fn stage(&self) -> Stage {
        match self.state {
            State::Offer => Stage::Tls,
            State::Login if self.credential.is_none() => Stage::Banner,
            State::Login | State::Scram(_) => Stage::Auth,
            State::Rows(_) => Stage::Request,
        }
    }

    fn open(&mut self) -> Step {
        if !matches!(self.state, State::Offer) {
            return self.startup();
        }
        let mut buffer = BytesMut::new();
        frontend::ssl_request(&mut buffer);
        Step::Say(buffer.to_vec())
    }

    fn secured(&mut self) -> Step {
        self.secured = true;
        self.startup()
    }

    fn length(&self, bytes: &[u8]) -> Result<Option<usize>, Trouble> {
        if matches!(self.state, State::Offer) {
            return Ok((!bytes.is_empty()).then_some(1));
        }
        let Some(&[kind, a, b, c, d]) = bytes.first_chunk() else { return Ok(None) };
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        let login = matches!(self.state, State::Login | State::Scram(_));
        if length < 4 || login && !b"RENSKZ".contains(&kind) {
            return Err(Trouble::new(Reason::Protocol, bytes));
        }
        Ok(Some(length.saturating_add(1)))
    }

    fn hear(&mut self, message: &[u8]) -> Result<Turn, Trouble> {
        if matches!(self.state, State::Offer) {
            return self.offered(message);
        }
        let message = Message::parse(&mut BytesMut::from(message)).map_err(malformed)?;
        let Some(message) = message else { return Err(Trouble::protocol("half a message")) };
        match (&mut self.state, &message) {
            (
                _,
                Message::NoticeResponse(_)
                | Message::ParameterStatus(_)
                | Message::BackendKeyData(_)
                | Message::NotificationResponse(_),
            ) => Ok(Turn::just(Step::Listen)),
            (_, Message::ErrorResponse(body)) => {
                let trouble = judge(body.fields())?;
                let refused = self.credential.is_none() && trouble.reason == Reason::Permfail;
                if refused { Ok(self.is_there()) } else { Err(trouble) }
            }
            (State::Scram(scram), Message::AuthenticationSaslContinue(body)) => {
                scram.update(body.data()).map_err(malformed)?;
                say(|buffer| frontend::sasl_response(scram.message(), buffer)).map(Turn::just)
            }
            (State::Scram(scram), Message::AuthenticationSaslFinal(body)) => {
                scram.finish(body.data()).map_err(malformed)?;
                self.state = State::Login;
                Ok(Turn::just(Step::Listen))
            }
            (State::Login, Message::AuthenticationOk) => Ok(match self.credential {
                Some(_) => Turn::just(Step::Listen),
                None => self.is_there(),
            }),
            (State::Login, Message::ReadyForQuery(_)) if self.credential.is_some() => {
                let turn = self.ready()?;
                self.state = State::Rows(false);
                Ok(turn)
            }
            (State::Login, question) => self.log_in(question),
            (State::Rows(seen), Message::DataRow(_)) => {
                *seen = true;
                Ok(Turn::just(Step::Listen))
            }
            (State::Rows(_), Message::ReadyForQuery(_)) => self.ready(),
            (
                State::Rows(_),
                Message::ParseComplete
                | Message::BindComplete
                | Message::PortalSuspended
                | Message::CommandComplete(_)
                | Message::EmptyQueryResponse,
            ) => Ok(Turn::just(Step::Listen)),
            _ => Err(Trouble::protocol("a message out of turn")),
        }
    }

    fn goodbye(&mut self) -> Vec<u8> {
        // Before the login is done the server takes any message for a password.
        if !matches!(self.state, State::Rows(_)) {
            return Vec::new();
        }
        let mut buffer = BytesMut::new();
        frontend::terminate(&mut buffer);
        buffer.to_vec()
    }

    fn tls(&self) -> Option<&TlsSpec> {
        self.spec.tls.as_ref()
    }

    fn credential(&self) -> Option<&Credential> {
        self.credential.as_ref()
    }
}

/// What to say; what cannot be said has a NUL.
fn say(write: impl FnOnce(&mut BytesMut) -> io::Result<()>) -> Result<Step, Trouble> {
    let mut buffer = BytesMut::new();
    write(&mut buffer).map_err(|error| Trouble::new(Reason::Local, error.to_string()))?;
    Ok(Step::Say(buffer.to_vec()))
}

/// What an ErrorResponse says. By the class of its SQLSTATE (appendix A of the manual) it is the server's own trouble
/// that may pass, or its answer.
fn judge(fields: ErrorFields<'_>) -> Result<Trouble, Trouble> {
    let (mut state, mut text) = (Vec::new(), Vec::new());
    fields
        .for_each(|field| {
            match field.type_() {
                b'C' => state = field.value_bytes().to_vec(),
                b'M' => text = field.value_bytes().to_vec(),
                _ => {}
            }
            Ok(())
        })
        .map_err(malformed)?;
    let reason = match state.get(..2) {
        // Connection, rollback, resources, not in the right state, operator intervention, system, internal.
        Some(b"08" | b"40" | b"53" | b"55" | b"57" | b"58" | b"XX") => Reason::Tempfail,
        _ => Reason::Permfail,
    };
    Ok(Trouble::new(reason, [&state, b" ".as_slice(), &text].concat()))
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn malformed(error: io::Error) -> Trouble {
    Trouble::protocol(&error.to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::talk::tests::tell;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        [&[kind], &length[..], body].concat()
    }

    fn told(tls: Option<TlsMode>, login: Option<&str>, says: &[Vec<u8>]) -> Option<Result<(), Reason>> {
        let tls = tls.map(|mode| TlsSpec { mode, ..TlsSpec::default() });
        let spec = SqlSpec { tls, request: Some("SELECT 1".to_owned()), ..SqlSpec::default() };
        let credential = login.and_then(Credential::parse);
        let told = tell(&mut Dialogue::new(&spec, credential), &says.concat());
        told.verdict.map(|verdict| verdict.map_err(|trouble| trouble.reason))
    }

    #[test]
    fn each_answer_means_what_its_sqlstate_says() {
        let failed = |state: &str| message(b'E', format!("SFATAL\0C{state}\0Mbecause\0\0").as_bytes());
        let login = Some("probe:right");
        let (tempfail, permfail) = (Some(Err(Reason::Tempfail)), Some(Err(Reason::Permfail)));
        for (state, with, without) in [
            // Too many clients, starting up, shutting down.
            ("53300", &tempfail, &tempfail),
            ("57P03", &tempfail, &tempfail),
            ("57P01", &tempfail, &tempfail),
            // A wrong password, no such database: without a login that is an answer.
            ("28P01", &permfail, &Some(Ok(()))),
            ("3D000", &permfail, &Some(Ok(()))),
        ] {
            assert_eq!(&told(None, login, &[failed(state)]), with, "{state}");
            assert_eq!(&told(None, None, &[failed(state)]), without, "{state}");
        }
        assert_eq!(told(None, login, &[message(b'E', b"S\xff")]), Some(Err(Reason::Protocol)));
    }

    #[test]
    fn a_server_without_tls_will_do_if_it_is_told_so() {
        let question = message(b'R', &[0, 0, 0, 3]);
        let says = |first: &[u8]| vec![first.to_vec(), question.clone()];
        assert_eq!(told(Some(TlsMode::Required), None, &says(b"S")), Some(Ok(())));
        assert_eq!(told(Some(TlsMode::Opportunistic), None, &says(b"N")), Some(Ok(())));
        assert_eq!(told(Some(TlsMode::Required), None, &says(b"N")), Some(Err(Reason::MissingCapability)));
        assert_eq!(told(Some(TlsMode::Opportunistic), None, &says(b"E")), Some(Err(Reason::Protocol)));
        // The password itself, inside TLS and not.
        let login = Some("probe:right");
        assert_eq!(told(Some(TlsMode::Required), login, &says(b"S")), None);
        assert_eq!(told(None, login, &[question]), Some(Err(Reason::Unexpected)));
    }

    #[test]
    fn a_server_that_would_have_us_count_forever_is_none() {
        let sasl = message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0");
        let spec = SqlSpec::default();
        let mut dialogue = Dialogue::new(&spec, Credential::parse("probe:right"));
        let step = dialogue.hear(&sasl).unwrap().step;
        let Step::Say(first) = step else { panic!("{step:?}") };
        let nonce = String::from_utf8_lossy(&first).split("r=").nth(1).unwrap().to_owned();
        let next = format!("\0\0\0\x0br={nonce}x,s=c2FsdA==,i=4294967295");
        let trouble = dialogue.hear(&message(b'R', next.as_bytes())).unwrap_err();
        assert_eq!(trouble.reason, Reason::Protocol);
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_odd(bytes: Vec<u8>, kind in "[A-Za-z0-9]", bodies: Vec<Vec<u8>>) {
            let says: Vec<_> = bodies.iter().map(|body| message(kind.as_bytes()[0], body)).collect();
            let ready = [message(b'R', &[0; 4]), message(b'Z', b"I")];
            for login in [None, Some("probe:right")] {
                told(None, login, std::slice::from_ref(&bytes));
                told(Some(TlsMode::Opportunistic), login, std::slice::from_ref(&bytes));
                told(None, login, &says);
                told(None, login, &[&ready[..], &says].concat());
            }
        }
    }
}
