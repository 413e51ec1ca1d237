//! Real FreeRADIUS.

use std::process::Command;

use checks::radius::RadiusSpec;
use checks::{CheckSpec, Kind, Reason, Stage};

use super::{Server, stages};

fn freeradius(name: &str) -> Server {
    let mut server = Server::prepare(name);
    let users = server.write(
        "users",
        "probe Cleartext-Password := \"right\"\n long Cleartext-Password := \"twenty-two characters!\"\n"
            .replace("\n long", "\nlong")
            .as_str(),
    );
    let (folder, port) = (server.folder.path().display(), server.address.port());
    let configuration = format!(
        "prefix = /usr\nlogdir = {folder}\nrun_dir = {folder}\nlibdir = /usr/lib/freeradius\nmax_requests = 256\n\
         security {{\n allow_vulnerable_openssl = yes\n status_server = yes\n reject_delay = 0\n}}\n\
         client director {{\n ipaddr = 127.0.0.0/8\n secret = shared\n require_message_authenticator = yes\n}}\n\
         modules {{\n pap {{\n }}\n files {{\n filename = {users}\n }}\n}}\n\
         server default {{\n listen {{\n type = auth\n ipaddr = 127.0.0.90\n port = {port}\n }}\n\
         authorize {{\n files\n pap\n }}\n authenticate {{\n pap\n }}\n\
         post-auth {{\n Post-Auth-Type REJECT {{\n update reply {{\n Reply-Message := \"go away\"\n }}\n }}\n }}\n}}\n"
    );
    server.write("radiusd.conf", &configuration);
    let folder = server.path("");
    server.start(Command::new("/usr/sbin/freeradius").args(["-f", "-l", "stdout", "-d", &folder]));
    server
}

fn kind(server: &Server, login: Option<&str>, secret: &str) -> Kind {
    let login = login.map(|line| server.secret("login", line).into());
    Kind::Radius(Box::new(RadiusSpec { login, secret: server.secret("secret", secret).into() }))
}

#[tokio::test]
#[ignore = "needs root and freeradius: tests/run"]
async fn a_radius_server_knows_its_users_and_its_status() {
    let mut server = freeradius("radius");
    let outcome = server.until_well(&kind(&server, None, "shared\n")).await;
    assert_eq!(stages(&outcome), [Stage::Request]);
    for login in ["probe:right\n", "long:twenty-two characters!\n"] {
        let outcome = server.check(&kind(&server, Some(login), "shared\n")).await;
        assert_eq!(outcome.verdict, Ok(()), "{login}: {}", server.log());
    }
    let wrong = kind(&server, Some("probe:wrong\n"), "shared\n");
    let failure = server.check(&wrong).await.verdict.unwrap_err();
    assert_eq!((failure.stage, failure.reason, failure.code), (Stage::Request, Reason::Permfail, Some(3)));
    assert_eq!(failure.text, "Access-Reject go away");

    // A request that is signed with another secret is not answered.
    let stranger = kind(&server, None, "other\n");
    let spec = CheckSpec { deadline: std::time::Duration::from_secs(1), ..server.spec(stranger) };
    let failure = checks::run(&spec).await.verdict.unwrap_err();
    assert_eq!((failure.stage, failure.reason), (Stage::Request, Reason::Timeout));
    let kind = kind(&server, None, "shared\n");
    assert_eq!(server.silence(&kind).await, (Stage::Request, Reason::Timeout));
    server.stop();
    assert_eq!(server.failure(&kind).await, (Stage::Connect, Reason::Refused, None));
}
