//! EDGE: a mail about the farm is sent: by SMTP to the server that is named, or by the local `sendmail`.
//!
//! Owns its text and the client's side of SMTP, with one RCPT for each recipient. Refuses to be waited for: its deadline is
//! the caller's. Fails with a sentence; a recipient that is refused costs the others nothing.

use std::fmt::Write as _;
use std::time::Duration;

use checks::smtp::is_mailbox;
use checks::smtp::reply::{Reply, Splitter, printable};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::warn;

use super::errand::{self, Errand};
use crate::config::load::host_name;
use crate::config::{Alert, Phase, Relay};

const SENDMAIL: &str = "/usr/sbin/sendmail";

/// What is to be said, and to whom.
#[derive(Clone, Debug)]
pub struct Letter {
    /// Who gets it and how.
    pub alert: Alert,
    /// What the daemon was doing.
    pub phase: Phase,
    /// What happened.
    pub text: String,
}

impl Letter {
    /// The subject: `[service] text`.
    fn subject(&self) -> String {
        match &self.alert.service {
            Some(service) => format!("[{service}] {}", self.text),
            None => self.text.clone(),
        }
    }

    /// Head and body, lines that end with CRLF.
    fn compose(&self, host: &str, date: &str) -> String {
        let subject = self.subject();
        let from = self.alert.from.clone().unwrap_or_else(|| format!("root@{host}"));
        let mut mail = String::new();
        // Writing to a String does not fail.
        let _ = write!(
            mail,
            "From: {from}\r\nTo: {}\r\nSubject: {subject}\r\nDate: {date}\r\nMessage-ID: <{:016x}{:016x}@{host}>\r\n\
             Auto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n\
             ldirectord host: {host}\r\nLog-Message: {subject}\r\nDaemon-Status: {}\r\n",
            self.alert.to.join(", "),
            fastrand::u64(..),
            fastrand::u64(..),
            self.phase.name(),
        );
        if self.alert.service.is_some() || self.alert.comment.is_some() {
            mail.push_str("\r\n");
        }
        for (name, value) in [("Service name", &self.alert.service), ("Comment", &self.alert.comment)] {
            if let Some(value) = value {
                let _ = write!(mail, "{name}: {value}\r\n");
            }
        }
        mail
    }

    /// Who is told when the mail does not arrive.
    fn sender(&self, host: &str) -> String {
        let from = self.alert.from.as_deref().unwrap_or_default();
        let address = from.rsplit_once('<').map_or(from, |(_, rest)| rest.trim_end_matches('>'));
        if is_mailbox(address) { address.to_owned() } else { format!("root@{host}") }
    }
}

/// Sends it, within `limit`.
///
/// # Errors
/// Why nobody got it.
pub async fn send(letter: &Letter, limit: Duration) -> Result<(), String> {
    let host = host_name();
    let text = letter.compose(&host, &chrono::Local::now().to_rfc2822());
    let from = letter.sender(&host);
    match &letter.alert.relay {
        Some(relay) => {
            let sent = timeout(limit, transact(relay, (&host, &from, &letter.alert.to), &text)).await;
            sent.unwrap_or_else(|_| Err(format!("{}: no end within {} s", relay.host, limit.as_secs())))
        }
        None => {
            let mut arguments = vec!["-i".to_owned(), "-f".to_owned(), from, "--".to_owned()];
            arguments.extend(letter.alert.to.iter().cloned());
            let errand = Errand { program: SENDMAIL.into(), arguments };
            let text = text.replace("\r\n", "\n");
            errand::run(&errand, text.as_bytes(), limit).await.map_err(|why| format!("{SENDMAIL}: {why}"))
        }
    }
}

/// Our name, the sender, the recipients.
type Envelope<'a> = (&'a str, &'a str, &'a [String]);

async fn transact(relay: &Relay, (host, from, to): Envelope<'_>, text: &str) -> Result<(), String> {
    let stream = TcpStream::connect((relay.host.as_str(), relay.port)).await;
    let stream = stream.map_err(|error| format!("{}:{}: {error}", relay.host, relay.port))?;
    let mut client = Client { stream, splitter: Splitter::default(), rest: Vec::new() };
    let end = client.deliver((host, from, to), text).await;
    // A server that is left without logs a lost connection.
    if client.stream.write_all(b"QUIT\r\n").await.is_ok() {
        let _ = timeout(Duration::from_secs(2), client.reply()).await;
    }
    end.map_err(|why| format!("{}:{}: {why}", relay.host, relay.port))
}

