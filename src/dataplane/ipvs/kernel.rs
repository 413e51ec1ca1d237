//! EDGE: the netlink socket to IPVS.
//!
//! Owns one socket with one request in flight. Refuses to know layouts (`wire`) and the meaning of errnos (`refusal`).
//! Fails with [`Error`] within [`DEADLINE`]. A refused change leaves the socket in use; after anything worse (a refused
//! question, no answer in time, bytes without sense, a future that was dropped half-way) the socket is gone and the
//! next request opens a new one, so that an answer which comes late can never be taken for that of another request.

#[cfg(test)]
#[cfg(target_endian = "little")]
mod faults;

use std::future::Future;
use std::io;
use std::time::Duration;

use netlink_sys::protocols::NETLINK_GENERIC;
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};

use super::refusal;
use super::wire::{self, Body, Errno, Info, Record, Request, Timeouts, WireError};
use crate::dataplane::{Dataplane, Error};
use crate::model::{Dump, Op, Virtual};

/// For one call, a whole dump among them; a scheduler's module may have to be loaded within it.
const DEADLINE: Duration = Duration::from_secs(5);

/// Netlink builds dumps in datagrams of at most 32 KiB.
const DATAGRAM: usize = 64 * 1024;

/// More services, or destinations of one service, than any farm has.
const MAX_RECORDS: usize = 1 << 20;

/// IPVS of the network namespace in which it was opened.
pub struct Ipvs<S = TokioSocket> {
    connection: Option<Connection<S>>,
    info: Info,
}

impl Ipvs {
    /// Finds IPVS, whose module the kernel loads by itself if it can.
    ///
    /// # Errors
    /// [`Error::NotAvailable`] if the kernel has none, [`Error::Permission`] without `CAP_NET_ADMIN`.
    pub async fn open() -> Result<Self, Error> {
        within_deadline(async {
            let mut connection = Connection::open().await?;
            let info = connection.ask_one(&Request::Info, wire::info).await?;
            Ok(Self { connection: Some(connection), info })
        })
        .await
    }

    /// Version and size of the connection table when it was opened.
    #[must_use]
    pub fn info(&self) -> Info {
        self.info
    }

    /// How long idle connections are remembered.
    ///
    /// # Errors
    /// [`Error`] as for a dump.
    pub async fn timeouts(&mut self) -> Result<Timeouts, Error> {
        within_deadline(async {
            let mut connection = Connection::take(&mut self.connection).await?;
            let timeouts = connection.ask_one(&Request::Timeouts, wire::timeouts).await?;
            self.connection = Some(connection);
            Ok(timeouts)
        })
        .await
    }

    /// Sets how long idle connections are remembered; 0 leaves a value as it is.
    ///
    /// # Errors
    /// [`Error`] as for a dump.
    pub async fn set_timeouts(&mut self, timeouts: Timeouts) -> Result<(), Error> {
        within_deadline(async {
            let mut connection = Connection::take(&mut self.connection).await?;
            let answer = connection.ask(&Request::SetTimeouts(timeouts), |_| Ok(())).await?;
            self.connection = Some(connection);
            answer.map(drop).map_err(refusal::of_query)
        })
        .await
    }
}

impl<S: Socket> Dataplane for Ipvs<S> {
    fn name(&self) -> &'static str {
        "ipvs"
    }

    async fn dump(&mut self) -> Result<Dump, Error> {
        within_deadline(async {
            let mut connection = Connection::take(&mut self.connection).await?;
            let dump = connection.dump().await?;
            self.connection = Some(connection);
            Ok(dump)
        })
        .await
    }

    async fn apply(&mut self, op: &Op) -> Result<(), Error> {
        within_deadline(async {
            let mut connection = Connection::take(&mut self.connection).await?;
            let answer = connection.ask(&Request::Apply(op), |_| Ok(())).await?;
            self.connection = Some(connection);
            answer.map(drop).map_err(|errno| refusal::of_op(op, errno))
        })
        .await
    }
}

async fn within_deadline<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::time::timeout(DEADLINE, work).await.unwrap_or(Err(Error::Timeout(DEADLINE)))
}

/// What is asked of a netlink socket; one that plays a kernel with faults is in `faults`.
trait Socket: Send + Sized {
    /// A socket to the kernel.
    fn open() -> io::Result<Self>;

    fn send(&mut self, message: &[u8]) -> impl Future<Output = io::Result<()>> + Send;

    /// Puts the next datagram into the spare capacity, and cuts what does not fit without a word. Gives the
    /// sender's port number: 0 is the kernel's.
    fn receive(&mut self, datagram: &mut Vec<u8>) -> impl Future<Output = io::Result<u32>> + Send;
}

