//! EDGE: takes an opening and transactions through a connection, in time.
//!
//! Owns the order of writes and reads and what is timed between them. Refuses to know what is said and what it means:
//! [`super::opening`] and [`super::transaction`] do. Fails with a [`Trouble`].

use std::io::Write as _;
use std::rc::Rc;
use std::time::Duration;

use checks::smtp::reply::printable;

use super::opening::{Act, Opening};
use super::reply::{self, MAX_REPLY, Reply};
use super::transaction::{Dialect, First, Group, Grouping, Say, Shape, Transaction};
use super::{End, Hello, Rset, Security, SmtpPlan};
use crate::job::Target;
use crate::mail::{Form, MailPlan, Stamp};
use crate::seat::Seat;
use crate::wire::Conn;
use crate::words::{Class, Phase, Trouble};
use crate::worker::Room;

/// The farewell may not hold up what comes next.
const FAREWELL: Duration = Duration::from_secs(5);

impl Seat {
    /// Does one arrival of SMTP. Says how many bytes of content were accepted.
    pub(crate) async fn smtp(&mut self, target: &Target, number: u64) -> Result<u64, Trouble> {
        if self.live.is_none() {
            let over = Box::pin(self.greet(target, number)).await?;
            if over == Opened::Over {
                return Ok(0);
            }
        }
        self.transact(number).await
    }

    /// Connects, and says all that comes before the first message.
    async fn greet(&mut self, target: &Target, number: u64) -> Result<Opened, Trouble> {
        self.connect(target).await?;
        let room = Rc::clone(&self.room);
        let secure;
        let plan = if target.is_secure() && room.job.smtp.security != Security::Implicit {
            secure = SmtpPlan { security: Security::Implicit, ..room.job.smtp.clone() };
            &secure
        } else {
            &room.job.smtp
        };
        let result = self.open(target, plan, number).await;
        if let Err(trouble) = result
            && trouble.alive
        {
            self.leave().await;
        }
        result
    }

    async fn open(&mut self, target: &Target, plan: &SmtpPlan, number: u64) -> Result<Opened, Trouble> {
        let room = Rc::clone(&self.room);
        let (mut opening, mut act) = Opening::new(plan, number);
        let mut begin = room.now();
        let mut timed = opening.phase();
        loop {
            let phase = opening.phase();
            let lost = |class| Trouble::lost(phase, class);
            if phase != timed {
                (timed, begin) = (phase, room.now());
            }
            match act {
                Act::Say(line) => self.write(&[line.as_bytes()]).await.map_err(lost)?,
                Act::Hear => {}
                Act::Handshake => {
                    self.secure(target).await?;
                    act = opening.secured();
                    continue;
                }
                Act::Ready | Act::Over => {
                    if let Some(live) = &mut self.live {
                        live.smtp.offers = opening.offers;
                        live.smtp.pipelines = opening.pipelines();
                        live.smtp.chunks = opening.chunks();
                    }
                    return Ok(if act == Act::Over { Opened::Over } else { Opened::Ready });
                }
                Act::Fail(trouble) => return Err(trouble),
            }
            self.hear().await.map_err(lost)?;
            let Some(live) = &mut self.live else { return Err(lost(Class::Closed)) };
            let Ok(Some(reply)) = reply::first(live.conn.input()) else { return Err(lost(Class::Protocol)) };
            let name = match phase {
                Phase::Banner => room.job.identify.by_banner(reply.text()),
                Phase::Ehlo => room.job.identify.by_ehlo(reply.text()),
                _ => None,
            };
            let length = reply.bytes.len();
            act = opening.reply(reply);
            let mut tally = room.tally.borrow_mut();
            if let Some(name) = name {
                let new = u64::from(live.server.is_none());
                live.server = Some(tally.server(&name, new));
            }
            note(&mut tally, phase, reply);
            if opening.phase() != phase || !matches!(act, Act::Say(_)) {
                tally.phase(phase, room.now() - begin);
            }
            drop(tally);
            live.conn.consume(length);
        }
    }

