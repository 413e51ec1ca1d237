//! What the director makes of agents on loopback, good and bad.
#![allow(clippy::unwrap_used, clippy::panic, reason = "also in the functions that the tests share")]

use std::fs;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
use smtp_director::config::{AgentPlan, AgentSource, AgentTls};
use smtp_director::heard::{Heard, NoData};
use smtp_director::poller::{Hearing, Poller};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::queue::serve::{Agent, authority, certificate};
use crate::queue::spool::Spool;

const LIMIT: Duration = Duration::from_secs(20);
const LINE: &[u8] = b"up 100% # v1 master=1 qmgr=1 incoming=1 active=2 rate=1.50 age=3\n";

/// What is heard first of an agent.
async fn hear(source: AgentSource) -> Hearing {
    hear_within(Duration::from_millis(400), source).await
}

async fn hear_within(deadline: Duration, source: AgentSource) -> Hearing {
    let interval = Duration::from_secs(60);
    let plan = AgentPlan { source, server: [127, 0, 0, 1].into(), interval, deadline };
    let (sender, mut hearings) = mpsc::channel(1);
    let mut poller = Poller::new(sender);
    poller.sync(vec![plan]);
    tokio::time::timeout(LIMIT, hearings.recv()).await.unwrap().unwrap()
}

/// An agent that does this with each that asks.
async fn agent<F: Future<Output = ()> + Send + 'static>(
    answer: impl Fn(TcpStream) -> F + Send + 'static,
) -> AgentSource {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream));
        }
    });
    AgentSource::Tcp { address, tls: None }
}

async fn says(bytes: &'static [u8]) -> AgentSource {
    agent(move |mut stream| async move {
        let _ = stream.write_all(bytes).await;
    })
    .await
}

fn work(heard: &Heard) -> Option<u64> {
    heard.queue().map(|queue| queue.work)
}

#[tokio::test]
async fn a_line_is_heard_whatever_becomes_of_the_connection() {
    assert_eq!(work(&hear(says(LINE).await).await.heard), Some(3));
    let stays = agent(|mut stream| async move {
        stream.write_all(LINE).await.unwrap();
        std::future::pending::<()>().await;
    });
    assert_eq!(work(&hear(stays.await).await.heard), Some(3), "who does not close is not waited for");
    let dribbles = agent(|mut stream| async move {
        for byte in LINE {
            let _ = stream.write_all(&[*byte]).await;
        }
    });
    assert_eq!(work(&hear(dribbles.await).await.heard), Some(3));
}

#[tokio::test]
async fn bad_input_is_no_data_and_has_a_word() {
    let endless = agent(|mut stream| async move { while stream.write_all(&[b'a'; 4096]).await.is_ok() {} });
    let silent = agent(|stream| async move {
        let _stream = stream;
        std::future::pending::<()>().await;
    });
    let reset = agent(|stream| async move { stream.set_zero_linger().unwrap() });
    let nobody: SocketAddr = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let future = b"up # v1 incoming=0 active=0 age=99999999999999999999\n";
    for (what, source, expected) in [
        ("garbage", says(b"\xff\x00\x01\x02\n").await, NoData::Garbage),
        ("an endless line", endless.await, NoData::TooLong),
        ("silence", silent.await, NoData::Timeout),
        ("nothing", says(b"").await, NoData::Cut),
        ("another protocol", says(b"220 mail.example ESMTP Postfix\r\n").await, NoData::Garbage),
        ("http", says(b"HTTP/1.0 400 Bad Request\r\nServer: x\r\n\r\n").await, NoData::Garbage),
        ("truncated", says(LINE.split_at(40).0).await, NoData::Cut),
        ("negative", says(b"up # v1 incoming=-1 active=0\n").await, NoData::Absurd),
        ("overflow", says(b"up # v1 incoming=18446744073709551616 active=0\n").await, NoData::Absurd),
        ("absurd", says(b"up # v1 incoming=1000000001 active=0\n").await, NoData::Absurd),
        ("another age", says(future).await, NoData::Absurd),
        ("old", says(b"up # v1 incoming=0 active=0 age=3600000\n").await, NoData::Stale),
        ("a later version", says(b"up # v2 incoming=0\n").await, NoData::Version),
        ("two lines", says(b"up\nup\n").await, NoData::Garbage),
        ("a reset", reset.await, NoData::Reset),
        ("nobody", AgentSource::Tcp { address: nobody, tls: None }, NoData::Refused),
    ] {
        let heard = hear(source).await.heard;
        assert_eq!(heard.trouble_word(), Some(expected), "{what}");
        assert_eq!(heard.queue(), None, "never an empty queue: {what}");
    }
}

