//! Real slapd.

use std::process::Command;

use checks::ldap::LdapSpec;
use checks::tls::TlsMode;
use checks::{Kind, Reason, Stage};

use super::{Server, pattern, run, stages, tls};

const ENTRIES: &str = "\
dn: dc=example,dc=com
objectClass: dcObject
objectClass: organization
o: Example
dc: example

dn: cn=probe,dc=example,dc=com
objectClass: person
cn: probe
sn: a row of a recipient map
userPassword: right
";

fn slapd(name: &str) -> Server {
    let mut server = Server::prepare(name);
    let (certificate, key) = server.certificate();
    std::fs::create_dir(server.path("data")).unwrap();
    let (data, pid) = (server.path("data"), server.path("pid"));
    let configuration = server.write(
        "slapd.conf",
        &format!(
            "include /etc/ldap/schema/core.schema\nmodulepath /usr/lib/ldap\nmoduleload back_mdb\npidfile {pid}\n\
             TLSCertificateFile {certificate}\nTLSCertificateKeyFile {key}\n\
             database mdb\nmaxsize 1048576\nsuffix dc=example,dc=com\ndirectory {data}\n\
             access to attrs=userPassword by anonymous auth\naccess to * by * read\n"
        ),
    );
    let entries = server.write("entries.ldif", ENTRIES);
    run(Command::new("/usr/sbin/slapadd").args(["-f", &configuration, "-l", &entries]));
    start(&mut server);
    server
}

fn start(server: &mut Server) {
    let configuration = server.path("slapd.conf");
    let secure = std::net::SocketAddr::new("127.0.0.91".parse().unwrap(), server.address.port());
    let urls = format!("ldap://{}/ ldaps://{secure}/", server.address);
    server.start(Command::new("/usr/sbin/slapd").args(["-d", "0", "-h", &urls, "-f", &configuration]));
}

fn kind(spec: LdapSpec) -> Kind {
    Kind::Ldap(Box::new(spec))
}

#[tokio::test]
#[ignore = "needs root and slapd: tests/run"]
async fn a_directory_is_bound_to_and_searched() {
    let server = slapd("ldap-well");
    let outcome = server.until_well(&kind(LdapSpec::default())).await;
    assert_eq!(stages(&outcome), [Stage::Connect, Stage::Auth, Stage::Request, Stage::Quit]);

    let login = Some(server.secret("login", "cn=probe,dc=example,dc=com:right\n"));
    let entry = LdapSpec {
        login: login.map(Into::into),
        base: "cn=probe,dc=example,dc=com".to_owned(),
        ..LdapSpec::default()
    };
    for receive in [None, pattern("^cn=probe,dc=example,dc=com$"), pattern("^sn: a row")] {
        let outcome = server.check(&kind(LdapSpec { receive: receive.clone(), ..entry.clone() })).await;
        assert_eq!(outcome.verdict, Ok(()), "{receive:?}");
    }
    let other = LdapSpec { receive: pattern("^cn=other"), ..entry.clone() };
    assert_eq!(server.failure(&kind(other)).await, (Stage::Request, Reason::Mismatch, Some(0)));

    // noSuchObject, invalidDNSyntax, invalidCredentials.
    let gone = LdapSpec { base: "cn=gone,dc=example,dc=com".to_owned(), ..LdapSpec::default() };
    assert_eq!(server.failure(&kind(gone)).await, (Stage::Request, Reason::Permfail, Some(32)));
    let bad = LdapSpec { base: "no dn".to_owned(), ..LdapSpec::default() };
    assert_eq!(server.failure(&kind(bad)).await, (Stage::Request, Reason::Permfail, Some(34)));
    let login = Some(server.secret("wrong", "cn=probe,dc=example,dc=com:wrong\n"));
    let wrong = LdapSpec { login: login.map(Into::into), ..entry };
    assert_eq!(server.failure(&kind(wrong)).await, (Stage::Auth, Reason::Permfail, Some(49)));
}

#[tokio::test]
#[ignore = "needs root and slapd: tests/run"]
async fn a_directory_inside_tls_is_the_one_whose_certificate_is_trusted() {
    let mut server = slapd("ldap-tls");
    server.until_well(&kind(LdapSpec::default())).await;
    // The certificate is for the address of the plain port.
    server.address.set_ip("127.0.0.91".parse().unwrap());
    let ca = server.path("certificate.pem");
    let other = LdapSpec { tls: Some(tls(TlsMode::Implicit, &ca)), ..LdapSpec::default() };
    assert_eq!(server.failure(&kind(other.clone())).await, (Stage::Tls, Reason::CertificateName, None));
    let mut named = other;
    named.tls.as_mut().unwrap().name = Some("127.0.0.90".to_owned());
    let outcome = server.check(&kind(named)).await;
    assert_eq!(outcome.verdict, Ok(()));
    assert_eq!(stages(&outcome), [Stage::Connect, Stage::Tls, Stage::Auth, Stage::Request, Stage::Quit]);
    assert!(outcome.tls.unwrap().verified);
}

#[tokio::test]
#[ignore = "needs root and slapd: tests/run"]
async fn a_directory_that_hangs_or_is_gone_is_not_well() {
    let mut server = slapd("ldap-gone");
    let kind = kind(LdapSpec::default());
    server.until_well(&kind).await;
    assert_eq!(server.silence(&kind).await, (Stage::Auth, Reason::Timeout));
    server.until_well(&kind).await;
    server.stop();
    assert_eq!(server.failure(&kind).await, (Stage::Connect, Reason::Refused, None));
    start(&mut server);
    server.until_well(&kind).await;
}
