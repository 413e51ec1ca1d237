//! FTP: vsftpd.

use std::process::Command;

use checks::line::FetchSpec;

use super::*;

fn start(name: &str, extra: &str) -> Server {
    let mut server = Server::prepare(name);
    for folder in ["empty", "ftp"] {
        std::fs::create_dir(server.path(folder)).unwrap();
    }
    server.write("ftp/state.txt", "all is well\n");
    let (folder, address) = (server.folder.path().display(), server.address);
    let text = format!(
        "listen=YES\nlisten_address={}\nlisten_port={}\nbackground=NO\nanon_root={folder}/ftp\n\
         secure_chroot_dir={folder}/empty\nnopriv_user=nobody\nftp_username=ftp\nseccomp_sandbox=NO\n\
         xferlog_enable=NO\nftpd_banner=ready\n{extra}",
        address.ip(),
        address.port()
    );
    let config = server.write("vsftpd.conf", &text);
    server.start(Command::new("/usr/sbin/vsftpd").arg(config));
    server
}

fn fetch(path: &str, receive: &str) -> Kind {
    let fetch = Some(FetchSpec { path: path.to_owned(), receive: pattern(receive) });
    Kind::Line(Box::new(LineSpec { fetch, ..line(Protocol::Ftp) }))
}

#[tokio::test]
#[ignore = "needs root and vsftpd: tests/run"]
async fn a_file_of_vsftpd_is_fetched_and_judged() {
    let mut server = start("vsftpd", "anonymous_enable=YES\n");
    let plain = Kind::Line(Box::new(line(Protocol::Ftp)));
    let outcome = server.until_well(&plain).await;
    assert_eq!(stages(&outcome), [Stage::Connect, Stage::Banner, Stage::Auth, Stage::Auth, Stage::Quit]);
    let outcome = server.check(&fetch("state.txt", "is well")).await;
    assert_eq!(outcome.verdict, Ok(()));
    let codes: Vec<_> = outcome.stages.iter().map(|report| report.code.unwrap_or(0)).collect();
    assert_eq!(codes, [0, 220, 331, 230, 200, 229, 150, 226, 221]);
    let request = |reason, code| (Stage::Request, reason, code);
    assert_eq!(server.failure(&fetch("state.txt", "is lost")).await, request(Reason::Mismatch, None));
    assert_eq!(server.failure(&fetch("nothing", "x")).await, request(Reason::Permfail, Some(550)));
    assert_eq!(server.silence(&plain).await, (Stage::Banner, Reason::Timeout));
    server.stop();
    assert_eq!(server.failure(&plain).await, (Stage::Connect, Reason::Refused, None));
}

#[tokio::test]
#[ignore = "needs root and vsftpd: tests/run"]
async fn a_vsftpd_that_refuses_the_login_is_seen() {
    let server = start("vsftpd-login", "anonymous_enable=NO\nlocal_enable=YES\n");
    server.until_well(&Kind::Connect).await;
    let plain = Kind::Line(Box::new(line(Protocol::Ftp)));
    assert_eq!(server.failure(&plain).await, (Stage::Auth, Reason::Permfail, Some(530)));
}