#[tokio::test]
async fn a_command_is_an_agent_too() {
    let command = |program: &str, argument: &str| AgentSource::Command {
        program: PathBuf::from(program),
        arguments: vec!["-c".to_owned(), argument.to_owned()],
    };
    let good = "echo 'up # v1 incoming=1 active=2'";
    assert_eq!(work(&hear(command("/bin/sh", good)).await.heard), Some(3));
    for (program, argument, expected) in [
        ("/bin/sh", "echo no >&2; exit 3", NoData::Failed),
        ("/bin/sh", "exec sleep 60", NoData::Timeout),
        ("/bin/sh", "yes", NoData::Timeout),
        ("/bin/sh", "echo -n up", NoData::Cut),
        ("/no/such/program", "", NoData::Local),
    ] {
        let hearing = hear(command(program, argument)).await;
        assert_eq!(hearing.heard.trouble_word(), Some(expected), "{argument}");
        assert_eq!(hearing.text == "no", expected == NoData::Failed, "{}", hearing.text);
    }
}

#[tokio::test]
#[ignore = "needs root and Postfix: tests/run"]
async fn with_tls_both_sides_prove_who_they_are_or_there_is_no_data() {
    let spool = Spool::new("agent-tls");
    spool.add("active", 3, 0);
    let file = |name: &str, text: &str| {
        let path = spool.folder().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let ((ours, our_pem), (theirs, their_pem)) = (authority("ours"), authority("theirs"));
    let (our_ca, their_ca) = (file("ours.pem", &our_pem), file("theirs.pem", &their_pem));
    let pair = |name: &str, (certificate, key): (String, String)| {
        (file(&format!("{name}.pem"), &certificate), file(&format!("{name}.key"), &key))
    };
    let server = pair("server", certificate(&ours, ServerAuth));
    let client = pair("client", certificate(&ours, ClientAuth));
    let foreign = pair("foreign", certificate(&theirs, ClientAuth));
    let [shown, key, ca] = [&server.0, &server.1, &our_ca].map(|path| path.to_str().unwrap());
    let arguments = ["--tls-certificate", shown, "--tls-key", key, "--tls-client-ca", ca];
    let secured = Agent::start(spool.folder(), &spool.config(), &arguments);
    let clear = Spool::new("agent-clear");
    let clear = Agent::start(clear.folder(), &spool.config(), &[]);

    let good = AgentTls { ca_file: our_ca, certificate: client.0, key: client.1, name: None };
    let asked = async |agent: &Agent, tls| {
        hear_within(LIMIT, AgentSource::Tcp { address: agent.address, tls: Some(tls) }).await
    };
    let hearing = asked(&secured, good.clone()).await;
    assert_eq!(work(&hearing.heard), Some(3), "{}", hearing.text);

    let missing = spool.folder().join("missing.pem");
    for (what, agent, tls, expected, said) in [
        (
            "an agent of another CA",
            &secured,
            AgentTls { ca_file: their_ca, ..good.clone() },
            NoData::Tls,
            "Unknown",
        ),
        (
            "a certificate for somebody else",
            &secured,
            AgentTls { name: Some("other.example".to_owned()), ..good.clone() },
            NoData::Tls,
            "other.example",
        ),
        (
            "a director of another CA",
            &secured,
            AgentTls { certificate: foreign.0.clone(), key: foreign.1, ..good.clone() },
            NoData::Tls,
            "alert",
        ),
        (
            "a director without its certificate",
            &secured,
            AgentTls { certificate: missing, ..good.clone() },
            NoData::Local,
            "missing.pem",
        ),
        (
            "a certificate of another key",
            &secured,
            AgentTls { certificate: foreign.0, ..good.clone() },
            NoData::Local,
            "foreign.pem",
        ),
        ("an agent in the clear", &clear, good, NoData::Tls, ""),
    ] {
        let hearing = asked(agent, tls).await;
        assert_eq!(hearing.heard.trouble_word(), Some(expected), "{what}: {}", hearing.text);
        assert!(hearing.text.contains(said), "{what}: {}", hearing.text);
        assert_eq!(hearing.heard.queue(), None, "{what}");
    }
    // Who asks in the clear waits for a word that never comes.
    let heard = hear(AgentSource::Tcp { address: secured.address, tls: None }).await.heard;
    assert_eq!((heard.trouble_word(), heard.queue()), (Some(NoData::Timeout), None));
}
