//! EDGE: one line from one agent.
//!
//! Owns the connection or the command, its deadline and the most that is read. Refuses to know what was said before. Fails with
//! the word for it and a text for people; nothing that an agent sends can do more than that.
#![expect(clippy::disallowed_methods, reason = "EDGE: an answer has a deadline")]

use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::path::Path;
use std::sync::Arc;

use checks::external::{self, Said};
use postfix::report::agent::{Line, MAX_LINE, parse};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use crate::config::{AgentPlan, AgentSource, AgentTls};
use crate::heard::NoData;

/// Largest file of certificates or keys, in bytes.
const MOST_OF_FILE: u64 = 1 << 20;

type Trouble = (NoData, String);

/// Asks once.
pub(super) async fn fetch(plan: &AgentPlan) -> Result<Line, Trouble> {
    let deadline = Instant::now() + plan.deadline;
    let said = match &plan.source {
        AgentSource::Tcp { address, tls } => {
            let asked = async {
                let stream = TcpStream::connect(address).await.map_err(|error| network(&error))?;
                match tls {
                    None => read(stream).await.map_err(|error| network(&error)),
                    Some(tls) => read(secured(stream, tls).await?).await.map_err(|error| network(&error)),
                }
            };
            timeout_at(deadline, asked).await.map_err(|_| late(plan))??
        }
        AgentSource::Command { program, arguments } => {
            match external::say(program, arguments, deadline).await {
                Said::This(said) => said,
                Said::No(text) => return Err((NoData::Failed, text)),
                Said::Nothing => return Err(late(plan)),
                Said::NotStarted(text) => return Err((NoData::Local, text)),
            }
        }
    };
    parse(&said).map_err(|error| (error.into(), error.to_string()))
}

fn late(plan: &AgentPlan) -> Trouble {
    (NoData::Timeout, format!("nothing within {} ms", plan.deadline.as_millis()))
}

/// Reads a line, or more than a line may have. Who goes on after it, or leaves the connection open, is not waited for.
async fn read(mut stream: impl AsyncRead + Unpin) -> io::Result<Vec<u8>> {
    let mut said = Vec::with_capacity(MAX_LINE);
    let mut piece = [0; MAX_LINE];
    loop {
        let length = stream.read(&mut piece).await?;
        said.extend_from_slice(piece.get(..length).unwrap_or_default());
        if length == 0 || said.contains(&b'\n') || said.len() > MAX_LINE {
            return Ok(said);
        }
    }
}

fn network(error: &io::Error) -> Trouble {
    let reason = match error.kind() {
        ErrorKind::ConnectionRefused => NoData::Refused,
        ErrorKind::HostUnreachable => NoData::Unreachable,
        ErrorKind::TimedOut => NoData::Timeout,
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => NoData::Reset,
        ErrorKind::UnexpectedEof => NoData::Cut,
        ErrorKind::InvalidData => NoData::Tls,
        _ => NoData::Local,
    };
    (reason, error.to_string())
}

async fn secured(
    stream: TcpStream,
    tls: &AgentTls,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, Trouble> {
    // Read anew each time: certificates are renewed, and an interval is long.
    let files = tls.clone();
    let config = tokio::task::spawn_blocking(move || client(&files)).await;
    let config = config.map_err(|error| error.to_string()).and_then(|config| config);
    let config = config.map_err(|text| (NoData::Local, text))?;
    let name = match &tls.name {
        Some(name) => {
            ServerName::try_from(name.clone()).map_err(|error| (NoData::Local, error.to_string()))?
        }
        None => stream.peer_addr().map_err(|error| network(&error))?.ip().into(),
    };
    let connector = TlsConnector::from(Arc::new(config));
    let secured = Box::pin(connector.connect(name, stream)).await;
    secured.map_err(|error| match error.kind() {
        ErrorKind::InvalidData | ErrorKind::UnexpectedEof => (NoData::Tls, error.to_string()),
        _ => network(&error),
    })
}

fn client(tls: &AgentTls) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&tls.ca_file)? {
        roots.add(certificate).map_err(|error| trouble(&tls.ca_file, &error))?;
    }
    let key = PrivateKeyDer::from_pem_slice(&contents(&tls.key)?);
    let key = key.map_err(|_| trouble(&tls.key, &"no private key in PEM"))?;
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_client_auth_cert(certificates(&tls.certificate)?, key)
        .map_err(|error| trouble(&tls.certificate, &error))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = contents(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    found.ok().filter(|found| !found.is_empty()).ok_or_else(|| trouble(path, &"no certificates in PEM"))
}

fn contents(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let file = File::open(path).and_then(|file| file.take(MOST_OF_FILE).read_to_end(&mut bytes));
    file.map(|_| bytes).map_err(|error| trouble(path, &error))
}

fn trouble(path: &Path, what: &dyn std::fmt::Display) -> String {
    format!("{}: {what}", path.display())
}
