//! EDGE: connections, plain or TLS, and how long they are waited for.
//!
//! Owns sockets: source addresses, the PROXY header, how they are closed, the buffer that answers are read into. Refuses
//! to know what is said. Fails with a [`Class`]. A wait costs no timer of its own: each seat has one, which is
//! moved when it fires too early.
#![expect(clippy::disallowed_methods, reason = "EDGE: keeps deadlines")]

use std::future::{Future, poll_fn};
use std::io::{self, ErrorKind, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use checks::proxy_header::{self, Version};
use nix::sys::socket::{setsockopt, sockopt};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use rustls::pki_types::ServerName;
use socket2::{Domain, SockRef, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::words::Class;

const ENFILE: i32 = Errno::NFILE.raw_os_error();
const EMFILE: i32 = Errno::MFILE.raw_os_error();

/// Bytes of the buffer for answers, before one is larger.
const BUFFER: usize = 4096;

/// How a connection is ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ending {
    /// As clients do: the director keeps the entry for its FIN timeouts.
    #[default]
    Fin,
    /// At once, leaving nothing behind on either side.
    Rst,
}

/// What every connection has.
#[derive(Clone, Debug, Default)]
pub struct WirePlan {
    /// Source addresses, in turn; none: as the system likes.
    pub sources: Vec<IpAddr>,
    /// The PROXY header, first of all.
    pub proxy: Option<Version>,
    /// The client addresses that it names, in turn; none: our own.
    pub proxy_clients: Vec<IpAddr>,
    /// How connections are ended.
    pub ending: Ending,
}

/// A deadline that moves: one for each seat.
pub struct Patience(Pin<Box<Sleep>>);

impl Patience {
    /// One that is not used yet.
    #[must_use]
    pub fn new() -> Self {
        Self(Box::pin(sleep_until(Instant::now() + Duration::from_hours(1))))
    }

    /// Waits for `work`, at most `limit`.
    ///
    /// # Errors
    /// [`Class::Timeout`].
    pub async fn limit<F: Future>(&mut self, limit: Duration, work: F) -> Result<F::Output, Class> {
        let mut work = pin!(work);
        let mut deadline = None;
        poll_fn(|context| {
            if let Poll::Ready(done) = work.as_mut().poll(context) {
                return Poll::Ready(Ok(done));
            }
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + limit);
            if deadline < self.0.deadline() {
                self.0.as_mut().reset(deadline);
            }
            loop {
                ready!(self.0.as_mut().poll(context));
                if Instant::now() >= deadline {
                    return Poll::Ready(Err(Class::Timeout));
                }
                self.0.as_mut().reset(deadline);
            }
        })
        .await
    }
}

impl Default for Patience {
    fn default() -> Self {
        Self::new()
    }
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// A handshake took it, and failed.
    Gone,
}

