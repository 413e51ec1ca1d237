//! EDGE: one session at a time, which does one arrival after the other.
//!
//! Owns the connection that is there or not, and when it is given up. Refuses to know when arrivals come (that is the
//! worker's) and what is said (that is [`crate::smtp::drive`]'s and [`crate::http::drive`]'s).

use std::rc::Rc;
use std::time::Duration;

use crate::job::{Choose, Secure, Speech, Target};
use crate::mail::Draft;
use crate::plan::Nanos;
use crate::smtp::opening::Offers;
use crate::smtp::{End, SmtpPlan};
use crate::wire::{Conn, Patience};
use crate::words::{Class, Phase, Trouble};
use crate::worker::Room;

/// After this time without use a connection is looked at before it is used.
const RESTED: Nanos = 100_000_000;

/// A connection that stands.
pub struct Live {
    pub(crate) conn: Conn,
    /// Which targets it is good for.
    pub(crate) origin: usize,
    /// Arrivals that were done on it, and how many it is good for.
    pub(crate) used: u64,
    pub(crate) good_for: u64,
    /// Who is at the other end.
    pub(crate) server: Option<usize>,
    opened: Nanos,
    /// When something was last done on it.
    pub(crate) last: Nanos,
    pub(crate) smtp: Dialogue,
}

/// What a connection can do in SMTP, once it is greeted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Dialogue {
    pub(crate) offers: Offers,
    pub(crate) pipelines: bool,
    pub(crate) chunks: bool,
    /// A transaction failed on it.
    pub(crate) unclean: bool,
}

/// What a seat did with an arrival.
pub(crate) struct Deed {
    pub(crate) result: Result<u64, Trouble>,
    pub(crate) server: Option<usize>,
}

/// One session at a time.
pub struct Seat {
    pub(crate) room: Rc<Room>,
    pub(crate) patience: Patience,
    pub(crate) live: Option<Live>,
    pub(crate) draft: Draft,
    pub(crate) command: Vec<u8>,
    /// The buffer of the last connection.
    buffer: Vec<u8>,
    pub(crate) random: fastrand::Rng,
}

