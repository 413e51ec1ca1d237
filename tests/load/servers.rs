//! The load generator against real servers.

use std::fs;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::press;
use crate::postfix::Postfix;
use crate::scratch::Folder;

fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
#[ignore = "needs root and Postfix: tests/run"]
fn postfix_takes_all_that_is_legal() {
    let folder = Folder::new("load-postfix-key");
    let (key, certificate) = (folder.path().join("key.pem"), folder.path().join("cert.pem"));
    let made = rcgen::generate_simple_self_signed(vec!["mail.example.com".to_owned()]).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    fs::write(&certificate, made.cert.pem()).unwrap();
    let postfix = Postfix::start(
        "load",
        &format!(
            "mydestination = example.com\nlocal_recipient_maps =\nlocal_transport = discard:\nmynetworks =\n\
             smtpd_tls_security_level = may\nsmtpd_tls_key_file = {}\nsmtpd_tls_cert_file = {}\n\
             smtpd_client_connection_count_limit = 0\nsmtpd_forbid_bare_newline = yes\nsmtpd_forbid_unauth_pipelining = yes\n",
            key.display(),
            certificate.display()
        ),
    );
    let address = postfix.address;
    for flags in [
        "--pipeline off",
        "--pipeline auto --messages-per-conn 0 --recipients 5",
        "--pipeline auto --bdat required --messages-per-conn 10",
        "--bdat required:1000 --messages-per-conn 2 --pipeline off",
        "--starttls required --messages-per-conn 5 --rset",
        "--starttls required --tls-resume --bdat auto --8bitmime",
        "--hello helo",
    ] {
        let (report, code) = press(&format!("smtp smtp://{address} --sessions 5 --messages 50 {flags}"));
        assert_eq!(
            (report.counts.ok, code),
            (50, 0),
            "{flags}: {:?} {:?}\n{}",
            report.errors,
            report.replies,
            postfix.log()
        );
        assert_eq!(report.servers[0].name, "mail.example.com");
    }
    let log = postfix.log();
    for word in ["improper command pipelining", "lost connection", "SSL_accept error", "fatal", "panic"] {
        assert!(!log.contains(word), "{log}");
    }
}

