//! Any replies to a check with every step: no panic, nothing illegal said, QUIT last, no secret shown.
#![no_main]

use std::time::Duration;

use checks::smtp::dialogue::{Dialogue, Step};
use checks::smtp::reply::Splitter;
use checks::smtp::{AuthOver, AuthSpec, DataSpec, MailSpec, SmtpSpec};
use libfuzzer_sys::fuzz_target;

const WORDS: [&str; 16] = [
    "220 x\r\n",
    "221 x\r\n",
    "250 x\r\n",
    "250-m\r\n250 AUTH PLAIN\r\n",
    "250-m\r\n250 AUTH LOGIN\r\n",
    "334 x\r\n",
    "235 x\r\n",
    "354 x\r\n",
    "251 x\r\n",
    "421 x\r\n",
    "451 4.3.0 x\r\n",
    "500 x\r\n",
    "550 5.7.1 x\r\n",
    "250-",
    "2",
    "\n",
];

fn spec() -> SmtpSpec {
    let timeout = Duration::from_secs(1);
    let (from, to) = ("a@example.com".to_owned(), "b@example.com".to_owned());
    SmtpSpec {
        auth: Some(Box::new(AuthSpec {
            file: "/nowhere".into(),
            mechanism: None,
            over: AuthOver::Anything,
            timeout,
        })),
        mail: Some(Box::new(MailSpec {
            from: from.clone(),
            accept: Some(to.clone()),
            refuse: Some(to.clone()),
            timeout,
        })),
        data: Some(Box::new(DataSpec { from, to, timeout, text: None })),
        ..SmtpSpec::default()
    }
}

fuzz_target!(|data: &[u8]| {
    let text: Vec<u8> = match data.split_first() {
        Some((0, raw)) => raw.to_vec(),
        _ => data.iter().flat_map(|byte| WORDS[usize::from(byte & 15)].bytes()).collect(),
    };
    let spec = spec();
    let (mut dialogue, mut step) = Dialogue::new(&spec, None, 0);
    let (mut splitter, mut rest, mut said) = (Splitter::default(), text.as_slice(), 0);
    loop {
        match step {
            Step::Listen => {}
            Step::Send(line) => {
                assert!(line.len() <= 510 && line.bytes().all(|b| b == b' ' || b.is_ascii_graphic()))
            }
            Step::SendUnshown { shown, .. } => assert!(shown.len() < 100),
            Step::Handshake => panic!("no TLS was asked for"),
            Step::Close => break,
        }
        said += 1;
        assert!(said <= 20);
        let Ok((used, Some(reply))) = splitter.feed(rest) else { break };
        rest = &rest[used..];
        step = dialogue.reply(&reply).step;
    }
    let _ = dialogue.finish();
});