/// A connection and what was read from it.
pub struct Conn {
    stream: Stream,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Conn {
    /// Connects, and says the PROXY header. `number` chooses the addresses; `buffer` is one that an earlier connection left.
    ///
    /// # Errors
    /// What it failed by.
    pub async fn open(
        target: SocketAddr,
        plan: &WirePlan,
        number: u64,
        mut buffer: Vec<u8>,
    ) -> Result<Self, Class> {
        let stream = connect(target, plan, number).await.map_err(|error| class(&error))?;
        if buffer.len() != BUFFER {
            buffer = vec![0; BUFFER];
        }
        let mut conn = Self { stream: Stream::Plain(stream), buffer, start: 0, end: 0 };
        if let (Some(version), Stream::Plain(stream)) = (plan.proxy, &conn.stream) {
            let own = stream.local_addr().map_err(|error| class(&error))?;
            let client = pick(&plan.proxy_clients, number).map_or(own, |ip| SocketAddr::new(ip, own.port()));
            let header = proxy_header::encode(version, client, target);
            conn.write(&[&header]).await?;
        }
        Ok(conn)
    }

    /// Makes it TLS; says whether the session was resumed.
    ///
    /// # Errors
    /// [`Class::TlsFailed`], or what the network did; [`Class::Protocol`] where plain text waits to be taken for TLS's
    /// (CVE-2011-0411).
    pub async fn secure(
        &mut self,
        config: &Arc<rustls::ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<bool, Class> {
        if self.start < self.end {
            return Err(Class::Protocol);
        }
        let Stream::Plain(plain) = std::mem::replace(&mut self.stream, Stream::Gone) else {
            return Err(Class::TlsFailed);
        };
        let stream =
            TlsConnector::from(Arc::clone(config)).connect(name, plain).await.map_err(|e| class(&e))?;
        let resumed = stream.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
        self.stream = Stream::Tls(Box::new(stream));
        Ok(resumed)
    }

    /// Sends small packets at once: for who speaks before the answer to what was said is there, in part or in whole.
    pub fn hurry(&self) {
        if let Stream::Plain(stream) = &self.stream {
            // Where it cannot be, all is as right and slower.
            let _ = stream.set_nodelay(true);
        }
    }

    /// The certificate of the server, in DER.
    #[must_use]
    pub fn certificate(&self) -> Option<&[u8]> {
        let Stream::Tls(stream) = &self.stream else { return None };
        stream.get_ref().1.peer_certificates()?.first().map(AsRef::as_ref)
    }

    /// What was read and not used.
    #[must_use]
    pub fn input(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// Uses up some of the input.
    pub fn consume(&mut self, bytes: usize) {
        self.start = (self.start + bytes).min(self.end);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Reads more, behind the input; says how much. Never holds more than `most` bytes.
    ///
    /// # Errors
    /// [`Class::Closed`] at the end, [`Class::TooLong`] where there is no room, or what the network did.
    pub async fn fill(&mut self, most: usize) -> Result<usize, Class> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == self.buffer.len() {
            if self.end >= most {
                return Err(Class::TooLong);
            }
            self.buffer.resize((self.end * 2).min(most), 0);
        }
        let (stream, room) = (&mut self.stream, self.buffer.get_mut(self.end..).unwrap_or_default());
        let mut room = ReadBuf::new(room);
        poll_fn(|context| stream.poll_read(context, &mut room)).await.map_err(|error| class(&error))?;
        let length = room.filled().len();
        self.end += length;
        if length == 0 { Err(Class::Closed) } else { Ok(length) }
    }

    /// Writes all of `parts`, with as few calls as the system allows.
    ///
    /// # Errors
    /// What the network did.
    pub async fn write(&mut self, parts: &[&[u8]]) -> Result<(), Class> {
        let (mut part, mut offset) = (0, 0);
        loop {
            let mut slices = [IoSlice::new(&[]); 16];
            let mut count = 0;
            for (slot, bytes) in slices.iter_mut().zip(parts.get(part..).unwrap_or_default()) {
                let skip = if count == 0 { offset } else { 0 };
                *slot = IoSlice::new(bytes.get(skip..).unwrap_or_default());
                count += 1;
            }
            if count == 0 {
                break;
            }
            let slices = slices.get(..count).unwrap_or_default();
            let stream = &mut self.stream;
            let mut written =
                poll_fn(|context| stream.poll_write(context, slices)).await.map_err(|error| class(&error))?;
            let before = (part, offset);
            while let Some(bytes) = parts.get(part) {
                let left = bytes.len() - offset;
                if written < left {
                    offset += written;
                    break;
                }
                written -= left;
                (part, offset) = (part + 1, 0);
            }
            if before == (part, offset) {
                return Err(Class::Closed);
            }
        }
        if let Stream::Tls(tls) = &mut self.stream {
            poll_fn(|context| Pin::new(&mut *tls).poll_flush(context))
                .await
                .map_err(|error| class(&error))?;
        }
        Ok(())
    }

    /// Whether the server closed it, or spoke out of turn, while it was idle.
    #[must_use]
    pub fn stale(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => {
                let mut byte = [0];
                !matches!(stream.try_read(&mut byte), Err(error) if error.kind() == ErrorKind::WouldBlock)
            }
            Stream::Tls(_) | Stream::Gone => false,
        }
    }

    /// Ends it as the plan says, and leaves its buffer. TLS says so to the other side, but does not wait for it.
    pub async fn close(mut self, ending: Ending) -> Vec<u8> {
        if ending == Ending::Rst {
            let stream = match &self.stream {
                Stream::Plain(stream) => stream,
                Stream::Tls(stream) => stream.get_ref().0,
                Stream::Gone => return self.buffer,
            };
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        } else if let Stream::Tls(tls) = &mut self.stream {
            let _ = poll_fn(|context| Poll::Ready(Pin::new(&mut *tls).poll_shutdown(context))).await;
        }
        self.buffer
    }
}

impl Stream {
    fn poll_read(&mut self, context: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, room),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, room),
            Self::Gone => Poll::Ready(Err(ErrorKind::NotConnected.into())),
        }
    }

    fn poll_write(&mut self, context: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self {
            // The system takes a single part at less than the price of a list of one. There is nearly always room: it is
            // asked at once, and the runtime only when there is none. That also spares the first write of a connection the
            // wait until the runtime has heard of it.
            Self::Plain(stream) => match parts {
                [part] => match send(&*stream, part, SendFlags::NOSIGNAL) {
                    Ok(length) => Poll::Ready(Ok(length)),
                    Err(Errno::AGAIN) => Pin::new(stream).poll_write(context, part),
                    Err(error) => Poll::Ready(Err(error.into())),
                },
                parts => match SockRef::from(&*stream).send_vectored(parts) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        Pin::new(stream).poll_write_vectored(context, parts)
                    }
                    result => Poll::Ready(result),
                },
            },
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, parts),
            Self::Gone => Poll::Ready(Err(ErrorKind::NotConnected.into())),
        }
    }
}

