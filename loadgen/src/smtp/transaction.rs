//! One message: which commands go out when, and what the replies make of it (RFC 5321, 2033, 2920, 3030).
//!
//! Owns the order of a transaction, one by one or pipelined, by DATA or BDAT. Refuses to know sockets, time and what is
//! in the message. Fails with the first [`Trouble`]; what was already sent is heard to its end, so that the connection
//! stays usable.

use crate::words::{Class, Phase, Trouble};

/// How the message goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// At least 1.
    pub recipients: u32,
    /// Together or one by one.
    pub grouping: Grouping,
    /// BDAT commands; 0: DATA.
    pub chunks: u32,
    /// Whether each recipient gets a reply of its own in the end.
    pub dialect: Dialect,
    /// RSET comes first.
    pub first: First,
    /// Nothing more after the answer of this phase.
    pub end: Option<Phase>,
}

/// Whether commands go out together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grouping {
    /// Each after the reply to the one before.
    Lockstep,
    /// As RFC 2920 allows.
    Pipelined,
}

/// Which protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// One final reply.
    Smtp,
    /// One for each accepted recipient.
    Lmtp,
}

/// What a transaction begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// MAIL.
    Mail,
    /// RSET.
    Rset,
}

/// A place in the order of replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Rset,
    Mail,
    Rcpt(u32),
    Data,
    /// Of a chunk, or of the whole.
    Body(u32),
    End,
}

/// What goes out together, in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a command that is in or not")]
pub struct Group {
    /// RSET.
    pub rset: bool,
    /// MAIL FROM.
    pub mail: bool,
    /// RCPT TO, from the first to before the second.
    pub rcpt: (u32, u32),
    /// DATA.
    pub data: bool,
    /// BDAT with its chunk, from the first to before the second.
    pub bdat: (u32, u32),
    /// The whole content and the final dot.
    pub content: bool,
    /// The final dot alone: 354 came though nobody is to get the message.
    pub dot: bool,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Say {
    /// Write, then give the next reply.
    Write(Group),
    /// Give the next reply.
    Hear,
    /// It is over; see [`Transaction::verdict`].
    Done,
}

/// One message on its way.
#[derive(Clone, Copy, Debug)]
pub struct Transaction {
    shape: Shape,
    /// The reply that is awaited.
    next: Place,
    /// The first command that was not sent.
    unsent: Place,
    accepted: u32,
    refused: u32,
    /// Final replies that are yet to come, and were good.
    finals: u32,
    good: u32,
    trouble: Option<Trouble>,
}

impl Transaction {
    /// Begins.
    #[must_use]
    pub fn new(shape: Shape) -> (Self, Say) {
        let place = if shape.first == First::Rset { Place::Rset } else { Place::Mail };
        let mut new = Self {
            shape,
            next: place,
            unsent: place,
            accepted: 0,
            refused: 0,
            finals: 0,
            good: 0,
            trouble: None,
        };
        let say = new.speak();
        (new, say)
    }

