//! EDGE: sends one message over one connection.
//!
//! Owns the client's side of a transaction, and the answer to the one question that matters when it fails: may the
//! message be sent again? Refuses to know how many messages there are and at what pace.

use std::net::SocketAddr;
use std::time::Duration;

use checks::smtp::reply::{Reply, ReplyError, Splitter};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::message::Message;

/// The name in EHLO; reserved by RFC 2606, so nobody is taken for it.
const EHLO_NAME: &str = "smtp-loadgen.invalid";
/// Bytes of one read.
const READ: usize = 1024;

/// Who has the message now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The server's name, the first word of its banner.
    pub by: String,
}

/// Why a message was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// No server has it: it may be sent again.
    #[error("not accepted: {0}")]
    NotAccepted(String),
    /// The answer to the final dot is missing: a server may have it, and sending again may double it.
    #[error("unknown whether accepted: {0}")]
    Unknown(String),
}

/// What became of the message so far.
enum Fate {
    NotAccepted,
    /// The final dot is with the kernel, the answer is not here.
    Unknown,
    Accepted(Accepted),
}

/// Sends `message` to `target`, and says QUIT. Returns within `deadline`.
///
/// # Errors
/// [`SendError`], which says whether the message may be sent again. Trouble after the message was accepted is none.
pub async fn send(target: SocketAddr, message: &Message, deadline: Duration) -> Result<Accepted, SendError> {
    let mut fate = Fate::NotAccepted;
    let end = timeout(deadline, transact(target, message, &mut fate)).await;
    let why = match end {
        Ok(Ok(())) => String::new(),
        Ok(Err(why)) => why,
        Err(_) => format!("no end within {deadline:?}"),
    };
    match fate {
        Fate::Accepted(accepted) => Ok(accepted),
        Fate::NotAccepted => Err(SendError::NotAccepted(why)),
        Fate::Unknown => Err(SendError::Unknown(why)),
    }
}

async fn transact(target: SocketAddr, message: &Message, fate: &mut Fate) -> Result<(), String> {
    let wire = message.wire().ok_or("the id or an address is not one that can be said")?;
    let stream = TcpStream::connect(target).await.map_err(|error| error.to_string())?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let mut client = Client { stream, splitter: Splitter::default(), buffer: vec![0; READ] };
    let end = client.deliver(message, &wire, fate).await;
    if matches!(end, Ok(()) | Err(Trouble::Refused(_))) && client.say(b"QUIT\r\n").await.is_ok() {
        // Only its coming is waited for: a server that is left without logs a lost connection.
        let _ = client.reply().await;
    }
    end.map_err(|trouble| match trouble {
        Trouble::Refused(text) | Trouble::Lost(text) => text,
    })
}

/// Why a step failed.
enum Trouble {
    /// The server said no; it can be spoken to.
    Refused(String),
    /// It cannot.
    Lost(String),
}

struct Client {
    stream: TcpStream,
    splitter: Splitter,
    buffer: Vec<u8>,
}

impl Client {
    async fn deliver(&mut self, message: &Message, wire: &[u8], fate: &mut Fate) -> Result<(), Trouble> {
        let banner = self.expect(220).await?;
        let by = banner.lines.first().and_then(|line| line.get(4..)?.split_whitespace().next());
        let by = by.unwrap_or_default().to_owned();
        for (command, code) in [
            (format!("EHLO {EHLO_NAME}\r\n"), 250),
            (format!("MAIL FROM:<{}>\r\n", message.from), 250),
            (format!("RCPT TO:<{}>\r\n", message.to), 250),
            ("DATA\r\n".to_owned(), 354),
        ] {
            self.say(command.as_bytes()).await?;
            self.expect(code).await?;
        }
        // An error here means that not all was written, so the final dot was not, and nobody accepts.
        self.say(wire).await?;
        *fate = Fate::Unknown;
        let reply = self.reply().await?;
        let text = reply.lines.into_iter().next().unwrap_or_default();
        match reply.code {
            200..=299 => {
                *fate = Fate::Accepted(Accepted { by });
                return Ok(());
            }
            400.. => *fate = Fate::NotAccepted,
            _ => {}
        }
        Err(Trouble::Refused(text))
    }

    async fn say(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        self.stream.write_all(bytes).await.map_err(|error| Trouble::Lost(error.to_string()))
    }

    async fn expect(&mut self, code: u16) -> Result<Reply, Trouble> {
        let reply = self.reply().await?;
        if reply.code == code {
            return Ok(reply);
        }
        Err(Trouble::Refused(reply.lines.into_iter().next().unwrap_or_default()))
    }

    async fn reply(&mut self) -> Result<Reply, Trouble> {
        loop {
            let read = self.stream.read(&mut self.buffer).await;
            let length = read.map_err(|error| Trouble::Lost(error.to_string()))?;
            let bytes = self.buffer.get(..length).unwrap_or_default();
            if bytes.is_empty() {
                return Err(Trouble::Lost("the connection was closed".to_owned()));
            }
            match self.splitter.feed(bytes) {
                Ok((used, Some(reply))) if used == length => return Ok(reply),
                Ok((_, Some(_))) => return Err(Trouble::Lost("an answer before the question".to_owned())),
                Ok((_, None)) => {}
                Err(ReplyError::Protocol | ReplyError::TooLong) => {
                    return Err(Trouble::Lost(format!("no SMTP reply: {}", self.splitter.rest())));
                }
            }
        }
    }
}