impl Seat {
    /// Seats have different numbers, and so different dice.
    #[must_use]
    pub fn new(room: Rc<Room>, number: u64) -> Self {
        let random = fastrand::Rng::with_seed(room.job.seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        Self {
            room,
            patience: Patience::new(),
            live: None,
            draft: Draft::default(),
            command: Vec::new(),
            buffer: Vec::new(),
            random,
        }
    }

    /// Does the arrival `number`, which is started now.
    pub(crate) async fn perform(&mut self, number: u64, now: Nanos) -> Deed {
        let room = Rc::clone(&self.room);
        let Some(target) = self.target(&room, number) else {
            return Deed { result: Err(Trouble::lost(Phase::Connect, Class::Local)), server: None };
        };
        let other = self.live.as_ref().is_some_and(|live| live.origin != target.origin);
        let stale = self
            .live
            .as_ref()
            .is_some_and(|live| now.saturating_sub(live.last) > RESTED && live.conn.stale());
        if other {
            self.leave().await;
        } else if stale {
            // The server has said goodbye already.
            self.abandon().await;
        }
        let result = match &target.speech {
            Speech::Smtp => self.smtp(target, number).await,
            Speech::Http(request) => self.http(target, request).await,
        };
        if let (Err(trouble), Some(tell)) = (&result, room.job.tell) {
            tell(target, *trouble);
        }
        let server = self.live.as_ref().and_then(|live| live.server);
        Deed { result, server }
    }

    /// What is to be done to the connection after an arrival that was counted.
    pub(crate) async fn settle(&mut self, result: Result<u64, Trouble>, now: Nanos) {
        let Some(live) = &mut self.live else { return };
        live.used += 1;
        live.last = now;
        match result {
            Ok(_) if live.good_for > 0 && live.used >= live.good_for => self.leave().await,
            Ok(_) if self.room.job.smtp.end != End::Message => self.leave().await,
            Err(trouble) if !trouble.alive => {
                self.room.tally.borrow_mut().broke(live.server);
                self.abandon().await;
            }
            Ok(_) | Err(_) => {}
        }
    }

    fn target<'r>(&mut self, room: &'r Rc<Room>, number: u64) -> Option<&'r Target> {
        let targets = &room.job.targets;
        if let [only] = targets.as_slice() {
            return Some(only);
        }
        let place = match room.job.choose {
            Choose::Random => self.random.usize(..targets.len()),
            Choose::InTurn => usize::try_from(number % u64::try_from(targets.len()).ok()?).ok()?,
        };
        targets.get(place)
    }

    /// Connects; TLS where the URL says so is not begun.
    pub(crate) async fn connect(&mut self, target: &Target) -> Result<(), Trouble> {
        let room = Rc::clone(&self.room);
        let opened = room.now();
        let number = room.tally.borrow().counts.connections;
        room.tally.borrow_mut().connect();
        let number = number * room.threads + room.index;
        let count = u64::try_from(target.addresses.len()).unwrap_or(1).max(1);
        let address = usize::try_from(number % count).ok().and_then(|place| target.addresses.get(place));
        let lost = |class| Trouble::lost(Phase::Connect, class);
        let Some(&address) = address else { return Err(lost(Class::Local)) };
        let open = Conn::open(address, &room.job.wire, number, std::mem::take(&mut self.buffer));
        let conn = match self.patience.limit(room.job.connect_timeout, open).await {
            Ok(Ok(conn)) => conn,
            Ok(Err(class)) | Err(class) => return Err(lost(class)),
        };
        if target.speech == Speech::Smtp || target.is_secure() {
            conn.hurry();
        }
        let now = room.now();
        room.open.set(room.open.get() + 1);
        {
            let mut tally = room.tally.borrow_mut();
            tally.phase(Phase::Connect, now - opened);
            tally.most_open = tally.most_open.max(room.open.get());
        }
        let good_for = room.job.per_connection.draw(&mut self.random);
        self.live = Some(Live {
            conn,
            origin: target.origin,
            used: 0,
            good_for,
            server: None,
            opened,
            last: now,
            smtp: Dialogue::default(),
        });
        Ok(())
    }

    /// Makes the connection TLS.
    pub(crate) async fn secure(&mut self, target: &Target) -> Result<(), Trouble> {
        let room = Rc::clone(&self.room);
        let lost = |class| Trouble::lost(Phase::Tls, class);
        let Some(live) = &mut self.live else { return Err(lost(Class::Closed)) };
        let begin = room.now();
        let secure = Box::pin(live.conn.secure(&room.job.tls, target.name.clone()));
        let resumed = self.patience.limit(room.job.timeout, secure).await.map_err(lost)?.map_err(lost)?;
        let mut tally = room.tally.borrow_mut();
        tally.phase(Phase::Tls, room.now() - begin);
        tally.tls.0 += 1;
        tally.tls.1 += u64::from(resumed);
        if let crate::identify::Identify::Certificate = room.job.identify
            && let Some(name) = live.conn.certificate().and_then(crate::tls::common_name)
        {
            live.server = Some(tally.server(&name, 1));
        }
        Ok(())
    }

    /// Writes, in time.
    pub(crate) async fn write(&mut self, parts: &[&[u8]]) -> Result<(), Class> {
        let Some(live) = &mut self.live else { return Err(Class::Closed) };
        self.patience.limit(self.room.job.timeout, live.conn.write(parts)).await?
    }

    /// Reads more, in time.
    pub(crate) async fn fill(&mut self, most: usize) -> Result<usize, Class> {
        let Some(live) = &mut self.live else { return Err(Class::Closed) };
        self.patience.limit(self.room.job.timeout, live.conn.fill(most)).await?
    }

    /// Ends the connection politely, if there is one.
    pub(crate) async fn leave(&mut self) {
        let smtp = |plan: &SmtpPlan| !matches!(plan.end, End::Drop(_));
        let Some(live) = &self.live else { return };
        let speaks = self
            .room
            .job
            .targets
            .iter()
            .any(|target| target.origin == live.origin && target.speech == Speech::Smtp);
        if speaks && smtp(&self.room.job.smtp) {
            self.quit().await;
        }
        self.abandon().await;
    }

    /// Ends the connection, if there is one.
    pub(crate) async fn abandon(&mut self) {
        let Some(live) = self.live.take() else { return };
        let room = &self.room;
        self.buffer = live.conn.close(room.job.wire.ending).await;
        room.open.set(room.open.get().saturating_sub(1));
        room.tally.borrow_mut().phase(Phase::Session, room.now() - live.opened);
    }

    /// How long a connection may lie idle; `None`: there is none.
    pub(crate) fn idles(&self) -> Option<Duration> {
        self.live.as_ref().map(|_| self.room.job.idle)
    }
}

impl Target {
    /// Whether TLS begins with the first byte.
    pub(crate) fn is_secure(&self) -> bool {
        self.security == Secure::Yes
    }
}
