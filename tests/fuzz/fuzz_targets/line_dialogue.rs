//! Any replies to checks of POP, IMAP, NNTP and FTP: no panic, nothing illegal said, an end, no secret shown.
#![no_main]

use checks::line::dialogue::{Dialogue, Step};
use checks::line::reply::Collector;
use checks::line::{FetchSpec, LineSpec, Protocol};
use checks::smtp::Pattern;
use libfuzzer_sys::fuzz_target;

const WORDS: [&str; 16] = [
    "+OK x\r\n",
    "-ERR x\r\n",
    "+ x\r\n",
    "* OK x\r\n",
    "* BYE x\r\n",
    "a1 OK x\r\n",
    "a2 NO x\r\n",
    "150 x\r\n",
    "220 x\r\n",
    "220-x\r\n",
    "230 x\r\n",
    "331 x\r\n",
    "229 (|||9|)\r\n",
    "227 1,2,3,4,5,6\r\n",
    "550 x\r\n",
    "4",
];

fuzz_target!(|data: &[u8]| {
    let Some((&choice, data)) = data.split_first() else { return };
    let protocol = match choice & 3 {
        0 => Protocol::Pop,
        1 => Protocol::Imap,
        2 => Protocol::Nntp,
        _ => Protocol::Ftp,
    };
    let text: Vec<u8> = if choice & 4 == 0 {
        data.to_vec()
    } else {
        data.iter().flat_map(|byte| WORDS[usize::from(byte & 15)].bytes()).collect()
    };
    let receive = Pattern::new("well").ok();
    let fetch = (choice & 8 == 0).then(|| FetchSpec { path: "f".to_owned(), receive });
    let spec = LineSpec { protocol, tls: None, login: None, fetch };
    let (mut dialogue, mut step, mut said) = (Dialogue::new(&spec, None), Step::Listen, 0);
    let (mut collector, mut rest) = (Collector::new(protocol), text.as_slice());
    loop {
        match step {
            Step::Listen => {}
            Step::Send { shown, .. } => {
                said += 1;
                assert!(said <= 10 && shown.bytes().all(|b| b == b' ' || b.is_ascii_graphic()));
            }
            Step::Open(port) => {
                assert!(port > 0);
                step = dialogue.opened();
                continue;
            }
            Step::Fetch => {
                step = dialogue.fetched((choice & 16 == 0).then_some(data));
                continue;
            }
            Step::Close => break,
        }
        let Ok((used, Some(reply))) = collector.feed(rest) else { break };
        rest = &rest[used..];
        step = dialogue.reply(&reply).step;
    }
    assert!(collector.rest().len() <= checks::smtp::MAX_TEXT);
    let _ = dialogue.finish();
});