#[test]
#[ignore = "needs root and Postfix: tests/run"]
fn source_addresses_get_past_postfix_s_limit_for_a_client() {
    let postfix = Postfix::start(
        "load-limit",
        "mydestination = example.com\nlocal_recipient_maps =\nlocal_transport = discard:\nmynetworks =\n\
         smtpd_client_connection_count_limit = 3\nsmtpd_client_event_limit_exceptions =\n",
    );
    let flags = "--sessions 12 --messages 120 --messages-per-conn 10 --think 20ms";
    let (report, _) = press(&format!("smtp smtp://{} {flags} --source 127.0.2.1", postfix.address));
    assert!(
        report.errors.iter().any(|row| row.phase == "banner" && row.class == "tempfail"),
        "{:?}",
        report.errors
    );
    assert!(
        report.replies.iter().any(|row| row.code == 421 && row.enhanced == "4.7.0"),
        "{:?}",
        report.replies
    );
    let (report, code) =
        press(&format!("smtp smtp://{} {flags} --source 127.0.3.1-127.0.3.12", postfix.address));
    assert_eq!((report.counts.ok, code), (120, 0), "{:?} {:?}", report.errors, report.replies);
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // TERM lets it end its workers.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

fn free() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
#[ignore = "needs root and nginx: tests/run"]
fn nginx_is_fetched_from_kept_and_closed_connections() {
    let folder = Folder::new("load-nginx");
    let path = folder.path();
    let port = free();
    fs::write(path.join("file"), "x".repeat(1024)).unwrap();
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let config = format!(
        "daemon off; worker_processes 1; pid {p}/pid; error_log {p}/error; events {{}}\n\
         http {{ access_log {p}/access; client_body_temp_path {p}/a; proxy_temp_path {p}/b; fastcgi_temp_path {p}/c;\n\
         uwsgi_temp_path {p}/d; scgi_temp_path {p}/e;\n\
         server {{ listen 127.0.0.1:{port}; root {p}; add_header X-Served-By web7; }} }}\n",
        p = path.display()
    );
    fs::write(path.join("conf"), config).unwrap();
    let mut nginx = Command::new("/usr/sbin/nginx");
    nginx.arg("-c").arg(path.join("conf")).arg("-p").arg(path).stderr(Stdio::null());
    let _nginx = Running(nginx.spawn().expect("nginx is installed"));
    wait("nginx listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    let url = format!("http://127.0.0.1:{port}/file");
    let (report, code) =
        press(&format!("http {url} --sessions 4 --requests 400 --checksum --server-from header:X-Served-By"));
    assert_eq!((report.counts.ok, report.counts.bytes, code), (400, 400 * 1024, 0), "{:?}", report.errors);
    assert_eq!((report.counts.connections, report.servers[0].name.as_str()), (4, "web7"));
    let (report, _) = press(&format!("http {url} --sessions 4 --requests 400 --close-each --byte-count"));
    assert_eq!((report.counts.ok, report.counts.connections), (400, 400));
    let (report, code) = press(&format!("http {url}x --sessions 1 --requests 5"));
    assert_eq!((report.counts.failed, code), (5, 2));
    assert_eq!(report.replies[0].code, 404);
}

#[test]
#[ignore = "needs root and Apache: tests/run"]
fn apache_is_fetched_from_kept_and_closed_connections() {
    let folder = Folder::new("load-apache");
    let path = folder.path();
    let port = free();
    fs::write(path.join("file"), "x".repeat(1024)).unwrap();
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let modules = "/usr/lib/apache2/modules";
    let config = format!(
        "ServerRoot {p}\nPidFile {p}/pid\nErrorLog {p}/error\nServerName web7.example\nListen 127.0.0.1:{port}\n\
         LoadModule mpm_event_module {modules}/mod_mpm_event.so\nLoadModule authz_core_module {modules}/mod_authz_core.so\n\
         User nobody\nGroup nogroup\nDocumentRoot {p}\nKeepAlive On\nMaxKeepAliveRequests 50\n",
        p = path.display()
    );
    fs::write(path.join("conf"), config).unwrap();
    let mut apache = Command::new("/usr/sbin/apache2");
    apache.arg("-f").arg(path.join("conf")).args(["-D", "FOREGROUND"]).stderr(Stdio::null());
    let _apache = Running(apache.spawn().expect("apache2 is installed"));
    wait("Apache listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    let url = format!("http://127.0.0.1:{port}/file");
    let (report, code) =
        press(&format!("http {url} --sessions 4 --requests 400 --checksum --server-from header:Server"));
    assert_eq!((report.counts.ok, report.counts.bytes, code), (400, 400 * 1024, 0), "{:?}", report.errors);
    // Apache ends a connection after 50 requests, and says so: nothing is lost by it.
    assert!((8..=12).contains(&report.counts.connections), "{:?}", report.counts);
    assert!(report.servers[0].name.starts_with("Apache"), "{:?}", report.servers);
    let (report, _) = press(&format!("http {url} --sessions 4 --requests 100 --close-each --byte-count"));
    assert_eq!((report.counts.ok, report.counts.connections), (100, 100));
}

#[test]
#[ignore = "needs root, Postfix and Dovecot: tests/run"]
fn postfix_lets_in_who_knows_the_password() {
    let folder = Folder::new("load-sasl");
    let path = folder.path();
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let socket = path.join("auth");
    let config = format!(
        "protocols =\nbase_dir = {p}/run\nstate_dir = {p}/state\nlog_path = {p}/log\nssl = no\n\
         auth_mechanisms = plain login\npassdb {{\n driver = static\n args = password=secret\n}}\n\
         userdb {{\n driver = static\n args = uid=65534 gid=65534 home=/tmp\n}}\n\
         service auth {{\n unix_listener {p}/auth {{\n mode = 0666\n }}\n}}\n",
        p = path.display()
    );
    fs::write(path.join("dovecot.conf"), config).unwrap();
    let dovecot =
        Command::new("/usr/sbin/dovecot").arg("-F").arg("-c").arg(path.join("dovecot.conf")).spawn();
    let _dovecot = Running(dovecot.expect("dovecot is installed"));
    wait("Dovecot listens", || std::os::unix::net::UnixStream::connect(&socket).is_ok());
    let postfix = Postfix::start(
        "load-sasl",
        &format!(
            "mydestination =\nlocal_recipient_maps =\ndefault_transport = discard:\nmynetworks =\n\
             smtpd_relay_restrictions = permit_sasl_authenticated, reject\nsmtpd_sasl_auth_enable = yes\n\
             smtpd_sasl_type = dovecot\nsmtpd_sasl_path = {}\n",
            socket.display()
        ),
    );
    let users = folder.file("anna:secret\nbert:secret\n");
    fs::set_permissions(&users, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    for mechanism in ["plain", "login"] {
        let (report, code) = press(&format!(
            "smtp smtp://{} --sessions 2 --messages 20 --auth-without-tls --auth {mechanism} --auth-file {}",
            postfix.address,
            users.display()
        ));
        assert_eq!((report.counts.ok, code), (20, 0), "{mechanism}: {:?}\n{}", report.replies, postfix.log());
    }
    let log = postfix.log();
    assert!(log.contains("sasl_username=anna") && log.contains("sasl_username=bert"), "{log}");
}
