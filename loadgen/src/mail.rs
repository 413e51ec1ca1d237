//! The messages of a run: who to whom, how large, and what is in them.
//!
//! Owns the law of sizes, the store of random text, the header with a fresh Message-ID, Date and [`ID`], and what goes
//! over the wire. Refuses to know clocks and sockets. Cannot fail.
//!
//! Nothing is copied but the header: bodies are slices of one text, or of the corpus, and no two are alike, because the
//! first line of a made body is the message's id.

use std::sync::Arc;

use crate::message::ID;

/// Bytes of the store of random text: whole lines.
const STORE: usize = LINE * 13_000;
/// Bytes of one of its lines, CRLF included.
const LINE: usize = 80;
/// Letters and as many spaces as words need.
const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyzetaoi ";
/// Largest made message, in bytes.
pub const MAX_SIZE: u64 = 1 << 30;

/// How many, or how large.
#[derive(Clone, Debug, PartialEq)]
pub enum Law {
    /// Always the same.
    Fixed(u64),
    /// Evenly between both, which are in it.
    Uniform(u64, u64),
    /// Log-normal: the median and sigma, and the most.
    LogNormal(f64, f64, u64),
    /// Each with its weight.
    Table(Vec<(u64, f64)>),
}

impl Law {
    /// Reads `5120`, `1..5`, `lognormal:8k,1.2`, `table:4k=70,64k=25,2m=5`; `k` and `m` are 1024 and its square.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("\"{text}\" is none of N, A..B, lognormal:MEDIAN,SIGMA, table:N=WEIGHT,…");
        if let Some(rest) = text.strip_prefix("lognormal:") {
            let (median, sigma) = rest.split_once(',').ok_or_else(wrong)?;
            let sigma: f64 =
                sigma.trim().parse().ok().filter(|s| (0.0..=5.0).contains(s)).ok_or_else(wrong)?;
            let median = number(median).ok_or_else(wrong)?;
            #[expect(clippy::cast_precision_loss, reason = "a size")]
            return Ok(Self::LogNormal(median as f64, sigma, MAX_SIZE.min(median.saturating_mul(1000))));
        }
        if let Some(rest) = text.strip_prefix("table:") {
            let rows: Option<Vec<_>> = rest
                .split(',')
                .map(|row| {
                    let (size, weight) = row.split_once('=')?;
                    Some((
                        number(size)?,
                        weight.trim().parse::<f64>().ok().filter(|w| w.is_finite() && *w > 0.0)?,
                    ))
                })
                .collect();
            return rows.map(Self::Table).ok_or_else(wrong);
        }
        match text.split_once("..") {
            Some((low, high)) => match (number(low), number(high)) {
                (Some(low), Some(high)) if low <= high => Ok(Self::Uniform(low, high)),
                _ => Err(wrong()),
            },
            None => number(text).map(Self::Fixed).ok_or_else(wrong),
        }
    }

    /// One of them.
    #[must_use]
    pub fn draw(&self, random: &mut fastrand::Rng) -> u64 {
        match self {
            Self::Fixed(size) => *size,
            Self::Uniform(low, high) => random.u64(*low..=*high),
            Self::LogNormal(median, sigma, most) => {
                // Box and Muller.
                let normal =
                    (-2.0 * (1.0 - random.f64()).ln()).sqrt() * (std::f64::consts::TAU * random.f64()).cos();
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "it saturates, as it should"
                )]
                let size = (median * (sigma * normal).exp()) as u64;
                size.min(*most)
            }
            Self::Table(rows) => {
                let mut left = random.f64() * rows.iter().map(|(_, weight)| weight).sum::<f64>();
                for (size, weight) in rows {
                    left -= weight;
                    if left < 0.0 {
                        return *size;
                    }
                }
                rows.last().map_or(0, |(size, _)| *size)
            }
        }
    }
}

fn number(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let (digits, unit) = match text.strip_suffix('k') {
        Some(digits) => (digits, 1024),
        None => text.strip_suffix('m').map_or((text.as_str(), 1), |digits| (digits, 1024 * 1024)),
    };
    digits.parse::<u64>().ok()?.checked_mul(unit).filter(|number| *number <= MAX_SIZE)
}

/// A message that is there already, its lines ended by CRLF.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// The header, without what is made fresh, and without the empty line.
    pub header: Vec<u8>,
    /// The body.
    pub body: Vec<u8>,
    /// Header and body with their dots doubled; `None`: there are none to double.
    pub stuffed: Option<(Vec<u8>, Vec<u8>)>,
}

