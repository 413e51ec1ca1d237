//! EDGE. One client from its first server to its last byte.
//!
//! Owns the connect to the chosen real server and the PROXY header. Refuses to know how a server is chosen: when
//! this one does not take the client, it gives the client back to the listener. Fails silently towards the
//! caller and with RST towards the client, so that a mail client goes to its next MX at once.

#![expect(clippy::disallowed_methods, reason = "EDGE: a connect has a deadline")]

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use checks::proxy_header;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::counts::{Session, Traffic};
use super::relay::Relay;
use crate::config::ProxyOptions;
use crate::model::RealId;

/// One server has this long to answer the handshake.
const CONNECT: Duration = Duration::from_secs(3);

/// A client that was accepted and has no server yet. Dropping it resets the connection: its socket has
/// `SO_LINGER` 0 from the listener.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
    /// After this nobody is tried any more.
    pub(super) deadline: Instant,
    /// Who did not take it.
    pub(super) tried: Vec<RealId>,
    /// Its place among all sessions.
    pub(super) permit: OwnedSemaphorePermit,
}

/// Who was chosen for it.
pub(super) struct Target {
    pub(super) real: RealId,
    pub(super) session: Session,
    pub(super) options: ProxyOptions,
    /// Of the virtual.
    pub(super) traffic: Arc<Traffic>,
}

/// Serves one client until it ends, or gives it back through `again`.
pub(super) async fn serve(mut client: Client, target: Target, again: mpsc::UnboundedSender<Client>) {
    let Target { real, session, options, traffic } = target;
    let stream = match connect(&client, real, options).await {
        Ok(stream) => stream,
        Err(error) => {
            debug!(%real, %error, "cannot connect a client to this server");
            drop(session);
            client.tried.push(real);
            // The listener is gone with its virtual: then the client is dropped here, which resets it.
            let _ = again.send(client);
            return;
        }
    };
    // A session outlives its listener: it must not keep the way back to it open.
    drop(again);
    let Client { stream: client, permit, .. } = client;
    let relay = Relay { client, real: stream, session, traffic: &traffic };
    if let Err(error) = relay.run(options.idle).await {
        debug!(%real, %error, "a session was reset");
    }
    drop(permit);
}

/// A connection to the real server, with the header sent.
async fn connect(client: &Client, real: RealId, options: ProxyOptions) -> io::Result<TcpStream> {
    let header = match options.protocol {
        None => Vec::new(),
        Some(version) => proxy_header::encode(version, client.peer, client.stream.local_addr()?),
    };
    let socket = if real.0.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_nodelay(true)?;
    socket.set_zero_linger()?;
    let ready = async {
        let mut stream = socket.connect(real.0).await?;
        // The send buffer of a new connection takes it in one piece.
        stream.write_all(&header).await?;
        Ok(stream)
    };
    timeout_at(client.deadline.min(Instant::now() + CONNECT), ready).await?
}
