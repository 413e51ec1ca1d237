//! EDGE: the one way to a server that speaks in the clear, or TLS from its first byte.
//!
//! Owns [`Stream`], the stages `connect` and `tls` of every check that is not SMTP, and the verdict on a certificate.
//! Refuses to know what is said. Fails with a [`Failure`] of one of these two stages.
#![expect(clippy::disallowed_methods, reason = "EDGE: measures the handshake and keeps its deadline")]

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::client::TlsStream;

use crate::run::{after, connect};
use crate::smtp::reply::printable;
use crate::tls::handshake::handshake;
use crate::tls::{Judged, TlsSpec};
use crate::{CheckSpec, Failure, Outcome, Reason, Stage, StageReport};

/// How long a goodbye may take: the server is known to be well or not by then.
pub(crate) const GOODBYE: Duration = Duration::from_secs(2);

/// A connection that stands. An end without close_notify is an error of kind `UnexpectedEof`.
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Connects, and makes the connection a TLS session where there is a `tls`, whatever its mode. What TLS needs of this
/// machine is read before the server is disturbed. A bad certificate is a failure; nothing is said to such a server
/// but close_notify.
pub(crate) async fn open(
    spec: &CheckSpec,
    tls: Option<&TlsSpec>,
    deadline: Instant,
    outcome: &mut Outcome,
) -> Result<Stream, Failure> {
    let failed = |reason, text| Failure { stage: Stage::Tls, reason, code: None, text };
    if let Some(tls) = tls {
        tls.prepare().map_err(|text| failed(Reason::Local, printable(text.as_bytes())))?;
    }
    let stream = connect(spec, Instant::now(), deadline, outcome).await?;
    let Some(tls) = tls else { return Ok(Stream::Plain(stream)) };
    let start = Instant::now();
    let limit = after(start, tls.timeout).min(deadline);
    let secured = match timeout_at(limit, Box::pin(handshake(stream, tls))).await {
        Ok(secured) => secured.map_err(|(reason, text)| failed(reason, text))?,
        Err(_) => return Err(failed(Reason::Timeout, String::new())),
    };
    let received = vec![secured.report.to_string()];
    outcome.tls = Some(secured.report);
    let stream = Stream::Tls(secured.stream);
    if let Judged::Bad(reason, text) = secured.judged {
        stream.close(deadline).await;
        return Err(failed(reason, text));
    }
    outcome.stages.push(StageReport {
        stage: Stage::Tls,
        took: start.elapsed(),
        code: None,
        sent: String::new(),
        received,
    });
    Ok(stream)
}

impl Stream {
    /// Leaves. Without close_notify a server takes the end for an attack, and logs it.
    pub(crate) async fn close(mut self, deadline: Instant) {
        let limit = after(Instant::now(), GOODBYE).min(deadline);
        let _ = timeout_at(limit, self.shutdown()).await;
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(context),
        }
    }
}
