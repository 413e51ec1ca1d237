//! EDGE: brings each question to its server.
//!
//! Owns what a question needs of this machine: files, random numbers, a connection. Refuses to know what is asked.
//! Fails with `local`, before the server is disturbed, where this machine does not have it.

use std::net::SocketAddr;

use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::time::Instant;

use crate::credential::{Credential, Login};
use crate::datagram::{self, Ended};
use crate::dns::{DnsSpec, Question};
use crate::external::{self, ExternalSpec};
use crate::http::{self, HttpSpec};
use crate::ldap::{self, LdapSpec};
use crate::line::{self, LineSpec};
use crate::mysql;
use crate::pgsql;
use crate::ping;
use crate::radius::{self, RadiusSpec};
use crate::run::{connect, system};
use crate::simple_tcp::{self, SimpleTcpSpec};
use crate::sip::{self, SipSpec};
use crate::smtp::reply::printable;
use crate::sql::SqlSpec;
use crate::stream::{Stream, open};
use crate::talk::{Talk, Trouble, converse};
use crate::tls::TlsSpec;
use crate::{CheckSpec, Failure, Outcome, Reason, Stage, Transport};

/// One check under way.
pub(crate) struct Visit<'a> {
    pub(crate) spec: &'a CheckSpec,
    pub(crate) start: Instant,
    pub(crate) deadline: Instant,
    pub(crate) outcome: &'a mut Outcome,
}

impl Visit<'_> {
    pub(crate) async fn http(self, spec: &HttpSpec) -> Result<(), Failure> {
        let stream = open(self.spec, spec.tls.as_ref(), self.deadline, self.outcome).await?;
        http::ask(stream, (spec, self.spec.target), self.deadline, self.outcome).await
    }

    pub(crate) async fn line(self, spec: &LineSpec) -> Result<(), Failure> {
        let credential = line::drive::prepare(spec)?;
        let stream = open(self.spec, spec.tls.as_ref(), self.deadline, self.outcome).await?;
        let server = line::drive::Server { stream, address: self.spec.target.ip() };
        line::drive::converse(server, (spec, credential), self.deadline, self.outcome).await
    }

    pub(crate) async fn simple_tcp(self, spec: &SimpleTcpSpec) -> Result<(), Failure> {
        let stream = open(self.spec, None, self.deadline, self.outcome).await?;
        simple_tcp::ask(stream, spec, self.deadline, self.outcome).await
    }

    pub(crate) async fn ping(self) -> Result<(), Failure> {
        ping::ask(self.spec, (random()?, self.deadline), self.outcome).await
    }

    pub(crate) async fn external(self, spec: &ExternalSpec) -> Result<(), Failure> {
        external::ask((spec, self.spec.target), self.deadline, self.outcome).await
    }

    pub(crate) async fn dns(mut self, spec: &DnsSpec) -> Result<(), Failure> {
        let id = u16::from_be_bytes(random()?);
        let mut question = Question::new(spec, id).map_err(|trouble| trouble.at(Stage::Request))?;
        if spec.transport == Transport::Udp {
            let socket = datagram::open(self.spec.target).await?;
            match datagram::ask(&socket, &question, self.deadline, self.outcome).await? {
                Ended::Well => return Ok(()),
                Ended::Truncated => {}
            }
        }
        self.talk(&mut question).await
    }

    pub(crate) async fn ldap(self, spec: &LdapSpec) -> Result<(), Failure> {
        let mut dialogue = ldap::Dialogue::new(spec, prepare(spec.tls.as_ref(), spec.login.as_ref())?);
        let stream = open(self.spec, spec.tls.as_ref(), self.deadline, self.outcome).await?;
        converse(stream, &mut dialogue, self.deadline, self.outcome).await
    }

    pub(crate) async fn mysql(mut self, spec: &SqlSpec) -> Result<(), Failure> {
        let credential = prepare(spec.tls.as_ref(), spec.login.as_ref())?;
        self.talk(&mut mysql::Dialogue::new(spec, credential)).await
    }

    pub(crate) async fn pgsql(mut self, spec: &SqlSpec) -> Result<(), Failure> {
        let credential = prepare(spec.tls.as_ref(), spec.login.as_ref())?;
        self.talk(&mut pgsql::Dialogue::new(spec, credential)).await
    }

    pub(crate) async fn radius(self, spec: &RadiusSpec) -> Result<(), Failure> {
        let secret = spec.secret.read().map_err(local(Stage::Auth))?;
        let credential = prepare(None, spec.login.as_ref())?;
        let request = radius::Request::new(secret, credential, random()?)
            .map_err(|trouble| trouble.at(Stage::Request))?;
        let socket = datagram::open(self.spec.target).await?;
        datagram::ask(&socket, &request, self.deadline, self.outcome).await.map(drop)
    }

    pub(crate) async fn sip(self, spec: &SipSpec) -> Result<(), Failure> {
        let (server, chance) = (self.spec.target, random()?);
        let options = |us: std::io::Result<SocketAddr>| {
            let us = us.map_err(|error| Trouble::from(system(&error)));
            us.and_then(|us| sip::Options::new(spec, (us, server), chance))
                .map_err(|trouble| trouble.at(Stage::Request))
        };
        match spec.transport {
            Transport::Udp => {
                let socket = datagram::open(server).await?;
                let options = options(socket.local_addr())?;
                datagram::ask(&socket, &options, self.deadline, self.outcome).await.map(drop)
            }
            Transport::Tcp => {
                let stream = connect(self.spec, self.start, self.deadline, self.outcome).await?;
                let mut options = options(stream.local_addr())?;
                converse(Stream::Plain(stream), &mut options, self.deadline, self.outcome).await
            }
        }
    }

    async fn talk(&mut self, talk: &mut impl Talk) -> Result<(), Failure> {
        let stream = open(self.spec, None, self.deadline, self.outcome).await?;
        converse(stream, talk, self.deadline, self.outcome).await
    }
}

fn local(stage: Stage) -> impl Fn(String) -> Failure {
    move |text| Failure { stage, reason: Reason::Local, code: None, text: printable(text.as_bytes()) }
}

fn prepare(tls: Option<&TlsSpec>, login: Option<&Login>) -> Result<Option<Credential>, Failure> {
    if let Some(tls) = tls {
        tls.prepare().map_err(local(Stage::Tls))?;
    }
    login.map(Login::read).transpose().map_err(local(Stage::Auth))
}

/// Bytes that nobody can guess.
fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map(|()| bytes).map_err(|_| local(Stage::Request)("no random numbers".to_owned()))
}