/// What is in the messages.
#[derive(Clone, Debug)]
pub enum Content {
    /// Random text by a law of sizes (bytes of the body).
    Made(Law),
    /// The same body each time.
    Same(u64),
    /// One of these, in turn. Not empty.
    Corpus(Arc<Vec<Stored>>),
}

/// The messages of a run.
#[derive(Clone, Debug)]
pub struct MailPlan {
    /// Senders, in turn, without angle brackets; may be empty strings.
    pub from: Vec<String>,
    /// Recipients, in turn.
    pub to: Vec<String>,
    /// How many recipients.
    pub recipients: Law,
    /// What is in them.
    pub content: Content,
    /// What tells this run's messages from another's: graphic ASCII, no dots.
    pub run: String,
}

/// A message under way: what is said of it, and where its body is.
#[derive(Debug, Default)]
pub struct Draft {
    /// Header and empty line.
    pub head: Vec<u8>,
    /// Its place in the corpus.
    source: Option<usize>,
    /// Slices of the store.
    slices: Vec<(usize, usize)>,
    end: &'static [u8],
    /// Bytes of the content, without stuffing and final dot.
    pub size: u64,
    /// How many recipients.
    pub recipients: u32,
}

/// What all messages are made of; shared by all threads.
pub struct Store {
    text: Vec<u8>,
}

impl Store {
    /// The same for the same seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut text = Vec::with_capacity(STORE);
        while text.len() < STORE {
            let mut line = [0; LINE];
            random.fill(&mut line);
            // No dot, so none to double.
            line = line.map(|byte| *LETTERS.get(usize::from(byte % 32)).unwrap_or(&b' '));
            text.extend_from_slice(line.get(..LINE - 2).unwrap_or_default());
            text.extend_from_slice(b"\r\n");
        }
        Self { text }
    }
}

/// When a message is made.
#[derive(Clone, Copy, Debug)]
pub struct Stamp<'s> {
    /// Its number in the plan.
    pub number: u64,
    /// Microseconds since 1970.
    pub micros: u64,
    /// The same, for Date (RFC 5322 section 3.3).
    pub date: &'s str,
}

impl MailPlan {
    /// Makes the next message in `draft`.
    pub fn compose(&self, draft: &mut Draft, stamp: Stamp<'_>, random: &mut fastrand::Rng) {
        let Stamp { number, micros, date } = stamp;
        let run = &self.run;
        draft.recipients = u32::try_from(self.recipients.draw(random)).unwrap_or(u32::MAX).max(1);
        draft.slices.clear();
        draft.head.clear();
        draft.source = None;
        let mut head = Text(std::mem::take(&mut draft.head));
        let (mut digits, mut more) = ([0; 20], [0; 20]);
        let (number_text, micros_text) = (decimal(number, &mut digits), decimal(micros, &mut more));
        let id = [run.as_bytes(), b".", number_text, b".", micros_text];
        head.add(&[b"Message-ID: <"]);
        head.add(&id);
        head.add(&[b"@smtp-loadgen.invalid>\r\nDate: ", date.as_bytes(), b"\r\n", ID.as_bytes(), b": "]);
        head.add(&id);
        head.add(&[b"\r\n"]);
        let (mut body, mut stored) = (0, None);
        match &self.content {
            Content::Corpus(corpus) => {
                let place =
                    usize::try_from(number).unwrap_or_default().checked_rem(corpus.len()).unwrap_or_default();
                stored = corpus.get(place);
                draft.source = Some(place);
                if let Some(stored) = stored {
                    head.0.extend_from_slice(&stored.header);
                    body = stored.body.len();
                }
                head.0.extend_from_slice(b"\r\n");
            }
            Content::Made(_) | Content::Same(_) => {
                let (from, to) = (turn(&self.from, number).as_bytes(), turn(&self.to, number).as_bytes());
                head.add(&[b"From: <", from, b">\r\nTo: <", to, b">\r\nSubject: load ", number_text]);
                head.add(&[b"\r\n\r\n"]);
            }
        }
        let wanted = match &self.content {
            Content::Corpus(_) => None,
            Content::Same(size) => Some((*size, 0)),
            Content::Made(law) => {
                let before = head.0.len();
                head.add(&[run.as_bytes(), b".", number_text, b"\r\n"]);
                let line = u64::try_from(head.0.len() - before).unwrap_or_default();
                Some((law.draw(random).saturating_sub(line), random.usize(..STORE / LINE) * LINE))
            }
        };
        if let Some((size, mut offset)) = wanted {
            let mut left = usize::try_from(size.min(MAX_SIZE)).unwrap_or_default();
            // No slice may end between CR and LF.
            if left % LINE == LINE - 1 {
                left -= 1;
            }
            draft.end = if left.is_multiple_of(LINE) { b"" } else { b"\r\n" };
            body = left;
            while left > 0 {
                let length = left.min(STORE - offset);
                draft.slices.push((offset, length));
                (left, offset) = (left - length, 0);
            }
        } else {
            let ended = stored.is_none_or(|stored| stored.body.is_empty() || stored.body.ends_with(b"\r\n"));
            draft.end = if ended { b"" } else { b"\r\n" };
        }
        draft.head = head.0;
        draft.size = u64::try_from(draft.head.len() + body + draft.end.len()).unwrap_or(u64::MAX);
    }