    /// One message.
    async fn transact(&mut self, number: u64) -> Result<u64, Trouble> {
        let room = Rc::clone(&self.room);
        let Some(live) = &mut self.live else { return Err(Trouble::lost(Phase::Mail, Class::Closed)) };
        let plan = &room.job.smtp;
        let clean = !(live.smtp.unclean || (plan.rset == Rset::Always && live.used > 0));
        live.smtp.unclean = false;
        let (dialogue, mail) = (live.smtp, &room.job.mail);
        let (micros, date) = room.wall();
        mail.compose(&mut self.draft, Stamp { number, micros, date: &date }, &mut self.random);
        let chunks = match (dialogue.chunks, plan.chunk) {
            (false, _) => 0,
            (true, 0) => 1,
            (true, chunk) => {
                let size = usize::try_from(self.draft.size).unwrap_or(usize::MAX);
                u32::try_from(size.div_ceil(chunk).max(1)).unwrap_or(u32::MAX)
            }
        };
        let ends_early = plan.end != End::Message;
        let (mut transaction, mut say) = Transaction::new(Shape {
            recipients: self.draft.recipients,
            grouping: if dialogue.pipelines && !ends_early {
                Grouping::Pipelined
            } else {
                Grouping::Lockstep
            },
            chunks,
            dialect: if plan.hello == Hello::Lhlo { Dialect::Lmtp } else { Dialect::Smtp },
            first: if clean { First::Mail } else { First::Rset },
            end: plan.end.phase(),
        });
        let begin = room.now();
        let (mut wrote, mut heard) = (begin, begin);
        loop {
            let phase = transaction.phase();
            let lost = |class| Trouble::lost(phase, class);
            match say {
                Say::Write(group) => {
                    wrote = heard;
                    self.say(&room, group, number).await.map_err(lost)?;
                }
                Say::Hear => {}
                Say::Done => break,
            }
            if self.hear().await.map_err(lost)? {
                heard = room.now();
            }
            let Some(live) = &mut self.live else { return Err(lost(Class::Closed)) };
            let Ok(Some(reply)) = reply::first(live.conn.input()) else { return Err(lost(Class::Protocol)) };
            let length = reply.bytes.len();
            let mut tally = room.tally.borrow_mut();
            tally.phase(phase, heard - wrote);
            note(&mut tally, phase, reply);
            say = transaction.reply(reply.code);
            if phase == Phase::Body
                && let Some(name) = room.job.identify.by_reply(reply.text())
            {
                live.server = Some(tally.server(&name, u64::from(live.server.is_none())));
            }
            drop(tally);
            live.conn.consume(length);
        }
        let mut tally = room.tally.borrow_mut();
        let (accepted, refused) = transaction.recipients();
        tally.recipients(accepted.into(), refused.into());
        if let Err(trouble) = transaction.verdict() {
            if let Some(live) = &mut self.live {
                live.smtp.unclean = true;
            }
            return Err(trouble);
        }
        tally.phase(Phase::Transaction, heard - begin);
        Ok(if ends_early { 0 } else { self.draft.size })
    }

    /// Waits until there is a whole reply; says whether bytes came meanwhile. The limit is the whole reply's, so that a
    /// server that dribbles is no better than one that is silent.
    async fn hear(&mut self) -> Result<bool, Class> {
        let Self { live: Some(live), patience, room, .. } = self else { return Err(Class::Closed) };
        if reply::first(live.conn.input())?.is_some() {
            return Ok(false);
        }
        patience.limit(room.job.timeout, whole_reply(&mut live.conn)).await??;
        Ok(true)
    }

    /// Writes a group of commands.
    async fn say(&mut self, room: &Room, group: Group, number: u64) -> Result<(), Class> {
        let Self { live: Some(live), command, draft, .. } = self else { return Err(Class::Closed) };
        let (plan, mail, offers) = (&room.job.smtp, &room.job.mail, live.smtp.offers);
        command.clear();
        // Writing to memory does not fail.
        if group.rset {
            command.extend_from_slice(b"RSET\r\n");
        }
        if group.mail {
            for part in ["MAIL FROM:<", mail.sender(number), ">"] {
                command.extend_from_slice(part.as_bytes());
            }
            if plan.announce_size && offers.size {
                let _ = write!(command, " SIZE={}", draft.size);
            }
            if plan.eight_bit && offers.eight_bit {
                command.extend_from_slice(b" BODY=8BITMIME");
            }
            if plan.utf8 {
                command.extend_from_slice(b" SMTPUTF8");
            }
            command.extend_from_slice(b"\r\n");
        }
        for which in group.rcpt.0..group.rcpt.1 {
            for part in ["RCPT TO:<", mail.recipient(number, which), ">\r\n"] {
                command.extend_from_slice(part.as_bytes());
            }
        }
        if group.data {
            command.extend_from_slice(b"DATA\r\n");
        }
        if group.dot {
            command.extend_from_slice(b".\r\n");
        }
        if !group.content && group.bdat.1 == 0 {
            let Self { patience, .. } = self;
            return patience.limit(room.job.timeout, live.conn.write(&[command])).await?;
        }
        self.say_content(room, group).await
    }