    /// Which phase the awaited reply belongs to.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.next {
            Place::Rset => Phase::Rset,
            Place::Mail => Phase::Mail,
            Place::Rcpt(_) => Phase::Rcpt,
            Place::Data => Phase::Data,
            Place::Body(_) | Place::End => Phase::Body,
        }
    }

    /// Recipients that were accepted and refused.
    #[must_use]
    pub fn recipients(&self) -> (u32, u32) {
        (self.accepted, self.refused)
    }

    /// How it ended.
    ///
    /// # Errors
    /// The first trouble.
    pub fn verdict(&self) -> Result<(), Trouble> {
        self.trouble.map_or(Ok(()), Err)
    }

    /// The awaited reply.
    pub fn reply(&mut self, code: u16) -> Say {
        let phase = self.phase();
        let class = match (phase, code) {
            (Phase::Data, 354) | (Phase::Rset | Phase::Mail | Phase::Rcpt | Phase::Body, 200..=299) => None,
            _ => Some(Class::of_code(code)),
        };
        if code == 421 {
            // RFC 5321 section 3.8: the server closes.
            self.fail(Trouble::lost(phase, Class::Tempfail));
            return Say::Done;
        }
        let place = self.next;
        match (place, class) {
            (Place::Rcpt(_), None) => self.accepted += 1,
            (Place::Rcpt(n), Some(class)) => {
                if self.trouble.is_none() {
                    self.refused += 1;
                }
                if self.accepted == 0 && n + 1 == self.shape.recipients {
                    self.fail(Trouble { phase, class, alive: true });
                }
            }
            (Place::Body(_), _) => return self.finally(class),
            (_, Some(class)) => self.fail(Trouble { phase, class, alive: true }),
            (_, None) => {}
        }
        if self.trouble.is_none() && self.shape.end == Some(phase) && self.last_of(place) {
            return Say::Done;
        }
        self.next = self.after(place);
        if place == Place::Data {
            return self.data(class.is_none());
        }
        if self.next < self.unsent {
            return Say::Hear;
        }
        if self.trouble.is_some() { Say::Done } else { self.speak() }
    }

    /// After the answer to DATA.
    fn data(&mut self, granted: bool) -> Say {
        if !granted {
            return Say::Done;
        }
        self.finals = if self.shape.dialect == Dialect::Lmtp { self.accepted } else { 1 };
        if self.trouble.is_none() {
            return self.speak();
        }
        if self.finals == 0 {
            // LMTP without recipients: the dot has no reply at all, so the connection is of no more use.
            self.trouble = self.trouble.map(|trouble| Trouble { alive: false, ..trouble });
            return Say::Done;
        }
        self.unsent = Place::End;
        Say::Write(Group { dot: true, ..Group::default() })
    }

    /// A reply to the content.
    fn finally(&mut self, class: Option<Class>) -> Say {
        let Place::Body(n) = self.next else { return Say::Done };
        let last = n + 1 >= self.shape.chunks;
        if let Some(class) = class {
            // With LMTP one recipient's refusal is not the message's.
            if !(self.shape.dialect == Dialect::Lmtp && last) || (self.good == 0 && self.finals <= 1) {
                self.fail(Trouble { phase: Phase::Body, class, alive: true });
            }
        }
        if !last {
            self.next = Place::Body(n + 1);
            let heard = self.next >= self.unsent;
            return match self.trouble {
                Some(_) if heard => Say::Done,
                _ if heard => self.speak(),
                _ => Say::Hear,
            };
        }
        if self.shape.chunks > 0 && self.finals == 0 {
            let each = self.shape.dialect == Dialect::Lmtp && self.accepted > 0;
            self.finals = if each { self.accepted } else { 1 };
        }
        if class.is_none() {
            self.good += 1;
        }
        self.finals = self.finals.saturating_sub(1);
        if self.finals > 0 { Say::Hear } else { Say::Done }
    }

    fn fail(&mut self, trouble: Trouble) {
        let first = self.trouble.get_or_insert(trouble);
        first.alive &= trouble.alive;
    }

    fn last_of(&self, place: Place) -> bool {
        match place {
            Place::Rcpt(n) => n + 1 == self.shape.recipients,
            _ => true,
        }
    }

    /// What comes after a place in the order of replies.
    fn after(&self, place: Place) -> Place {
        match place {
            Place::Rset => Place::Mail,
            Place::Mail => Place::Rcpt(0),
            Place::Rcpt(n) if n + 1 < self.shape.recipients => Place::Rcpt(n + 1),
            Place::Rcpt(_) if self.shape.chunks == 0 => Place::Data,
            Place::Rcpt(_) | Place::Data => Place::Body(0),
            Place::Body(n) if n + 1 < self.shape.chunks => Place::Body(n + 1),
            Place::Body(_) | Place::End => Place::End,
        }
    }

    /// What goes out now.
    fn speak(&mut self) -> Say {
        let mut group = Group::default();
        loop {
            match self.unsent {
                Place::Rset => group.rset = true,
                Place::Mail => group.mail = true,
                Place::Rcpt(n) => {
                    let first = if group.rcpt.1 == 0 { n } else { group.rcpt.0 };
                    group.rcpt = (first, n + 1);
                }
                Place::Data => group.data = true,
                Place::Body(_) if self.shape.chunks == 0 => group.content = true,
                Place::Body(n) => {
                    let first = if group.bdat.1 == 0 { n } else { group.bdat.0 };
                    group.bdat = (first, n + 1);
                }
                Place::End => return Say::Write(group),
            }
            let sent = self.unsent;
            self.unsent = self.after(sent);
            // RFC 2920 section 3.1: nothing after DATA before its reply.
            let on = self.shape.grouping == Grouping::Pipelined && sent != Place::Data;
            // The final dot is awaited before the next message, so that each has a time of its own.
            if !on || (self.shape.chunks == 0 && matches!(sent, Place::Body(_))) {
                return Say::Write(group);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shape() -> Shape {
        Shape {
            recipients: 2,
            grouping: Grouping::Lockstep,
            chunks: 0,
            dialect: Dialect::Smtp,
            first: First::Mail,
            end: None,
        }
    }

    /// What is said, a group a word, and the verdict; `None`: it waits for more replies.
    fn talk(shape: Shape, codes: &[u16]) -> (String, Option<Result<(), Trouble>>) {
        let (mut transaction, mut say) = Transaction::new(shape);
        let (mut said, mut codes) = (String::new(), codes.iter());
        loop {
            match say {
                Say::Write(g) => {
                    for (is, word) in [(g.rset, "Z".to_owned()), (g.mail, "M".to_owned())]
                        .into_iter()
                        .chain((g.rcpt.0..g.rcpt.1).map(|n| (true, n.to_string())))
                        .chain([(g.data, "D".to_owned())])
                        .chain((g.bdat.0..g.bdat.1).map(|_| (true, "B".to_owned())))
                        .chain([(g.content, "C".to_owned()), (g.dot, ".".to_owned())])
                    {
                        if is {
                            said.push_str(&word);
                        }
                    }
                    said.push(' ');
                }
                Say::Hear => {}
                Say::Done => {
                    assert_eq!(codes.len(), 0, "{said}: replies are left");
                    return (said.trim_end().to_owned(), Some(transaction.verdict()));
                }
            }
            let Some(&code) = codes.next() else { return (said.trim_end().to_owned(), None) };
            say = transaction.reply(code);
        }
    }

    fn fail(phase: Phase, class: Class) -> Result<(), Trouble> {
        Err(Trouble { phase, class, alive: true })
    }

    #[test]
    fn commands_go_out_one_by_one_or_together() {
        use Grouping::Pipelined;
        let lmtp = Dialect::Lmtp;
        for (shape, codes, said, verdict) in [
            (shape(), &[250, 250, 250, 354, 250][..], "M 0 1 D C", Ok(())),
            (Shape { grouping: Pipelined, ..shape() }, &[250, 250, 250, 354, 250], "M01D C", Ok(())),
            (
                Shape { grouping: Pipelined, first: First::Rset, ..shape() },
                &[250, 250, 250, 250, 354, 250],
                "ZM01D C",
                Ok(()),
            ),
            (Shape { grouping: Pipelined, chunks: 1, ..shape() }, &[250, 250, 250, 250], "M01B", Ok(())),
            (Shape { chunks: 2, ..shape() }, &[250, 250, 250, 250, 250], "M 0 1 B B", Ok(())),
            (Shape { dialect: lmtp, ..shape() }, &[250, 250, 250, 354, 250, 550], "M 0 1 D C", Ok(())),
            (
                Shape { dialect: lmtp, ..shape() },
                &[250, 550, 250, 354, 450],
                "M 0 1 D C",
                fail(Phase::Body, Class::Tempfail),
            ),
            // Nobody is to get it, yet the server asks for it.
            (
                Shape { grouping: Pipelined, ..shape() },
                &[250, 550, 550, 354, 554],
                "M01D .",
                fail(Phase::Rcpt, Class::Permfail),
            ),
            (
                Shape { grouping: Pipelined, ..shape() },
                &[451, 503, 503, 503],
                "M01D",
                fail(Phase::Mail, Class::Tempfail),
            ),
            (shape(), &[451], "M", fail(Phase::Mail, Class::Tempfail)),
            (shape(), &[250, 550, 450], "M 0 1", fail(Phase::Rcpt, Class::Tempfail)),
            (shape(), &[250, 550, 250, 354, 552], "M 0 1 D C", fail(Phase::Body, Class::Permfail)),
            (shape(), &[250, 250, 250, 250], "M 0 1 D", fail(Phase::Data, Class::Unexpected)),
            (shape(), &[250, 421], "M 0", Err(Trouble::lost(Phase::Rcpt, Class::Tempfail))),
            (Shape { end: Some(Phase::Rcpt), ..shape() }, &[250, 250, 250], "M 0 1", Ok(())),
        ] {
            assert_eq!(talk(shape, codes), (said.to_owned(), Some(verdict)), "{shape:?} {codes:?}");
        }
    }

    proptest! {
        #[test]
        fn it_ends_and_sends_no_content_that_was_not_asked_for(
            recipients in 1u32..5,
            chunks in 0u32..3,
            (pipelined, lmtp, rset) in any::<(bool, bool, bool)>(),
            codes in prop::collection::vec(prop_oneof![3 => Just(250u16), 2 => Just(354u16), 1 => 200u16..600], 40),
        ) {
            let grouping = if pipelined { Grouping::Pipelined } else { Grouping::Lockstep };
            let dialect = if lmtp { Dialect::Lmtp } else { Dialect::Smtp };
            let first = if rset { First::Rset } else { First::Mail };
            let (mut transaction, mut say) =
                Transaction::new(Shape { recipients, grouping, chunks, dialect, first, end: None });
            let (mut sent, mut heard, mut granted) = (0, 0, false);
            for code in codes {
                match say {
                    Say::Write(g) => {
                        prop_assert!(!(g.content || g.dot) || granted);
                        prop_assert!(heard == sent || g == Group::default(), "everything was heard before more is said");
                        sent += u32::from(g.rset) + u32::from(g.mail) + (g.rcpt.1 - g.rcpt.0) + u32::from(g.data)
                            + (g.bdat.1 - g.bdat.0);
                        if g.content || g.dot { heard = sent; }
                    }
                    Say::Hear => {}
                    Say::Done => break,
                }
                granted = transaction.phase() == Phase::Data && code == 354;
                heard += 1;
                say = transaction.reply(code);
            }
            prop_assert_eq!(say, Say::Done);
            let (accepted, refused) = transaction.recipients();
            prop_assert!(accepted + refused <= recipients);
            prop_assert!(transaction.verdict().is_err() || accepted > 0);
        }
    }
}