    /// The content as it goes after DATA, its final dot included, or by BDAT.
    pub fn parts<'m>(&'m self, draft: &'m Draft, store: &'m Store, form: Form, parts: &mut Vec<&'m [u8]>) {
        let stored = match (&self.content, draft.source) {
            (Content::Corpus(corpus), Some(place)) => corpus.get(place),
            _ => None,
        };
        match stored {
            Some(Stored { header, stuffed: Some((stuffed_header, stuffed_body)), .. })
                if form == Form::Dotted =>
            {
                // The fresh fields come first and have no dots at the start of a line.
                let fresh = draft.head.len().saturating_sub(header.len() + 2);
                parts.push(draft.head.get(..fresh).unwrap_or_default());
                parts.extend([stuffed_header.as_slice(), b"\r\n", stuffed_body]);
            }
            _ => {
                parts.push(&draft.head);
                if let Some(stored) = stored {
                    parts.push(&stored.body);
                }
            }
        }
        for &(offset, length) in &draft.slices {
            parts.push(store.text.get(offset..offset + length).unwrap_or_default());
        }
        match (form, draft.end) {
            (Form::Plain, b"") => {}
            (Form::Plain, end) => parts.push(end),
            (Form::Dotted, b"") => parts.push(b".\r\n"),
            (Form::Dotted, _) => parts.push(b"\r\n.\r\n"),
        }
    }

    /// MAIL FROM's address of a message.
    #[must_use]
    pub fn sender(&self, number: u64) -> &str {
        turn(&self.from, number)
    }

    /// The address of one of its recipients.
    #[must_use]
    pub fn recipient(&self, number: u64, which: u32) -> &str {
        turn(&self.to, number.wrapping_add(which.into()))
    }
}

/// How content goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// After DATA: dots doubled, a final dot.
    Dotted,
    /// By BDAT: as it is.
    Plain,
}

fn turn(all: &[String], number: u64) -> &str {
    let count = u64::try_from(all.len()).unwrap_or(u64::MAX);
    let place = number.checked_rem(count).and_then(|place| usize::try_from(place).ok());
    place.and_then(|place| all.get(place)).map_or("", String::as_str)
}

/// Bytes that grow by several pieces.
struct Text(Vec<u8>);

impl Text {
    fn add(&mut self, parts: &[&[u8]]) {
        for part in parts {
            self.0.extend_from_slice(part);
        }
    }
}

/// A number in decimal digits, in place: formatting costs more than the rest of a header.
fn decimal(mut number: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut start = digits.len();
    for (place, digit) in digits.iter_mut().enumerate().rev() {
        *digit = b'0' + u8::try_from(number % 10).unwrap_or_default();
        (number, start) = (number / 10, place);
        if number == 0 {
            break;
        }
    }
    digits.get(start..).unwrap_or_default()
}

