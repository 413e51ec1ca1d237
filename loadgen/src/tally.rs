//! What was counted and measured, by one thread or by all.
//!
//! Owns the counters, the histograms (microseconds, three digits), the tables of errors, replies and servers, and
//! their sum. Refuses to know clocks and sockets. Cannot fail; memory is flat: tables end at a size, and what
//! comes after is counted together.

use hdrhistogram::Histogram;

use crate::plan::Nanos;
use crate::words::{Class, Phase, Trouble};

/// Different servers that are told apart; the others are one.
pub const MAX_SERVERS: usize = 64;
/// Different replies that are told apart.
pub const MAX_REPLIES: usize = 256;
/// The name of servers beyond [`MAX_SERVERS`].
pub const OTHERS: &str = "(others)";
/// Microseconds; what takes longer is counted as this.
const LONGEST: u64 = 3_600_000_000;

/// Latencies in microseconds.
#[derive(Clone, Debug)]
pub struct Latency(pub Histogram<u64>);

impl Default for Latency {
    fn default() -> Self {
        Self::new()
    }
}

impl Latency {
    /// Nothing yet.
    ///
    /// # Panics
    /// Never: the arguments are constants that the crate accepts.
    #[must_use]
    #[expect(clippy::expect_used, reason = "constants that hdrhistogram accepts")]
    pub fn new() -> Self {
        let mut histogram = Histogram::new(3).expect("three digits");
        histogram.auto(true);
        Self(histogram)
    }

    /// How many are above so many milliseconds, as exactly as the histogram's digits.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float that is cast saturates"
    )]
    pub fn above(&self, millis: f64) -> u64 {
        let micros = (millis * 1000.0) as u64;
        self.0
            .iter_recorded()
            .filter(|step| step.value_iterated_to() > micros)
            .map(|step| step.count_since_last_iteration())
            .sum()
    }

    /// One latency.
    pub fn record(&mut self, nanos: Nanos) {
        let micros = (nanos / 1000).clamp(1, LONGEST);
        // Within its range an automatic histogram takes any value.
        let _ = self.0.record(micros);
    }

    /// All of another's.
    pub fn absorb(&mut self, other: &Self) {
        let _ = self.0.add(&other.0);
    }
}

/// What became of arrivals. `arrivals == ok + failed + unsent + cut`, when the run is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Due, started or not.
    pub arrivals: u64,
    /// Done as hoped.
    pub ok: u64,
    /// Failed, each in one phase and class.
    pub failed: u64,
    /// Due and never started.
    pub unsent: u64,
    /// Started, and cut off by the end of the run.
    pub cut: u64,
    /// Connections that were tried.
    pub connections: u64,
    /// Connections that were lost while something was under way on them.
    pub broken: u64,
    /// Recipients that were accepted, and refused.
    pub recipients: u64,
    /// Recipients that were refused in a transaction whose sender was not.
    pub refused_recipients: u64,
    /// Bytes of content that servers accepted (SMTP) or sent (HTTP).
    pub bytes: u64,
}

impl Counts {
    /// The sum of both.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            arrivals: self.arrivals + other.arrivals,
            ok: self.ok + other.ok,
            failed: self.failed + other.failed,
            unsent: self.unsent + other.unsent,
            cut: self.cut + other.cut,
            connections: self.connections + other.connections,
            broken: self.broken + other.broken,
            recipients: self.recipients + other.recipients,
            refused_recipients: self.refused_recipients + other.refused_recipients,
            bytes: self.bytes + other.bytes,
        }
    }
}

/// One kind of reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replies {
    /// Where.
    pub phase: Phase,
    /// The code; of HTTP the status.
    pub code: u16,
    /// The enhanced code (RFC 3463), or nothing.
    pub enhanced: Option<[u16; 3]>,
    /// How often.
    pub count: u64,
    /// The first one's text, printable; kept of refusals only.
    pub text: String,
}

/// A real server that answered.
#[derive(Clone, Debug, Default)]
pub struct Server {
    /// By what it called itself.
    pub name: String,
    /// Connections.
    pub connections: u64,
    /// Arrivals that it did.
    pub ok: u64,
    /// And that failed on it.
    pub failed: u64,
    /// Connections that it lost in the middle.
    pub broken: u64,
    /// The service latency of those that it did.
    pub service: Latency,
    /// The first failure and the last success.
    pub first_failure: Option<Nanos>,
    /// When it did one last.
    pub last_ok: Option<Nanos>,
}

/// One second of a thread's run.
#[derive(Clone, Debug, Default)]
pub struct Slice {
    /// Seconds since the start.
    pub second: u64,
    /// In this second only.
    pub counts: Counts,
    /// The headline latency of what was done in it.
    pub latency: Latency,
    /// Done and failed in it by server, in the order of the tally's servers.
    pub servers: Vec<(u64, u64)>,
    /// Connections that are open at its end.
    pub open: u64,
    /// What went wrong in it, by [`Phase`] and [`Class`].
    pub errors: [[u64; Class::COUNT]; Phase::COUNT],
}