struct Client {
    stream: TcpStream,
    splitter: Splitter,
    /// Read and not looked at.
    rest: Vec<u8>,
}

impl Client {
    async fn deliver(&mut self, (host, from, to): Envelope<'_>, text: &str) -> Result<(), String> {
        good(&self.reply().await?)?;
        if !(200..300).contains(&self.ask(&format!("EHLO {host}\r\n")).await?.code) {
            good(&self.ask(&format!("HELO {host}\r\n")).await?)?;
        }
        good(&self.ask(&format!("MAIL FROM:<{from}>\r\n")).await?)?;
        let mut refused = Vec::new();
        for one in to {
            if let Err(why) = good(&self.ask(&format!("RCPT TO:<{one}>\r\n")).await?) {
                warn!("{one} is refused: {why}");
                refused.push(why);
            }
        }
        if refused.len() == to.len() {
            return Err(format!("every recipient is refused: {}", refused.join("; ")));
        }
        let go = self.ask("DATA\r\n").await?;
        if go.code != 354 {
            return good(&go).and(Err("no 354 after DATA".to_owned()));
        }
        let mut wire = text.replace("\r\n.", "\r\n..");
        wire.push_str(".\r\n");
        good(&self.ask(&wire).await?)
    }

    async fn ask(&mut self, command: &str) -> Result<Reply, String> {
        self.stream.write_all(command.as_bytes()).await.map_err(|error| error.to_string())?;
        self.reply().await
    }

    async fn reply(&mut self) -> Result<Reply, String> {
        loop {
            let fed = self.splitter.feed(&self.rest);
            let (used, reply) = fed.map_err(|_| format!("no SMTP reply: {}", self.splitter.rest()))?;
            self.rest.drain(..used);
            if let Some(reply) = reply {
                return Ok(reply);
            }
            let mut buffer = [0; 1024];
            let length = self.stream.read(&mut buffer).await.map_err(|error| error.to_string())?;
            if length == 0 {
                return Err("the connection was closed".to_owned());
            }
            self.rest.extend_from_slice(buffer.get(..length).unwrap_or_default());
        }
    }
}

fn good(reply: &Reply) -> Result<(), String> {
    if (200..300).contains(&reply.code) {
        return Ok(());
    }
    Err(reply.lines.first().map_or_else(|| reply.code.to_string(), |line| printable(line.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter() -> Letter {
        let alert = Alert { to: vec!["a@example.com".into(), "root".into()], ..Alert::default() };
        Letter { alert, phase: Phase::Running, text: "Added real server: x (y) (Weight set to 1)".into() }
    }

    #[test]
    fn a_mail_says_what_those_of_ldirectord_say() {
        let mut letter = letter();
        let text = letter.compose("director.test", "Tue, 24 Nov 2026 16:33:54 +0000");
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        for line in [
            "From: root@director.test",
            "To: a@example.com, root",
            "Subject: Added real server: x (y) (Weight set to 1)",
            "Date: Tue, 24 Nov 2026 16:33:54 +0000",
            "Auto-Submitted: auto-generated",
        ] {
            assert!(head.split("\r\n").any(|found| found == line), "{head}");
        }
        assert_eq!(
            body,
            "ldirectord host: director.test\r\nLog-Message: Added real server: x (y) (Weight set to 1)\r\nDaemon-Status: running\r\n"
        );
        letter.alert.service = Some("mx".into());
        letter.alert.comment = Some("call Ann".into());
        let text = letter.compose("director.test", "");
        assert!(text.contains("Subject: [mx] Added real server"), "{text}");
        assert!(text.ends_with("running\r\n\r\nService name: mx\r\nComment: call Ann\r\n"), "{text}");
    }

    #[test]
    fn bounces_go_to_the_address_in_from() {
        let mut letter = letter();
        for (from, want) in [
            (None, "root@h.test"),
            (Some("d@x.test"), "d@x.test"),
            (Some("Director <d@x.test>"), "d@x.test"),
            (Some("the director"), "root@h.test"),
            (Some("x> BODY=8BITMIME <"), "root@h.test"),
        ] {
            letter.alert.from = from.map(str::to_owned);
            assert_eq!(letter.sender("h.test"), want);
        }
    }
}