/// What the id of a message says: the run, the number, and when it was made, in microseconds since 1970.
#[must_use]
pub fn read_id(id: &str) -> Option<(&str, u64, u64)> {
    let mut parts = id.split('.');
    let read = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    parts.next().is_none().then_some(read)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message;
    use std::sync::LazyLock;

    fn plan(content: Content) -> MailPlan {
        MailPlan {
            from: vec!["a@example.com".into()],
            to: vec!["b@example.com".into(), "c@example.com".into()],
            recipients: Law::Fixed(1),
            content,
            run: "r1".into(),
        }
    }

    fn content(plan: &MailPlan, number: u64, form: Form) -> (Vec<u8>, u64) {
        static STORE: LazyLock<Store> = LazyLock::new(|| Store::new(1));
        let (mut draft, mut random) = (Draft::default(), fastrand::Rng::with_seed(number));
        let stamp = Stamp { number, micros: 5, date: "Mon, 23 Nov 2026 10:00:00 +0000" };
        plan.compose(&mut draft, stamp, &mut random);
        let mut parts = Vec::new();
        plan.parts(&draft, &STORE, form, &mut parts);
        (parts.concat(), draft.size)
    }

    #[test]
    fn numbers_are_written_as_they_are_read() {
        for number in [0, 7, 10, 4096, 1_764_000_000_123_456, u64::MAX] {
            assert_eq!(decimal(number, &mut [0; 20]), number.to_string().as_bytes());
        }
    }

    #[test]
    fn a_made_message_has_its_size_and_its_lines() {
        for size in (0..2 * LINE as u64 + 20).chain([STORE as u64 * 2 + 7]) {
            let plan = plan(Content::Made(Law::Fixed(size)));
            let (plain, declared) = content(&plan, 7, Form::Plain);
            assert_eq!(plain.len() as u64, declared, "{size}");
            let (dotted, _) = content(&plan, 7, Form::Dotted);
            assert_eq!(dotted.len(), plain.len() + 3, "{size}");
            assert!(dotted.ends_with(b"\r\n.\r\n") && plain.ends_with(b"\r\n"), "{size}");
            for line in plain.split_inclusive(|&b| b == b'\n') {
                let returns = memchr::memchr_iter(b'\r', line).count();
                assert!(line.len() <= 998 && line.ends_with(b"\r\n") && returns == 1, "{size}");
            }
            let body = plain.len() - memchr::memmem::find(&plain, b"\r\n\r\n").unwrap() - 4;
            assert!((body as u64).abs_diff(size.max(6)) <= 2, "{body} {size}");
            assert_eq!(message::id(&plain), Some("r1.7.5"));
        }
    }

    #[test]
    fn no_two_bodies_are_alike_unless_asked_for() {
        let body = |plan: &MailPlan, n| {
            let (bytes, _) = content(plan, n, Form::Plain);
            bytes[memchr::memmem::find(&bytes, b"\r\n\r\n").unwrap()..].to_vec()
        };
        let made = plan(Content::Made(Law::Fixed(100)));
        assert_ne!(body(&made, 1), body(&made, 2));
        let same = plan(Content::Same(100));
        assert_eq!(body(&same, 1), body(&same, 2));
    }

    #[test]
    fn stored_messages_go_out_with_doubled_dots_after_data_only() {
        let stored = Stored {
            header: b"Subject: x\r\n".to_vec(),
            body: b".a\r\nb".to_vec(),
            stuffed: Some((b"Subject: x\r\n".to_vec(), b"..a\r\nb".to_vec())),
        };
        let plan = plan(Content::Corpus(Arc::new(vec![stored])));
        let (dotted, size) = content(&plan, 3, Form::Dotted);
        assert!(dotted.ends_with(b"Subject: x\r\n\r\n..a\r\nb\r\n.\r\n"), "{}", dotted.escape_ascii());
        let (plain, _) = content(&plan, 3, Form::Plain);
        assert!(plain.ends_with(b"Subject: x\r\n\r\n.a\r\nb\r\n") && plain.len() as u64 == size);
        assert!(plain.starts_with(b"Message-ID: <r1.3.5@"));
    }

    #[test]
    fn laws_are_read_and_kept() {
        let mut random = fastrand::Rng::with_seed(1);
        for (text, low, high) in [
            ("5120", 5120, 5120),
            ("1..5", 1, 5),
            ("lognormal:8k,1", 1, 8_192_000),
            ("table:1k=1,2k=3", 1024, 2048),
        ] {
            let law = Law::parse(text).unwrap();
            for _ in 0..1000 {
                assert!((low..=high).contains(&law.draw(&mut random)), "{text}");
            }
        }
        for text in ["", "x", "5..1", "-1", "2g", "table:", "table:1=0", "lognormal:1", "99999999m"] {
            assert!(Law::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_id_is_read_back() {
        assert_eq!(read_id("r1.7.5"), Some(("r1", 7, 5)));
        for id in ["", "r1", "r1.7", "r1.7.5.6", "r1.x.5"] {
            assert_eq!(read_id(id), None, "{id}");
        }
    }
}
