//! Checks of the web, of mailboxes, news, files, hosts and commands: against real servers, private instances on loopback
//! with all that they write in one folder; and against servers that no honest program is.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "also in the functions that the tests share")]

mod apache;
mod between;
mod commands;
mod dovecot;
mod ftp;
mod hostile;
mod nntp;
mod ping;

use std::net::SocketAddr;
use std::time::Duration;

use checks::line::{LineSpec, LoginSpec, Protocol};
use checks::smtp::AuthOver;
use checks::tls::{TlsMode, TlsSpec, Verify};
use checks::{CheckSpec, Kind, Reason, Stage};
use rcgen::{CertificateParams, KeyPair, date_time_ymd};

use crate::databases::{Server, pattern, stages};

const NAME: &str = "www.example.com";

/// A certificate for [`NAME`] until the start of a year, and its key, in files; it is its own issuer.
fn certificate_until(server: &Server, year: i32) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
    params.not_before = date_time_ymd(2001, 1, 1);
    params.not_after = date_time_ymd(year, 1, 1);
    let certificate = params.self_signed(&key).unwrap();
    let file = |what: &str, text: &str| server.write(&format!("{what}-{year}.pem"), text);
    (file("certificate", &certificate.pem()), file("key", &key.serialize_pem()))
}

/// TLS with the first byte, by a certificate for [`NAME`] that is its own issuer.
fn implicit(certificate: &str) -> TlsSpec {
    TlsSpec {
        mode: TlsMode::Implicit,
        verify: Verify::Name,
        name: Some(NAME.to_owned()),
        ca_file: certificate.into(),
        ..TlsSpec::default()
    }
}

/// An address beside the one that the server has already.
fn another_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.90:0").unwrap().local_addr().unwrap()
}

fn line(protocol: Protocol) -> LineSpec {
    LineSpec { protocol, tls: None, login: None, fetch: None }
}

fn login(file: std::path::PathBuf) -> Option<LoginSpec> {
    Some(LoginSpec { from: file.into(), over: AuthOver::Anything })
}

/// How a check of another port fails.
async fn failure(target: SocketAddr, kind: Kind) -> (Stage, Reason, Option<u16>) {
    let limit = Duration::from_secs(30);
    let spec = CheckSpec { target, kind, deadline: limit, connect_timeout: limit, via: None };
    let failure = checks::run(&spec).await.verdict.expect_err("not well");
    (failure.stage, failure.reason, failure.code)
}
