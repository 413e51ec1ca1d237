//! Real PostgreSQL.

use std::path::PathBuf;
use std::process::Command;

use checks::sql::SqlSpec;
use checks::tls::TlsMode;
use checks::{Kind, Reason, Stage};

use super::{Server, run, stages, tls};

/// One statement a line, as the server takes them in its single-user mode.
const ROLES: &str = "\
CREATE ROLE probe LOGIN PASSWORD 'right';
CREATE ROLE plain LOGIN PASSWORD 'right';
SET password_encryption = md5;
CREATE ROLE old LOGIN PASSWORD 'right';
CREATE DATABASE mail;
GRANT pg_read_all_data TO probe, old;
";
const TABLES: &str = "\
CREATE TABLE alias AS SELECT 'postmaster' AS name FROM generate_series(1, 100000);
CREATE TABLE nothing (name text);
";

/// Runs as the user postgres: the server refuses to be root.
fn postgres(program: &str) -> Command {
    let newest = std::fs::read_dir("/usr/lib/postgresql").unwrap().map(|entry| entry.unwrap().path()).max();
    let program: PathBuf = newest.unwrap().join("bin").join(program);
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program).current_dir("/");
    command
}

fn start(name: &str, extra: &[&str]) -> Server {
    let mut server = Server::prepare(name);
    let (certificate, key) = server.certificate();
    run(Command::new("chown").arg("-R").arg("postgres:").arg(server.folder.path()));
    run(Command::new("chmod").arg("600").arg(&key));
    let data = server.path("data");
    run(postgres("initdb").args(["-D", &data, "-A", "trust", "-N", "--no-instructions", "-E", "UTF8"]));
    for (database, statements) in [("postgres", ROLES), ("mail", TABLES)] {
        let input = std::fs::File::open(server.write("setup.sql", statements)).unwrap();
        run(postgres("postgres").args(["--single", "-D", &data, database]).stdin(input));
    }
    let hba = "host all plain all password\nhost all old all md5\nhost all postgres all trust\nhost all all all scram-sha-256\n";
    std::fs::write(format!("{data}/pg_hba.conf"), hba).unwrap();
    let port = server.address.port().to_string();
    server.start(
        postgres("postgres")
            .args(["-D", &data, "-h", "127.0.0.90", "-p", &port, "-k", "", "-c", "fsync=off", "-c", "ssl=on"])
            .args(["-c", &format!("ssl_cert_file={certificate}"), "-c", &format!("ssl_key_file={key}")])
            .args(extra),
    );
    server
}

fn kind(spec: SqlSpec) -> Kind {
    Kind::Pgsql(Box::new(spec))
}

fn ask(server: &Server, user: &str, request: &str) -> SqlSpec {
    SqlSpec {
        login: Some(server.secret(user, &format!("{user}:right\n")).into()),
        database: Some("mail".to_owned()),
        request: Some(request.to_owned()),
        ..SqlSpec::default()
    }
}

#[tokio::test]
#[ignore = "needs root and postgresql: tests/run"]
async fn a_database_gives_a_row_to_whoever_may_log_in() {
    let server = start("pgsql-well", &[]);
    let every_row = "SELECT name FROM alias";
    // SCRAM-SHA-256, MD5, no password at all.
    for user in ["probe", "old", "postgres"] {
        let outcome = server.until_well(&kind(ask(&server, user, every_row))).await;
        assert_eq!(stages(&outcome), [Stage::Connect, Stage::Auth, Stage::Request, Stage::Quit], "{user}");
    }
    // The password itself is for TLS only.
    let plain = ask(&server, "plain", "SELECT 1");
    assert_eq!(server.failure(&kind(plain.clone())).await, (Stage::Auth, Reason::Unexpected, None));
    let ca = server.path("certificate.pem");
    let outcome = server.check(&kind(SqlSpec { tls: Some(tls(TlsMode::Required, &ca)), ..plain })).await;
    assert_eq!(outcome.verdict, Ok(()));
    assert!(outcome.tls.unwrap().verified);
    assert!(!server.log().contains("reset by peer"), "{}", server.log());

    let fails = |spec: SqlSpec| {
        let server = &server;
        async move {
            let failure = server.check(&kind(spec)).await.verdict.unwrap_err();
            (failure.stage, failure.reason, failure.text.split(' ').next().unwrap_or_default().to_owned())
        }
    };
    let told = |stage, reason, text: &str| (stage, reason, text.to_owned());
    let (request, permfail) = (Stage::Request, Reason::Permfail);
    assert_eq!(fails(ask(&server, "probe", "SELECT 1 FROM gone")).await, told(request, permfail, "42P01"));
    assert_eq!(
        fails(ask(&server, "probe", "SELECT 1 FROM nothing")).await,
        told(request, Reason::Unexpected, "no")
    );
    let spec = ask(&server, "probe", "SELECT 1");
    let wrong = SqlSpec { login: Some(server.secret("wrong", "probe:wrong\n").into()), ..spec.clone() };
    assert_eq!(fails(wrong).await, told(Stage::Auth, permfail, "28P01"));
    let gone = SqlSpec { database: Some("gone".to_owned()), ..spec.clone() };
    assert_eq!(fails(gone).await, told(Stage::Auth, permfail, "3D000"));
    assert_eq!(server.silence(&kind(spec)).await, (Stage::Auth, Reason::Timeout));
}

#[tokio::test]
#[ignore = "needs root and postgresql: tests/run"]
async fn a_check_without_a_login_leaves_no_line_in_the_log_and_sees_a_full_server() {
    let server = start(
        "pgsql-anonymous",
        // The last ends a statement whose client is gone.
        &[
            "-c",
            "max_connections=4",
            "-c",
            "superuser_reserved_connections=0",
            "-c",
            "max_wal_senders=0",
            "-c",
            "client_connection_check_interval=100",
        ],
    );
    let spec = kind(SqlSpec::default());
    server.until_well(&spec).await;
    let before = server.log();
    let outcome = server.check(&spec).await;
    assert_eq!(stages(&outcome), [Stage::Connect, Stage::Banner, Stage::Quit]);
    // A check with a login comes later in the log, had the other left anything there.
    server.check(&kind(ask(&server, "probe", "SELECT 1 FROM gone"))).await.verdict.unwrap_err();
    let log = server.log().split_off(before.len());
    assert!(log.contains("gone") && log.lines().all(|line| line.contains("gone")), "{log}");

    let slow = ask(&server, "probe", "SELECT pg_sleep(600)");
    let busy: Vec<_> = (0..12)
        .map(|_| {
            let spec = server.spec(kind(slow.clone()));
            // Again and again: while we look, a slot may be ours.
            tokio::spawn(async move {
                loop {
                    checks::run(&spec).await;
                }
            })
        })
        .collect();
    let full = async {
        loop {
            if let Err(failure) = server.check(&spec).await.verdict {
                return failure;
            }
        }
    };
    let failure = tokio::time::timeout(super::LIMIT, full).await.unwrap();
    assert_eq!((failure.stage, failure.reason), (Stage::Banner, Reason::Tempfail));
    assert!(failure.text.starts_with("53300 "), "{}", failure.text);
    busy.iter().for_each(tokio::task::JoinHandle::abort);
}
