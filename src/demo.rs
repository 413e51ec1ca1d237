//! EDGE: `demo`: a whole farm in one process, on loopback, with nothing installed.
//!
//! Three SMTP servers, the director with its proxy dataplane in front of them, and a steady flow of mail. One server
//! fails and comes back. Owns the play and its last word: every message that was accepted is in a server's
//! ledger, or the demo fails. It ends by itself.
#![expect(clippy::disallowed_methods, reason = "EDGE: a play takes place in time")]

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use loadgen::message::Message;
use loadgen::session::send;
use loadgen::sink::{Ledger, Sink, SinkConfig};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::config::native::lower;
use crate::config::{Config, Diagnostic};
use crate::dataplane::proxy::Proxy;
use crate::director::{Director, Event, Inbox};
use crate::prober::Prober;
use crate::snapshot::{Detail, Snapshot, render};

const SECOND: Duration = Duration::from_secs(1);
/// The play, from the first message on.
const FAILS_AFTER: Duration = Duration::from_secs(8);
const RETURNS_AFTER: Duration = Duration::from_secs(16);
const ENDS_AFTER: Duration = Duration::from_secs(25);
/// From message to message.
const PACE: Duration = Duration::from_millis(20);
/// A message that was refused is sent again after this time, as a mail server would from its queue.
const AGAIN: Duration = Duration::from_millis(200);
/// One attempt, and all attempts of one message.
const ATTEMPT: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(20);

/// Prints a line. Whoever has stopped reading misses it; the play goes on, and its exit code tells the end.
macro_rules! say {
    ($($text:tt)*) => {{
        let _ = writeln!(io::stdout(), $($text)*);
    }};
}

/// Plays it.
///
/// # Errors
/// In words: what could not be started, or how many messages were lost.
pub fn demo() -> Result<(), String> {
    let runtime = tokio::runtime::Runtime::new().map_err(|error| format!("cannot start: {error}"))?;
    runtime.block_on(play())
}

async fn play() -> Result<(), String> {
    let mut sinks = Vec::new();
    for n in 1..=3 {
        let sink = Sink::start((Ipv4Addr::LOCALHOST, 0).into(), SinkConfig::new(format!("real{n}.example")));
        sinks.push(sink.map_err(|error| format!("cannot start server {n}: {error}"))?);
    }
    let vip = free_address().map_err(|error| format!("no free port on loopback: {error}"))?;
    let servers: Vec<_> = sinks.iter().map(Sink::address).collect();

    say!("Three SMTP servers and a director in this process; mail goes to {vip} at {} a second.", rate());
    say!(
        "After {} s real2 crashes, after {} s it is back; all ends after {} s.\n",
        FAILS_AFTER.as_secs(),
        RETURNS_AFTER.as_secs(),
        ENDS_AFTER.as_secs()
    );

    let (report, reports) = mpsc::channel(64);
    let (event, events) = mpsc::channel(64);
    let (publish, mut pictures) = watch::channel(Arc::default());
    let director = Director::new(farm(vip, &servers)?, Proxy::new(), Prober::new(report), publish);
    let director = tokio::spawn(director.run(Inbox { reports, events }));
    let all_up = pictures.wait_for(|picture| picture.in_sync && picture.all_known);
    let _ = tokio::time::timeout(PATIENCE, all_up).await;

    let start = Instant::now();
    let watcher = tokio::spawn(show_changes(start, pictures));
    let mail = tokio::spawn(steady_mail(start, vip));
    tokio::time::sleep_until((start + FAILS_AFTER).into()).await;
    say!("{}  real2 crashes: its port is closed, its sessions are reset", clock(start));
    if let Some(real2) = sinks.get_mut(1) {
        real2.stop().await;
        tokio::time::sleep_until((start + RETURNS_AFTER).into()).await;
        say!("{}  real2 is back", clock(start));
        real2.restart().map_err(|error| format!("cannot start real2 again: {error}"))?;
    }
    let sent = mail.await.map_err(|error| format!("the sender died: {error}"))?;
    let _ = event.send(Event::Stop).await;
    let _ = tokio::time::timeout(PATIENCE, director).await;
    watcher.abort();
    settle(&sent, &sinks)
}

fn rate() -> u128 {
    SECOND.as_millis() / PACE.as_millis()
}