    async fn say_content(&mut self, room: &Room, group: Group) -> Result<(), Class> {
        let Self { live: Some(live), command, draft, patience, .. } = self else { return Err(Class::Closed) };
        let (mail, store): (&MailPlan, _) = (&room.job.mail, &room.shared.store);
        let mut parts: Vec<&[u8]> = Vec::with_capacity(8);
        if group.content {
            mail.parts(draft, store, Form::Dotted, &mut parts);
        } else if room.job.smtp.chunk == 0 {
            let _ = write!(command, "BDAT {} LAST\r\n", draft.size);
            parts.push(command);
            mail.parts(draft, store, Form::Plain, &mut parts);
        } else {
            // Chunks are for those who test them: here the content may be copied.
            mail.parts(draft, store, Form::Plain, &mut parts);
            let content = parts.concat();
            let mut all = std::mem::take(command);
            let count = content.len().div_ceil(room.job.smtp.chunk);
            for (n, chunk) in content.chunks(room.job.smtp.chunk).enumerate() {
                let number = u32::try_from(n).unwrap_or(u32::MAX);
                if (group.bdat.0..group.bdat.1).contains(&number) {
                    let last = if n + 1 == count { " LAST" } else { "" };
                    let _ = write!(all, "BDAT {}{last}\r\n", chunk.len());
                    all.extend_from_slice(chunk);
                }
            }
            *command = all;
            return patience.limit(room.job.timeout, live.conn.write(&[command])).await?;
        }
        patience.limit(room.job.timeout, live.conn.write(&parts)).await?
    }

    /// Says QUIT and hears the answer. What goes wrong costs no message, and is counted.
    pub(crate) async fn quit(&mut self) {
        let room = Rc::clone(&self.room);
        let begin = room.now();
        let result = self.farewell(&room).await;
        let mut tally = room.tally.borrow_mut();
        match result {
            Ok(()) => tally.phase(Phase::Quit, room.now() - begin),
            Err(class) => tally.trouble(Trouble::lost(Phase::Quit, class)),
        }
    }

    async fn farewell(&mut self, room: &Room) -> Result<(), Class> {
        let Self { live: Some(live), patience, .. } = self else { return Ok(()) };
        let limit = room.job.timeout.min(FAREWELL);
        patience.limit(limit, live.conn.write(&[b"QUIT\r\n"])).await??;
        if reply::first(live.conn.input())?.is_none() {
            patience.limit(limit, whole_reply(&mut live.conn)).await??;
        }
        let Some(reply) = reply::first(live.conn.input())? else { return Err(Class::Protocol) };
        note(&mut room.tally.borrow_mut(), Phase::Quit, reply);
        if reply.code == 221 { Ok(()) } else { Err(Class::of_code(reply.code)) }
    }
}

async fn whole_reply(conn: &mut Conn) -> Result<(), Class> {
    loop {
        conn.fill(MAX_REPLY).await?;
        if reply::first(conn.input())?.is_some() {
            return Ok(());
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Opened {
    Ready,
    /// The plan wants no message.
    Over,
}

/// Counts a reply.
fn note(tally: &mut crate::tally::Tally, phase: Phase, reply: Reply<'_>) {
    let begin = reply.begin();
    if tally.reply_again(phase, begin) {
        return;
    }
    let row = tally.reply(phase, reply.code, reply.enhanced(), || {
        if reply.code < 400 { String::new() } else { printable(reply.text()) }
    });
    tally.reply_began(phase, begin, row);
}