/// All that is known.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Over the whole run.
    pub counts: Counts,
    /// From the time that the schedule gave to the end. In a closed run nothing.
    pub response: Latency,
    /// From the start to the end.
    pub service: Latency,
    /// From the time that the schedule gave to the start.
    pub lag: Latency,
    /// The same, of those that did not wait for one of the sessions: the generator's own.
    pub own_lag: Latency,
    /// By [`Phase`].
    pub phases: [Option<Box<Latency>>; Phase::COUNT],
    /// By [`Phase`] and [`Class`].
    pub errors: [[u64; Class::COUNT]; Phase::COUNT],
    /// By phase, code and enhanced code.
    pub replies: Vec<Replies>,
    /// Replies beyond [`MAX_REPLIES`] kinds.
    pub other_replies: u64,
    /// Who answered.
    pub servers: Vec<Server>,
    /// TLS sessions, and how many of them were resumed.
    pub tls: (u64, u64),
    /// Most connections that were open at one time; over several threads at most that.
    pub most_open: u64,
    /// CPU time of the threads, and how long they lived.
    pub cpu: (Nanos, Nanos),
    slice: Slice,
    /// How the last reply of each phase began, and its row.
    last: [([u8; 16], usize); Phase::COUNT],
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            counts: Counts::default(),
            response: Latency::new(),
            service: Latency::new(),
            lag: Latency::new(),
            own_lag: Latency::new(),
            phases: [const { None }; Phase::COUNT],
            errors: [[0; Class::COUNT]; Phase::COUNT],
            replies: Vec::new(),
            other_replies: 0,
            servers: Vec::new(),
            tls: (0, 0),
            most_open: 0,
            cpu: (0, 0),
            slice: Slice::default(),
            last: [([0; 16], 0); Phase::COUNT],
        }
    }
}

/// When something that was started ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// When the schedule wanted it; `None` in a closed run.
    pub scheduled: Option<Nanos>,
    /// When it was started.
    pub started: Nanos,
    /// When it ended.
    pub ended: Nanos,
}

impl Tally {
    /// One that was due is started. `waited`: for one of the sessions, all being busy.
    pub fn start(&mut self, scheduled: Option<Nanos>, started: Nanos, waited: Waited) {
        self.counts.arrivals += 1;
        self.slice.counts.arrivals += 1;
        if let Some(scheduled) = scheduled {
            let lag = started.saturating_sub(scheduled);
            self.lag.record(lag);
            if waited == Waited::No {
                self.own_lag.record(lag);
            }
        }
    }

    /// One was done.
    pub fn ok(&mut self, span: Span, server: Option<usize>, bytes: u64) {
        for counts in [&mut self.counts, &mut self.slice.counts] {
            counts.ok += 1;
            counts.bytes += bytes;
        }
        let service = span.ended.saturating_sub(span.started);
        self.service.record(service);
        let headline = match span.scheduled {
            Some(scheduled) => {
                let response = span.ended.saturating_sub(scheduled);
                self.response.record(response);
                response
            }
            None => service,
        };
        self.slice.latency.record(headline);
        if let Some(server) = server.and_then(|index| self.servers.get_mut(index)) {
            server.ok += 1;
            server.service.record(service);
            server.last_ok = server.last_ok.max(Some(span.ended));
        }
        if let Some(count) = self.sliced(server) {
            count.0 += 1;
        }
    }

    /// One failed.
    pub fn failed(&mut self, now: Nanos, server: Option<usize>, trouble: Trouble) {
        self.trouble(trouble);
        for counts in [&mut self.counts, &mut self.slice.counts] {
            counts.failed += 1;
        }
        if let Some(server) = server.and_then(|index| self.servers.get_mut(index)) {
            server.failed += 1;
            server.first_failure = Some(server.first_failure.map_or(now, |first| first.min(now)));
        }
        if let Some(count) = self.sliced(server) {
            count.1 += 1;
        }
    }

    /// Something went wrong; by itself it is no failed arrival.
    pub fn trouble(&mut self, trouble: Trouble) {
        for errors in [&mut self.errors, &mut self.slice.errors] {
            let row = errors.get_mut(trouble.phase as usize);
            if let Some(count) = row.and_then(|row| row.get_mut(trouble.class as usize)) {
                *count += 1;
            }
        }
    }

    /// A connection was lost with something under way on it.
    pub fn broke(&mut self, server: Option<usize>) {
        self.counts.broken += 1;
        self.slice.counts.broken += 1;
        if let Some(server) = server.and_then(|index| self.servers.get_mut(index)) {
            server.broken += 1;
        }
    }

    /// A connection is tried.
    pub fn connect(&mut self) {
        self.counts.connections += 1;
        self.slice.counts.connections += 1;
    }

    /// Recipients of a transaction.
    pub fn recipients(&mut self, accepted: u64, refused: u64) {
        for counts in [&mut self.counts, &mut self.slice.counts] {
            counts.recipients += accepted;
            counts.refused_recipients += refused;
        }
    }