/// A port that nobody has now; whoever takes it in the next milliseconds makes the demo fail, and say so.
fn free_address() -> io::Result<SocketAddr> {
    std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// The file that somebody would write for this farm, with a check a second.
fn farm(vip: SocketAddr, servers: &[SocketAddr]) -> Result<Config, String> {
    let reals = servers.iter().map(|server| format!("[[virtual.real]]\naddress = \"{server}\"\n"));
    let text = format!(
        "dataplane = \"proxy\"\nhttp = \"off\"\n\
         [check]\ninterval = \"1s\"\nretry = \"300ms\"\ndeadline = \"2s\"\n\
         [[virtual]]\nname = \"mail\"\naddress = \"{vip}\"\nscheduler = \"wrr\"\nforward = \"masq\"\n{}",
        reals.collect::<String>()
    );
    let problem = |problems: Vec<Diagnostic>| problems.into_iter().map(|problem| problem.message).collect();
    lower(&text, &[], "director.example").map_err(problem)
}

fn clock(start: Instant) -> String {
    format!("{:>5.1} s", start.elapsed().as_secs_f64())
}

/// Prints the table whenever a weight or a state in it has changed.
async fn show_changes(start: Instant, mut pictures: watch::Receiver<Arc<Snapshot>>) {
    let mut shown = Vec::new();
    loop {
        let picture = Arc::clone(&pictures.borrow_and_update());
        let reals = picture.virtuals.iter().flat_map(|v| &v.reals);
        let now: Vec<_> = reals.map(|real| (real.weight, real.state.clone())).collect();
        if now != shown {
            say!("{}", clock(start));
            for line in render(&picture, Detail::State).lines().skip(1) {
                say!("         {line}");
            }
            shown = now;
        }
        if pictures.changed().await.is_err() {
            return;
        }
    }
}

/// What became of the messages.
#[derive(Debug, Default)]
struct Sent {
    messages: usize,
    /// Ids that a server said 250 to.
    accepted: Vec<String>,
    /// Attempts that were refused or broken off, and were made again.
    again: usize,
    /// By the name in the banner.
    by_server: BTreeMap<String, usize>,
}

async fn steady_mail(start: Instant, vip: SocketAddr) -> Sent {
    let mut sent = Sent::default();
    let mut under_way = JoinSet::new();
    let mut pace = tokio::time::interval(PACE);
    while start.elapsed() < ENDS_AFTER {
        pace.tick().await;
        sent.messages += 1;
        under_way.spawn(deliver(vip, format!("demo-{}", sent.messages)));
    }
    while let Some(done) = under_way.join_next().await {
        let Ok((id, server, again)) = done else { continue };
        sent.again += again;
        if let Some(server) = server {
            *sent.by_server.entry(server).or_default() += 1;
            sent.accepted.push(id);
        }
    }
    sent
}

/// Sends one message until a server has it, as a mail server would. Gives its id, who has it, and how many
/// attempts came before.
async fn deliver(vip: SocketAddr, id: String) -> (String, Option<String>, usize) {
    let message = Message {
        id: id.clone(),
        from: "sender@example.org".to_owned(),
        to: "user@example.net".to_owned(),
        body: b"Subject: demo\r\n\r\nHello.\r\n".to_vec(),
    };
    let give_up = Instant::now() + PATIENCE;
    let mut again = 0;
    while Instant::now() < give_up {
        match send(vip, &message, ATTEMPT).await {
            Ok(accepted) => return (id, Some(accepted.by), again),
            // Not knowing is no reason to stop: a mail server would rather double a message than lose it.
            Err(_) => again += 1,
        }
        tokio::time::sleep(AGAIN).await;
    }
    (id, None, again)
}

/// Compares what the sender was told with what the servers have.
fn settle(sent: &Sent, sinks: &[Sink]) -> Result<(), String> {
    let mut have = Ledger::default();
    for sink in sinks {
        for (id, count) in sink.ledger() {
            *have.entry(id).or_default() += count;
        }
    }
    let lost = sent.accepted.iter().filter(|id| !have.contains_key(*id)).count();
    let doubled = have.values().filter(|count| **count > 1).count();
    let refused = sent.messages - sent.accepted.len();
    say!(
        "\n{} sent, {} accepted, {lost} lost, {doubled} doubled, {} attempts made again",
        sent.messages,
        sent.accepted.len(),
        sent.again
    );
    for (server, count) in &sent.by_server {
        say!("  {server:<16} {count:>6}");
    }
    match (lost, refused) {
        (0, 0) => Ok(()),
        _ => Err(format!("{lost} messages were lost and {refused} were never accepted")),
    }
}
