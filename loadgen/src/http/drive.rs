//! EDGE: one request and its answer on a connection, in time.
//!
//! Owns the order of writes and reads. Refuses to know where an answer ends ([`super::response`]). Fails with a
//! [`Trouble`].

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::sleep;

use super::response::{After, MAX_HEAD, Response};
use super::{Compare, Request, Statuses, Version};
use crate::identify::Identify;
use crate::job::Target;
use crate::seat::Seat;
use crate::words::{Class, Phase, Trouble};

/// How many times the limit of a read a whole answer may take.
const DRIBBLE: u128 = 10;

impl Seat {
    /// Does one arrival of HTTP. Says how many bytes of body came.
    pub(crate) async fn http(&mut self, target: &Target, request: &Request) -> Result<u64, Trouble> {
        let room = Rc::clone(&self.room);
        if self.live.is_none() {
            Box::pin(self.connect(target)).await?;
            if target.is_secure() {
                Box::pin(self.secure(target)).await?;
            }
        }
        let plan = room.job.http;
        let begin = room.now();
        let lost = |class| Trouble::lost(Phase::FirstByte, class);
        self.write(&[&request.bytes]).await.map_err(lost)?;
        let header = match &room.job.identify {
            Identify::Header(name) => Some(name.as_str()),
            _ => None,
        };
        let (mut response, mut first) = (Response::new(plan.compare), None);
        loop {
            let phase = if first.is_some() { Phase::Transaction } else { Phase::FirstByte };
            let lost = |class| Trouble::lost(phase, class);
            match self.fill(MAX_HEAD).await {
                // Each read has its limit, as with http_load; a server that dribbles has this one.
                Ok(_)
                    if plan.throttle.is_none()
                        && u128::from(room.now() - begin) > DRIBBLE * room.job.timeout.as_nanos() =>
                {
                    return Err(lost(Class::Timeout));
                }
                Ok(_) => {}
                Err(Class::Closed) if response.ends_with_connection() => break,
                Err(class) => return Err(lost(class)),
            }
            if first.is_none() {
                first = Some(room.now());
            }
            let Some(live) = &mut self.live else { return Err(lost(Class::Closed)) };
            let (used, done) = response.feed(live.conn.input(), header).map_err(lost)?;
            live.conn.consume(used);
            if let Some(throttle) = plan.throttle {
                let due = response.bytes.saturating_mul(1_000_000_000) / throttle.max(1);
                sleep(Duration::from_nanos(due.saturating_sub(room.now() - begin))).await;
            }
            if done {
                break;
            }
        }
        let end = room.now();
        let keep = response.after == After::Keep && plan.version == Version::Keep;
        let mut tally = room.tally.borrow_mut();
        tally.phase(Phase::FirstByte, first.unwrap_or(end) - begin);
        tally.phase(Phase::Transaction, end - begin);
        tally.reply(Phase::FirstByte, response.status, None, String::new);
        if let (Some(name), Some(live)) = (&response.server, &mut self.live) {
            live.server = Some(tally.server(name, u64::from(live.server.is_none())));
        }
        drop(tally);
        if !keep && let Some(live) = &mut self.live {
            live.good_for = live.used + 1;
        }
        if response.status >= 400 && plan.statuses == Statuses::Judge {
            return Err(Trouble { phase: Phase::FirstByte, class: Class::Unexpected, alive: keep });
        }
        let value = match plan.compare {
            Compare::Nothing => return Ok(response.bytes),
            Compare::Bytes => response.bytes,
            Compare::Checksum => response.sum.into(),
        };
        let Some(kept) = room.shared.first_answers.get(request.index) else { return Ok(response.bytes) };
        // 0 is "none yet".
        let same = kept.compare_exchange(0, value + 1, Ordering::Relaxed, Ordering::Relaxed);
        match same {
            Err(known) if known != value + 1 => {
                Err(Trouble { phase: Phase::Transaction, class: Class::Mismatch, alive: keep })
            }
            Ok(_) | Err(_) => Ok(response.bytes),
        }
    }
}
