//! HTTP, HTTPS and a proxy: Apache.

use std::process::Command;

use checks::http::{HttpSpec, Method};

use super::*;

/// Two virtual hosts in the clear, one in TLS, one whose certificate has expired.
struct Apache {
    server: Server,
    secure: SocketAddr,
    expired: SocketAddr,
    certificate: String,
}

fn start() -> Apache {
    let mut server = Server::prepare("apache");
    let (secure, expired) = (another_address(), another_address());
    let (certificate, key) = certificate_until(&server, 2100);
    let (old, old_key) = certificate_until(&server, 2002);
    let folder = server.folder.path().display().to_string();
    for (site, text) in [("a", "all is well at a\n"), ("b", "all is well at b\n")] {
        std::fs::create_dir(server.path(site)).unwrap();
        server.write(&format!("{site}/index.html"), text);
    }
    let modules: String =
        ["mpm_event", "authz_core", "dir", "alias", "ssl", "socache_shmcb", "proxy", "proxy_http"]
            .iter()
            .map(|name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"))
            .collect();
    let address = server.address;
    let config = server.write(
        "apache.conf",
        &format!(
            "ServerRoot {folder}\nPidFile {folder}/pid\nErrorLog {folder}/error.log\nMutex file:{folder}\n\
             DefaultRuntimeDir {folder}\nUser www-data\nGroup www-data\nServerName www.example.com\nStartServers 1\n\
             LogLevel info\n\
             {modules}DirectoryIndex index.html\nListen {address}\nListen {secure}\nListen {expired}\n\
             Redirect 503 /down\nRedirect 301 /moved http://elsewhere.example/\nProxyTimeout 5\n\
             <VirtualHost {address}>\nServerName a.example\nDocumentRoot {folder}/a\nProxyRequests On\n</VirtualHost>\n\
             <VirtualHost {address}>\nServerName b.example\nDocumentRoot {folder}/b\n</VirtualHost>\n\
             <VirtualHost {secure}>\nServerName www.example.com\nDocumentRoot {folder}/a\nSSLEngine on\n\
             SSLCertificateFile {certificate}\nSSLCertificateKeyFile {key}\n</VirtualHost>\n\
             <VirtualHost {expired}>\nServerName www.example.com\nDocumentRoot {folder}/a\nSSLEngine on\n\
             SSLCertificateFile {old}\nSSLCertificateKeyFile {old_key}\n</VirtualHost>\n"
        ),
    );
    server.start(Command::new("/usr/sbin/apache2").args(["-DFOREGROUND", "-f", &config]));
    Apache { server, secure, expired, certificate }
}

fn page(target: &str) -> HttpSpec {
    HttpSpec { tls: None, method: Method::Get, target: target.to_owned(), host: None, receive: None }
}

fn http(spec: HttpSpec) -> Kind {
    Kind::Http(Box::new(spec))
}

#[tokio::test]
#[ignore = "needs root and apache2: tests/run"]
async fn pages_of_apache_are_judged() {
    let mut apache = start();
    let server = &mut apache.server;
    let at = |host: &str, receive: &str| {
        http(HttpSpec { host: Some(host.to_owned()), receive: pattern(receive), ..page("/") })
    };
    let outcome = server.until_well(&at("a.example", "well at a")).await;
    assert_eq!(stages(&outcome), [Stage::Connect, Stage::Request]);
    assert_eq!(outcome.stages[1].code, Some(200));
    assert_eq!(outcome.stages[1].received, ["HTTP/1.1 200 OK"]);
    for well in [
        at("b.example", "^all is well at b\n$"),
        http(HttpSpec { method: Method::Head, ..page("/index.html") }),
        http(page("/moved")),
    ] {
        assert_eq!(server.check(&well).await.verdict, Ok(()), "{well:?}");
    }
    // A page of the other host; none; one that is out of service.
    for (ill, reason, code) in [
        (at("b.example", "well at a"), Reason::Mismatch, 200),
        (http(page("/nothing")), Reason::Unexpected, 404),
        (http(page("/down")), Reason::Unexpected, 503),
    ] {
        assert_eq!(server.failure(&ill).await, (Stage::Request, reason, Some(code)));
    }
    assert_eq!(server.silence(&http(page("/"))).await, (Stage::Request, Reason::Timeout));
    server.stop();
    assert_eq!(server.failure(&http(page("/"))).await, (Stage::Connect, Reason::Refused, None));
}

#[tokio::test]
#[ignore = "needs root and apache2: tests/run"]
async fn pages_of_apache_in_tls_are_judged() {
    let apache = start();
    let server = &apache.server;
    server.until_well(&http(page("/"))).await;
    let secure = |tls| http(HttpSpec { tls: Some(tls), receive: pattern("well"), ..page("/") });
    let at = |target| CheckSpec { target, ..server.spec(secure(implicit(&apache.certificate))) };
    let outcome = checks::run(&at(apache.secure)).await;
    assert_eq!(
        (&outcome.verdict, stages(&outcome)),
        (&Ok(()), vec![Stage::Connect, Stage::Tls, Stage::Request])
    );
    assert!(outcome.tls.unwrap().verified);
    let expired = secure(implicit(&apache.certificate));
    assert_eq!(failure(apache.expired, expired).await, (Stage::Tls, Reason::CertificateExpired, None));
    let untrusted = secure(TlsSpec { ca_file: TlsSpec::default().ca_file, ..implicit("") });
    assert_eq!(failure(apache.secure, untrusted).await, (Stage::Tls, Reason::CertificateUntrusted, None));
    // What ldirectord did.
    let unasked = secure(TlsSpec { verify: Verify::None, ..implicit("/nowhere") });
    let outcome = checks::run(&CheckSpec { target: apache.expired, ..server.spec(unasked) }).await;
    assert_eq!(outcome.verdict, Ok(()));
    // A server that speaks in the clear.
    let wrong = secure(implicit(&apache.certificate));
    assert_eq!(server.failure(&wrong).await, (Stage::Tls, Reason::TlsFailed, None));
    let log = std::fs::read_to_string(server.path("error.log")).unwrap();
    assert!(!log.contains("SSL library error") || log.contains("HTTP spoken"), "{log}");
}

#[tokio::test]
#[ignore = "needs root and apache2: tests/run"]
async fn a_proxy_is_asked_for_a_page_of_another_server() {
    let apache = start();
    let server = &apache.server;
    // The proxy asks itself, by its other name.
    let through = |target: String| http(HttpSpec { receive: pattern("well at a"), ..page(&target) });
    let page = format!("http://{}/", server.address);
    let outcome = server.until_well(&through(page.clone())).await;
    assert_eq!(outcome.stages[1].sent, format!("GET {page}"));
    let nobody = through("http://127.0.0.1:1/".to_owned());
    assert_eq!(server.failure(&nobody).await, (Stage::Request, Reason::Unexpected, Some(503)));
}
