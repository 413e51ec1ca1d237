//! Real MariaDB.

use std::process::Command;

use checks::sql::SqlSpec;
use checks::tls::TlsMode;
use checks::{Kind, Reason, Stage};

use super::{Server, run, stages, tls};

const SETUP: &str = "\
CREATE DATABASE mail;
CREATE TABLE mail.alias (name VARCHAR(64), target VARCHAR(64));
CREATE TABLE mail.nothing (name VARCHAR(64));
INSERT INTO mail.alias VALUES ('postmaster', 'root'), ('abuse', 'root');
CREATE USER probe IDENTIFIED BY 'right';
GRANT SELECT ON mail.* TO probe;
CREATE USER watch IDENTIFIED BY 'watch';
";

fn mariadb(name: &str, extra: &[&str]) -> Server {
    let mut server = Server::prepare(name);
    let data = server.path("data");
    run(Command::new("mariadb-install-db").arg("--no-defaults").arg(format!("--datadir={data}")).args([
        "--user=root",
        "--auth-root-authentication-method=normal",
        "--skip-test-db",
    ]));
    let setup = server.write("setup.sql", SETUP);
    let (certificate, key) = server.certificate();
    server.start(
        Command::new("/usr/sbin/mariadbd")
            .args(["--no-defaults", "--user=root", "--bind-address=127.0.0.90", "--skip-name-resolve"])
            .arg(format!("--port={}", server.address.port()))
            .arg(format!("--datadir={data}"))
            .arg(format!("--socket={}", server.path("socket")))
            .arg(format!("--pid-file={}", server.path("pid")))
            .arg(format!("--init-file={setup}"))
            .arg(format!("--ssl-cert={certificate}"))
            .arg(format!("--ssl-key={key}"))
            .args(extra),
    );
    server
}

fn kind(spec: SqlSpec) -> Kind {
    Kind::Mysql(Box::new(spec))
}

fn ask(server: &Server, request: &str) -> SqlSpec {
    SqlSpec {
        login: Some(server.secret("login", "probe:right\n").into()),
        database: Some("mail".to_owned()),
        request: Some(request.to_owned()),
        ..SqlSpec::default()
    }
}

#[tokio::test]
#[ignore = "needs root and mariadb-server: tests/run"]
async fn a_database_gives_a_row() {
    let server = mariadb("mysql-well", &[]);
    let spec = ask(&server, "SELECT target FROM alias");
    let outcome = server.until_well(&kind(spec.clone())).await;
    let whole = [Stage::Connect, Stage::Banner, Stage::Auth, Stage::Request, Stage::Quit];
    assert_eq!(stages(&outcome), whole);

    let secure =
        SqlSpec { tls: Some(tls(TlsMode::Required, &server.path("certificate.pem"))), ..spec.clone() };
    let outcome = server.check(&kind(secure)).await;
    assert_eq!(outcome.verdict, Ok(()));
    assert!(outcome.tls.unwrap().verified);

    let fails = |spec: SqlSpec| {
        let server = &server;
        async move { server.failure(&kind(spec)).await }
    };
    let (request, permfail) = (Stage::Request, Reason::Permfail);
    // No such table, a wrong password, no such database.
    assert_eq!(fails(ask(&server, "SELECT 1 FROM gone")).await, (request, permfail, Some(1146)));
    assert_eq!(fails(ask(&server, "SELECT 1 FROM nothing")).await, (request, Reason::Unexpected, None));
    assert_eq!(fails(ask(&server, "SET @a = 1")).await, (request, Reason::Unexpected, None));
    let wrong = SqlSpec { login: Some(server.secret("wrong", "probe:wrong\n").into()), ..spec.clone() };
    assert_eq!(fails(wrong).await, (Stage::Auth, permfail, Some(1045)));
    let gone = SqlSpec { database: Some("gone".to_owned()), ..spec.clone() };
    assert_eq!(fails(gone).await, (Stage::Auth, permfail, Some(1044)));
    assert_eq!(server.silence(&kind(spec)).await, (Stage::Banner, Reason::Timeout));
}

#[tokio::test]
#[ignore = "needs root and mariadb-server: tests/run"]
async fn a_check_without_a_login_is_no_aborted_connection() {
    let server = mariadb("mysql-anonymous", &["--skip-ssl"]);
    let spec = SqlSpec::default();
    let outcome = server.until_well(&kind(spec.clone())).await;
    assert_eq!(stages(&outcome), [Stage::Connect, Stage::Banner, Stage::Auth, Stage::Quit]);
    assert_eq!(server.check(&kind(ask(&server, "SELECT 1"))).await.verdict, Ok(()));
    // What the server counts towards max_connect_errors it writes down like this.
    let log = server.log();
    assert!(log.contains("Access denied for user 'smtp-director'") && !log.contains("Aborted"), "{log}");
    let secure = SqlSpec { tls: Some(tls(TlsMode::Required, &server.path("certificate.pem"))), ..spec };
    assert_eq!(server.failure(&kind(secure)).await, (Stage::Banner, Reason::MissingCapability, None));
}

#[tokio::test]
#[ignore = "needs root and mariadb-server: tests/run"]
async fn a_database_without_a_free_connection_says_so() {
    let server = mariadb("mysql-full", &["--max-connections=10"]);
    server.until_well(&kind(ask(&server, "SELECT 1"))).await;
    let connect = || tokio::net::TcpStream::connect(server.address);
    let mut held = Vec::new();
    // One more than the limit is for an administrator.
    for _ in 0..12 {
        let stream = connect().await.unwrap();
        stream.readable().await.unwrap();
        held.push(stream);
    }
    let failure = server.failure(&kind(SqlSpec::default())).await;
    assert_eq!(failure, (Stage::Banner, Reason::Tempfail, Some(1040)));
}