async fn connect(target: SocketAddr, plan: &WirePlan, number: u64) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM.nonblocking(), None)?;
    if let Some(source) = pick(&plan.sources, number) {
        // The port is chosen at connect: one port serves many targets, and TIME_WAIT is looked at by target.
        let _ = setsockopt(&socket, sockopt::IpBindAddressNoPort, &true);
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    match socket.connect(&target.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) => {}
        Err(error) => return Err(error),
    }
    let stream = TcpStream::from_std(socket.into())?;
    // Loopback shakes hands within the call; whether it did costs less to ask than to wait for.
    if target.ip().is_loopback() && stream.peer_addr().is_ok() {
        return Ok(stream);
    }
    let ready = stream.ready(Interest::WRITABLE).await?;
    // A connection that failed is writable too, and at its end.
    if ready.is_write_closed()
        && let Some(error) = stream.take_error()?
    {
        return Err(error);
    }
    Ok(stream)
}

fn pick<T: Copy>(from: &[T], number: u64) -> Option<T> {
    let count = u64::try_from(from.len()).ok()?;
    from.get(usize::try_from(number.checked_rem(count)?).ok()?).copied()
}

/// What an error of the system means.
fn class(error: &io::Error) -> Class {
    match error.kind() {
        ErrorKind::AddrNotAvailable | ErrorKind::AddrInUse => Class::NoPorts,
        _ if matches!(error.raw_os_error(), Some(EMFILE | ENFILE)) => Class::NoDescriptors,
        ErrorKind::ConnectionRefused => Class::Refused,
        ErrorKind::HostUnreachable => Class::Unreachable,
        ErrorKind::TimedOut => Class::Timeout,
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted => Class::Reset,
        ErrorKind::UnexpectedEof | ErrorKind::NotConnected => Class::Closed,
        _ if error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<rustls::Error>) => {
            Class::TlsFailed
        }
        _ => Class::Local,
    }
}
