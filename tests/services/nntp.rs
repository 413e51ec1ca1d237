//! NNTP: sn, which an inetd starts for each connection.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};

use super::*;
use crate::scratch::Folder;

/// What an inetd does, until the process ends.
fn inetd(program: &'static str, spool: &Path) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let spool = spool.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let input: OwnedFd = stream.try_clone().unwrap().into();
            let output: OwnedFd = stream.into();
            let mut command = Command::new(program);
            command.env("SNROOT", &spool).stdin(input).stdout(output).stderr(Stdio::null());
            let _ = command.status();
        }
    });
    address
}

#[tokio::test]
#[ignore = "needs root and sn: tests/run"]
async fn a_news_server_is_well_with_and_without_posting_and_ill_when_it_says_so() {
    let folder = Folder::new("news");
    let kind = Kind::Line(Box::new(line(Protocol::Nntp)));
    let limit = Duration::from_secs(30);
    // With posting and without.
    for (program, code) in [("/usr/sbin/snntpd", 200), ("/usr/sbin/snntpd.bin", 201)] {
        let target = inetd(program, folder.path());
        let spec =
            CheckSpec { target, kind: kind.clone(), deadline: limit, connect_timeout: limit, via: None };
        let outcome = checks::run(&spec).await;
        let codes: Vec<_> = outcome.stages.iter().map(|report| report.code.unwrap_or(0)).collect();
        assert_eq!((&outcome.verdict, codes), (&Ok(()), vec![0, code, 205]));
    }
    std::fs::write(folder.path().join(".noservice"), "the spool is full\n").unwrap();
    let ill = inetd("/usr/sbin/snntpd", folder.path());
    assert_eq!(failure(ill, kind).await, (Stage::Banner, Reason::Tempfail, Some(400)));
}