    /// How long a phase took.
    pub fn phase(&mut self, phase: Phase, took: Nanos) {
        if let Some(slot) = self.phases.get_mut(phase as usize) {
            slot.get_or_insert_default().record(took);
        }
    }

    /// Counts a reply that begins as the last one of its phase did, and so has the same codes; says whether it does.
    pub fn reply_again(&mut self, phase: Phase, begin: [u8; 16]) -> bool {
        match self.last.get(phase as usize) {
            Some(&(last, row)) if last == begin => match self.replies.get_mut(row) {
                Some(known) => {
                    known.count += 1;
                    true
                }
                None => false,
            },
            _ => false,
        }
    }

    /// The reply that was counted last began so.
    pub fn reply_began(&mut self, phase: Phase, begin: [u8; 16], row: Option<usize>) {
        if let (Some(last), Some(row)) = (self.last.get_mut(phase as usize), row) {
            *last = (begin, row);
        }
    }

    /// A reply. `text` is called for the first one of a kind only. Says its row in [`Tally::replies`].
    pub fn reply(
        &mut self,
        phase: Phase,
        code: u16,
        enhanced: Option<[u16; 3]>,
        text: impl FnOnce() -> String,
    ) -> Option<usize> {
        let is = |known: &Replies| known.phase == phase && known.code == code && known.enhanced == enhanced;
        let row = self.replies.iter().position(is);
        if let Some(known) = row.and_then(|row| self.replies.get_mut(row)) {
            known.count += 1;
            row
        } else if self.replies.len() < MAX_REPLIES {
            self.replies.push(Replies { phase, code, enhanced, count: 1, text: text() });
            Some(self.replies.len() - 1)
        } else {
            self.other_replies += 1;
            None
        }
    }

    /// The place of the server of that name, which is new here or not. `connection`: a new connection to it.
    pub fn server(&mut self, name: &str, connections: u64) -> usize {
        let place = self.servers.iter().position(|server| server.name == name).unwrap_or_else(|| {
            let name = if self.servers.len() < MAX_SERVERS { name } else { OTHERS };
            self.servers.iter().position(|server| server.name == name).unwrap_or_else(|| {
                self.servers.push(Server { name: name.to_owned(), ..Server::default() });
                self.servers.len() - 1
            })
        });
        if let Some(server) = self.servers.get_mut(place) {
            server.connections += connections;
        }
        place
    }

    fn sliced(&mut self, server: Option<usize>) -> Option<&mut (u64, u64)> {
        let index = server?;
        if self.slice.servers.len() <= index {
            self.slice.servers.resize(index + 1, (0, 0));
        }
        self.slice.servers.get_mut(index)
    }

    /// Ends the present second, and begins the next.
    pub fn cut_slice(&mut self, open: u64) -> Slice {
        let mut next = Slice { second: self.slice.second + 1, ..Slice::default() };
        std::mem::swap(&mut next, &mut self.slice);
        next.open = open;
        next
    }

    /// Adds another's; equal servers and replies become one.
    pub fn absorb(&mut self, other: &Self) {
        self.counts = self.counts.plus(other.counts);
        self.response.absorb(&other.response);
        self.service.absorb(&other.service);
        self.lag.absorb(&other.lag);
        self.own_lag.absorb(&other.own_lag);
        for (mine, theirs) in self.phases.iter_mut().zip(&other.phases) {
            if let Some(theirs) = theirs {
                mine.get_or_insert_default().absorb(theirs);
            }
        }
        for (mine, theirs) in self.errors.iter_mut().flatten().zip(other.errors.iter().flatten()) {
            *mine += theirs;
        }
        for reply in &other.replies {
            let Replies { phase, code, enhanced, count, text } = reply;
            self.reply(*phase, *code, *enhanced, || text.clone());
            let more = count - 1;
            let known = self
                .replies
                .iter_mut()
                .find(|r| r.phase == *phase && r.code == *code && r.enhanced == *enhanced);
            match known {
                Some(known) => known.count += more,
                None => self.other_replies += more,
            }
        }
        self.other_replies += other.other_replies;
        for server in &other.servers {
            let place = self.server(&server.name, server.connections);
            if let Some(mine) = self.servers.get_mut(place) {
                mine.ok += server.ok;
                mine.failed += server.failed;
                mine.broken += server.broken;
                mine.service.absorb(&server.service);
                mine.first_failure = [mine.first_failure, server.first_failure].into_iter().flatten().min();
                mine.last_ok = mine.last_ok.max(server.last_ok);
            }
        }
        self.tls = (self.tls.0 + other.tls.0, self.tls.1 + other.tls.1);
        self.most_open += other.most_open;
        self.cpu = (self.cpu.0 + other.cpu.0, self.cpu.1 + other.cpu.1);
    }

    /// The headline latency: response, or service where there was no schedule.
    #[must_use]
    pub fn headline(&self) -> &Latency {
        if self.response.0.is_empty() { &self.service } else { &self.response }
    }
}

/// Whether an arrival waited for a session to become free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// All sessions were busy when it was due.
    Yes,
    /// There was room.
    No,
}