/// Never cloned: `netlink_sys::Socket` is `Clone` over a bare descriptor and closes it on each drop.
impl Socket for TokioSocket {
    fn open() -> io::Result<Self> {
        let mut socket = Self::new(NETLINK_GENERIC)?;
        socket.socket_mut().bind_auto()?;
        socket.socket_ref().connect(&SocketAddr::new(0, 0))?;
        Ok(socket)
    }

    async fn send(&mut self, message: &[u8]) -> io::Result<()> {
        AsyncSocketExt::send(self, message).await.map(drop)
    }

    async fn receive(&mut self, datagram: &mut Vec<u8>) -> io::Result<u32> {
        Ok(self.recv_from(datagram).await?.port_number())
    }
}

/// A socket and what the kernel must be told on it.
struct Connection<S> {
    socket: S,
    /// The message type of IPVS; another one after the module was loaded again.
    family: u16,
    sequence: u32,
    datagram: Vec<u8>,
}

impl<S: Socket> Connection<S> {
    async fn open() -> Result<Self, Error> {
        let socket = S::open()?;
        let mut connection = Self { socket, family: 0, sequence: 0, datagram: Vec::with_capacity(DATAGRAM) };
        connection.family = connection.ask_one(&Request::Family, wire::family_id).await?;
        Ok(connection)
    }

    /// The one that is kept, or a new one. Only who has come to the end of an answer puts it back.
    async fn take(kept: &mut Option<Self>) -> Result<Self, Error> {
        match kept.take() {
            Some(connection) => Ok(connection),
            None => Self::open().await,
        }
    }

    /// The services, then the destinations of each. One that vanishes in between has none: the kernel calls
    /// that an empty dump, and the next dump will not show the service.
    async fn dump(&mut self) -> Result<Dump, Error> {
        let mut dump = Dump::default();
        let virtuals =
            self.ask(&Request::Virtuals, wire::virtual_record).await?.map_err(refusal::of_query)?;
        for record in virtuals.into_iter().flatten() {
            let id = record.id;
            let request = Request::Reals(&id);
            let reals = self.ask(&request, |real| wire::real_record(real, id.family())).await?;
            let mut entry = Virtual::new(record.settings);
            for real in reals.map_err(refusal::of_query)?.into_iter().flatten() {
                entry.reals.insert(real.id, real.settings);
                dump.counters.reals.insert((id, real.id), real.counters);
            }
            dump.counters.virtuals.insert(id, record.stats);
            dump.table.virtuals.insert(id, entry);
        }
        Ok(dump)
    }

    async fn ask_one<T>(
        &mut self,
        request: &Request<'_>,
        read: impl Fn(&Record<'_>) -> Result<T, WireError>,
    ) -> Result<T, Error> {
        let mut records = self.ask(request, read).await?.map_err(refusal::of_query)?;
        records
            .pop()
            .ok_or_else(|| Error::Protocol("an acknowledgement where an answer should be".to_owned()))
    }

    /// One request and all of its answer. A refusal is an answer; an `Err` leaves the socket unfit for use.
    async fn ask<T>(
        &mut self,
        request: &Request<'_>,
        read: impl Fn(&Record<'_>) -> Result<T, WireError>,
    ) -> Result<Result<Vec<T>, Errno>, Error> {
        self.sequence = self.sequence.wrapping_add(1);
        let message = request
            .encode(self.family, self.sequence)
            .map_err(|error| Error::Invalid(format!("the request: {error}")))?;
        self.socket.send(&message).await?;
        let mut records = Vec::new();
        loop {
            self.receive().await?;
            for message in wire::messages(&self.datagram) {
                let message = message?;
                if message.sequence != self.sequence {
                    continue;
                }
                match message.body {
                    Body::Record(_) if records.len() >= MAX_RECORDS => {
                        return Err(Error::Protocol(format!("a dump of more than {MAX_RECORDS} records")));
                    }
                    Body::Record(record) => records.push(read(&record)?),
                    Body::Ack | Body::Done => return Ok(Ok(records)),
                    Body::Refused(errno) => return Ok(Err(errno)),
                    Body::Noise => {}
                }
            }
        }
    }

    /// The next datagram of the kernel's; other processes may send to this socket too.
    async fn receive(&mut self) -> Result<(), Error> {
        loop {
            self.datagram.clear();
            let sender = self.socket.receive(&mut self.datagram).await?;
            if self.datagram.len() >= DATAGRAM {
                return Err(Error::Protocol(format!("a datagram of {DATAGRAM} bytes or more")));
            }
            if sender == 0 {
                return Ok(());
            }
        }
    }
}

impl From<WireError> for Error {
    fn from(error: WireError) -> Self {
        Self::Protocol(error.to_string())
    }
}
