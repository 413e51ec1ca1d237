//! One fault of a server of the farm, made and mended on a running Postfix.
//!
//! Owns what is changed on the server. Refuses to know who looks at it. A change of the configuration is made by
//! SIGHUP, so that the port stays open and no program sees a restart.

use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use crate::farm::postfix::{MASTER_CF, Postfix};
use crate::farm::{Farm, Ip, REALS};

/// What is wrong with a server.
#[derive(Clone, Copy)]
pub(crate) enum Fault {
    /// Nothing.
    Nothing,
    /// SIGKILL for `master` and its children.
    Killed,
    /// SIGSTOP for all of them.
    Frozen,
    /// Its network cable is out.
    Unplugged,
    /// Every smtpd process is kept busy by clients.
    Busy,
    /// These lines in its main.cf.
    MainCf(&'static str),
    /// The key does not fit the certificate.
    BadKey,
    /// A postscreen in front that has never seen the client before.
    Postscreen,
}

/// The process limit of a busy server, and more connections than that.
const SLOTS: &str = "default_process_limit = 4\nsmtpd_timeout = 300s\n";
const CLIENTS: usize = 12;

/// It forgets whom it knows after a second: all programs ask from one address, and who waits would open the door for
/// who does not.
const POSTSCREEN: &str = "postscreen_greet_action = enforce\npostscreen_greet_ttl = 1s\n";

/// Connections that keep a server busy while they are held.
pub(crate) type Held = Vec<TcpStream>;

/// Makes the fault on real server `index`. `tls` is the folder with the certificate.
pub(crate) fn make(fault: Fault, farm: &mut Farm, index: usize, tls: &Path) -> Held {
    let mut held = Held::new();
    let (postfix, client) = (&mut farm.reals[index], &farm.client);
    let configure = |lines: &str, key: &str, master_cf: &str| {
        postfix.configure(&format!("{}{lines}", with_tls(tls, key)), master_cf);
        postfix.reload();
    };
    match fault {
        Fault::Nothing => {}
        Fault::Killed => postfix.kill(),
        Fault::Frozen => postfix.freeze(),
        Fault::Unplugged => postfix.host.ip("link set eth0 down\n"),
        Fault::Busy => {
            configure(SLOTS, KEY, MASTER_CF);
            let address = Ip::V4.smtp(REALS[index]);
            let connect = || TcpStream::connect_timeout(&address, Duration::from_secs(3)).expect("a backlog");
            held = client.inside(|| (0..CLIENTS).map(|_| connect()).collect());
        }
        Fault::MainCf(lines) => configure(lines, KEY, MASTER_CF),
        Fault::BadKey => configure("", OTHER_KEY, MASTER_CF),
        Fault::Postscreen => {
            let behind = MASTER_CF.replace("smtp inet n - n - - smtpd", "smtp inet n - n - 1 postscreen");
            configure(POSTSCREEN, KEY, &format!("{behind}smtpd pass - - n - - smtpd\n"));
        }
    }
    held
}

/// Ends the fault and waits until the server greets.
pub(crate) fn mend(fault: Fault, postfix: &mut Postfix, tls: &Path) {
    match fault {
        Fault::Nothing => return,
        Fault::Killed => postfix.launch(),
        Fault::Frozen => postfix.thaw(),
        Fault::Unplugged => postfix.host.ip("link set eth0 up\n"),
        Fault::Busy | Fault::MainCf(_) | Fault::BadKey | Fault::Postscreen => {
            // Not by SIGHUP: one that had waited for its cleanup greeted nobody for two minutes after that.
            postfix.kill();
            postfix.configure(&with_tls(tls, KEY), MASTER_CF);
            postfix.launch();
        }
    }
    postfix.await_banner();
}

pub(crate) const CERTIFICATE: &str = "cert.pem";
pub(crate) const KEY: &str = "key.pem";
pub(crate) const OTHER_KEY: &str = "other.pem";

/// Lines of main.cf: TLS is offered, with this key. Nothing is logged: `master` waits for its postlogd, which a reload
/// ends, and a burst of lines at that moment stops both.
pub(crate) fn with_tls(folder: &Path, key: &str) -> String {
    let (cert, key) = (folder.join(CERTIFICATE), folder.join(key));
    format!(
        "maillog_file =\nsmtpd_tls_security_level = may\nsmtpd_tls_cert_file = {}\nsmtpd_tls_key_file = {}\n",
        cert.display(),
        key.display()
    )
}
