//! What a server of LDAP, MySQL, PostgreSQL, DNS or SIP says over a connection: no panic, no message without bytes, no
//! conversation without an end, all that is kept printable, and no password outside TLS.
#![no_main]

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::LazyLock;

use checks::credential::Credential;
use checks::dns::{DnsSpec, Question};
use checks::ldap::LdapSpec;
use checks::sip::{Options, SipSpec};
use checks::smtp::{MAX_TEXT, Pattern};
use checks::sql::SqlSpec;
use checks::talk::{MAX_SESSION, Step, Talk};
use checks::tls::{TlsMode, TlsSpec};
use checks::{Transport, ldap, mysql, pgsql};
use libfuzzer_sys::fuzz_target;

const PASSWORD: &str = "a password that nobody says";

static LOGIN: LazyLock<(PathBuf, Credential)> = LazyLock::new(|| {
    use std::io::Write as _;
    let path = std::env::temp_dir().join(format!("smtp-director-fuzz-{}", std::process::id()));
    let mut file = std::fs::File::options().create(true).write(true).mode(0o600).open(&path).unwrap();
    writeln!(file, "probe:{PASSWORD}").unwrap();
    let credential = Credential::read(&path).unwrap();
    let _ = std::fs::remove_file(&path);
    (path, credential)
});

fn printable(text: &str) {
    assert!(text.len() <= MAX_TEXT && !text.chars().any(char::is_control), "{text:?}");
}

fn feed(talk: &mut impl Talk, mut bytes: &[u8], clear: bool) {
    let (mut secured, mut step) = (false, talk.open());
    loop {
        let said = match &step {
            Step::Leave => break,
            Step::Listen => &[],
            Step::Say(said) | Step::Secure(said) => said.as_slice(),
        };
        let tells = said.windows(PASSWORD.len()).any(|window| window == PASSWORD.as_bytes());
        assert!(!tells || secured || clear);
        if matches!(step, Step::Secure(_)) {
            assert!(!secured);
            secured = true;
            step = talk.secured();
            continue;
        }
        let _ = talk.stage();
        let length = match talk.length(bytes) {
            Ok(Some(length)) if length <= bytes.len().min(MAX_SESSION) => length,
            Ok(_) => break,
            Err(trouble) => {
                printable(&trouble.text);
                break;
            }
        };
        assert!(length > 0);
        let (message, rest) = bytes.split_at(length);
        bytes = rest;
        match talk.hear(message) {
            Ok(turn) => {
                turn.passed.iter().flat_map(|passed| &passed.received).for_each(|line| printable(line));
                step = turn.step;
            }
            Err(trouble) => {
                printable(&trouble.text);
                break;
            }
        }
    }
    let last = talk.goodbye();
    assert!(!last.windows(PASSWORD.len()).any(|window| window == PASSWORD.as_bytes()));
}

fuzz_target!(|data: &[u8]| {
    let Some((&choice, bytes)) = data.split_first() else { return };
    let bytes = &bytes[..bytes.len().min(MAX_SESSION)];
    let credential = (choice & 0x80 != 0).then(|| LOGIN.1.clone());
    let login = credential.as_ref().map(|_| LOGIN.0.clone());
    let mode = if choice & 0x20 != 0 { TlsMode::Required } else { TlsMode::Opportunistic };
    let tls = (choice & 0x40 != 0).then(|| TlsSpec { mode, ..TlsSpec::default() });
    let receive = (choice & 0x10 != 0).then(|| Pattern::new("a.*b").unwrap());
    let request = Some("SELECT 1".to_owned());
    let sql = SqlSpec { tls, login: login.clone(), database: Some("mail".to_owned()), request };
    match choice & 7 {
        0 => {
            let spec = LdapSpec { login, receive, ..LdapSpec::default() };
            // A simple bind says the password; who may hear it is for the configuration to say.
            feed(&mut ldap::Dialogue::new(&spec, credential), bytes, true);
        }
        1 => feed(&mut mysql::Dialogue::new(&sql, credential), bytes, false),
        2 => feed(&mut pgsql::Dialogue::new(&sql, credential), bytes, false),
        3 => {
            let name = "mail.example.com".to_owned();
            let spec = DnsSpec { name, transport: Transport::Tcp, receive, ..DnsSpec::default() };
            feed(&mut Question::new(&spec, 0x6161).unwrap(), bytes, false);
        }
        _ => {
            let spec = SipSpec { transport: Transport::Tcp, ..SipSpec::default() };
            let address = "192.0.2.5:5060".parse().unwrap();
            feed(&mut Options::new(&spec, (address, address), [0x61; 8]).unwrap(), bytes, false);
        }
    }
});
