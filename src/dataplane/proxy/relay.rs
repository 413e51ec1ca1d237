//! EDGE. Carries the bytes of one session both ways until both sides have ended.
//!
//! Owns the two sockets of a session. Refuses to know how the server was chosen and connected to.
//!
//! How it fails: both sockets have `SO_LINGER` 0 until the orderly end of both directions. Whatever else ends
//! a session (an error, the idle timeout, the end of the process) closes them with RST and never with a FIN that
//! an SMTP client could take for the regular end of a reply. A reset that comes behind bytes which the other side
//! does not take yet is noticed after them, or by the idle timeout.

#![expect(clippy::disallowed_methods, reason = "EDGE: the idle timeout needs the clock")]

use std::future::poll_fn;
use std::io;
use std::mem::{self, MaybeUninit};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use super::counts::{Session, Traffic};

/// One read takes at most this much; also what is kept of one direction when the other side is slow.
const CHUNK: usize = 16 * 1024;
/// Reads of one direction before the other has its turn: half of what tokio lets a task do in one go (128
/// operations, and each read is followed by a write), so that a busy direction cannot starve the other.
const BURST: usize = 32;

/// A client and its real server.
pub(super) struct Relay<'a> {
    pub(super) client: TcpStream,
    pub(super) real: TcpStream,
    /// Where the session and its bytes are counted.
    pub(super) session: Session,
    /// Where its bytes are counted too: those of the whole virtual.
    pub(super) traffic: &'a Traffic,
}

impl Relay<'_> {
    /// Ends with the session.
    ///
    /// # Errors
    /// Those of the sockets, and `TimedOut` when nothing has moved for `idle`; both sides get RST.
    pub(super) async fn run(mut self, idle: Duration) -> io::Result<()> {
        let (mut up, mut down) = (Flow::default(), Flow::default());
        let mut moved = Instant::now();
        // The timer is not moved on with every byte: when it rings, it looks how long it has to go on.
        let mut timer = Box::pin(sleep(idle));
        loop {
            tokio::select! {
                biased;
                end = poll_fn(|cx| self.poll(cx, &mut up, &mut down, &mut moved)) => {
                    end?;
                    break;
                }
                () = &mut timer => match idle.checked_sub(moved.elapsed()) {
                    Some(rest) if !rest.is_zero() => timer.set(sleep(rest)),
                    _ => return Err(io::ErrorKind::TimedOut.into()),
                },
            }
        }
        SockRef::from(&self.client).set_linger(None)?;
        SockRef::from(&self.real).set_linger(None)
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        up: &mut Flow,
        down: &mut Flow,
        moved: &mut Instant,
    ) -> Poll<io::Result<()>> {
        // The server's side first: a server that says 421 and resets is heard before a write to it fails.
        let from_real = down.advance(cx, &mut self.real, &mut self.client);
        let from_client = up.advance(cx, &mut self.client, &mut self.real);

        let (in_bytes, out_bytes) = (mem::take(&mut up.read), mem::take(&mut down.read));
        self.session.traffic().bytes(in_bytes, out_bytes);
        self.traffic.bytes(in_bytes, out_bytes);
        if mem::take(&mut up.moved) | mem::take(&mut down.moved) {
            *moved = Instant::now();
        }
        match (from_real, from_client) {
            (Poll::Ready(Err(e)), _) | (_, Poll::Ready(Err(e))) => Poll::Ready(Err(e)),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(Ok(())),
            (Poll::Pending, Poll::Pending) => Poll::Pending,
            (Poll::Ready(Ok(())), Poll::Pending) | (Poll::Pending, Poll::Ready(Ok(()))) => {
                self.session.half_close();
                Poll::Pending
            }
        }
    }
}

/// How far a direction has got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// Its source goes on.
    #[default]
    Open,
    /// Its source has ended, its sink does not know yet.
    Ended,
    /// Its sink knows.
    Closed,
}

/// One direction.
#[derive(Debug, Default)]
struct Flow {
    stage: Stage,
    /// What the sink did not take at once; without memory of its own until that happens for the first time.
    pending: Vec<u8>,
    /// How much of `pending` has been written.
    written: usize,
    /// Bytes read since somebody took this number.
    read: u64,
    /// Whether anything was read or written since somebody took this.
    moved: bool,
}

impl Flow {
    /// Moves bytes until one side has to be waited for; ready once the end has been passed on. Reads nothing
    /// new while the sink has not taken what was read before: so a slow sink slows its source down.
    fn advance(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut TcpStream,
        sink: &mut TcpStream,
    ) -> Poll<io::Result<()>> {
        for _ in 0..BURST {
            ready!(self.flush(cx, sink))?;
            match self.stage {
                Stage::Open => self.stage = ready!(self.read(cx, source, sink))?,
                Stage::Ended => {
                    ready!(Pin::new(&mut *sink).poll_shutdown(cx))?;
                    self.stage = Stage::Closed;
                    self.moved = true;
                }
                Stage::Closed => return Poll::Ready(Ok(())),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Takes one chunk from the source and gives the sink what it takes of it.
    fn read(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut TcpStream,
        sink: &mut TcpStream,
    ) -> Poll<io::Result<Stage>> {
        // On the stack and not initialised: a session that waits holds no buffer.
        let mut chunk = [MaybeUninit::uninit(); CHUNK];
        let mut buffer = ReadBuf::uninit(&mut chunk);
        ready!(Pin::new(source).poll_read(cx, &mut buffer))?;
        self.moved = true;
        let bytes = buffer.filled();
        if bytes.is_empty() {
            return Poll::Ready(Ok(Stage::Ended));
        }
        self.read += bytes.len() as u64;
        let n = match Pin::new(sink).poll_write(cx, bytes) {
            Poll::Ready(written) => written?,
            Poll::Pending => 0,
        };
        self.pending.extend_from_slice(bytes.get(n..).unwrap_or_default());
        Poll::Ready(Ok(Stage::Open))
    }

    /// Writes what is pending.
    fn flush(&mut self, cx: &mut Context<'_>, sink: &mut TcpStream) -> Poll<io::Result<()>> {
        while let Some(rest) = self.pending.get(self.written..).filter(|rest| !rest.is_empty()) {
            let n = ready!(Pin::new(&mut *sink).poll_write(cx, rest))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += n;
            self.moved = true;
        }
        self.pending.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }
}
