//! Who is waited for, and what follows when it does not come.
//!
//! Owns the canaries that are out, the limits, and the question whose fault it is. Refuses to know messages, sockets and
//! health; time is an argument, of a clock that nobody sets. Cannot fail.
//!
//! A canary that a server took and that is overdue says something of the server only where the way back is known to
//! work: another server's canary that was sent later is back. Where those of all are overdue, the way back is the suspect
//! and nobody else; when one comes back again, what was sent before says nothing of those that are still waited for. One
//! that is overtaken by a later one of its own server is counted, and no news.
//!
//! Memory: at most [`MOST`] canaries of a server; of more the oldest is forgotten, and counts as lost.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// Canaries of a server that are waited for at one time.
pub const MOST: usize = 64;

/// How long a canary may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From so long on it is late.
    pub slow: Duration,
    /// From so long on it is lost.
    pub lost: Duration,
}

/// What is to be said of a server whose canary is overdue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// It is late.
    Late,
    /// It is lost.
    Lost,
    /// Nothing: those of all are overdue.
    Suspect,
}

/// A canary that is back, for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Back<K> {
    /// Whose it is.
    pub server: K,
    /// Since it was sent.
    pub delay: Duration,
    /// Whether it is the newest of its server that is back, and was known to be taken, or on its way to be.
    pub news: bool,
}

/// The canaries of all servers that come back to one receiver.
#[derive(Clone, Debug)]
pub struct Ledger<K> {
    servers: BTreeMap<K, Server>,
    /// Whose canary it is, of those that are out.
    whose: BTreeMap<u64, K>,
    /// The number of the last one.
    last: u64,
}

#[derive(Clone, Debug)]
struct Server {
    limits: Limits,
    out: VecDeque<Out>,
    /// The newest that is back: its number, and when it was sent.
    back: Option<(u64, Instant)>,
    /// Up to this number nothing follows where one does not come.
    excused: u64,
    /// Whether the last one could not be sent.
    failed: bool,
    said: Option<Word>,
}

#[derive(Clone, Copy, Debug)]
struct Out {
    number: u64,
    sent: Instant,
    fate: Fate,
    counted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Sending,
    Taken,
    /// As far as we were told.
    NotTaken,
}

impl Server {
    /// The oldest canary that was taken and has not been overtaken.
    fn waits_since(&self) -> Option<Instant> {
        let newest = self.back.map_or(0, |(number, _)| number).max(self.excused);
        self.out.iter().find(|out| out.fate == Fate::Taken && out.number > newest).map(|out| out.sent)
    }

    fn is_overdue(&self, now: Instant) -> bool {
        self.waits_since().is_some_and(|sent| now.saturating_duration_since(sent) >= self.limits.slow)
    }

    /// Whether it may soon show that the way back works.
    fn is_hopeful(&self, now: Instant) -> bool {
        if self.waits_since().is_some() { !self.is_overdue(now) } else { !self.failed }
    }
}

impl<K: Ord + Clone> Default for Ledger<K> {
    fn default() -> Self {
        Self { servers: BTreeMap::new(), whose: BTreeMap::new(), last: 0 }
    }
}

impl<K: Ord + Clone> Ledger<K> {
    /// A server that canaries will be sent through; one that is there already is left as it is.
    pub fn enroll(&mut self, server: K, limits: Limits) {
        let new = Server { limits, out: VecDeque::new(), back: None, excused: 0, failed: false, said: None };
        self.servers.entry(server).or_insert(new);
    }

    /// A server that nothing is sent through any more; what is out is not waited for.
    pub fn dismiss(&mut self, server: &K) {
        let gone = self.servers.remove(server);
        for out in gone.iter().flat_map(|gone| &gone.out) {
            self.whose.remove(&out.number);
        }
    }

    /// A canary is sent through a server: its number. True where an older one had to be forgotten that was not counted
    /// as lost yet.
    pub fn send(&mut self, now: Instant, server: &K) -> (u64, bool) {
        self.last += 1;
        let number = self.last;
        let mut uncounted = false;
        if let Some(known) = self.servers.get_mut(server) {
            if known.out.len() >= MOST
                && let Some(oldest) = known.out.pop_front()
            {
                uncounted = oldest.fate == Fate::Taken && !oldest.counted;
                self.whose.remove(&oldest.number);
            }
            known.out.push_back(Out { number, sent: now, fate: Fate::Sending, counted: false });
            self.whose.insert(number, server.clone());
        }
        (number, uncounted)
    }

    /// The server took it.
    pub fn taken(&mut self, number: u64) {
        self.settle(number, Fate::Taken);
    }

    /// It did not, as far as we know.
    pub fn not_taken(&mut self, number: u64) {
        self.settle(number, Fate::NotTaken);
    }

    fn settle(&mut self, number: u64, fate: Fate) {
        // One that is back already is not out.
        let server = self.whose.get(&number).and_then(|server| self.servers.get_mut(server));
        if let Some(server) = server {
            server.failed = fate == Fate::NotTaken;
            if let Some(out) = server.out.iter_mut().find(|out| out.number == number) {
                out.fate = fate;
            }
        }
    }

    /// A canary is back. `None` where none of this number is out: it has come before, or is not waited for any more.
    pub fn back(&mut self, now: Instant, number: u64) -> Option<Back<K>> {
        let server = self.whose.remove(&number)?;
        let known = self.servers.get_mut(&server)?;
        let position = known.out.iter().position(|out| out.number == number)?;
        let out = known.out.remove(position)?;
        let newest = known.back.is_none_or(|(newest, _)| number > newest);
        if newest {
            known.back = Some((number, out.sent));
            known.said = None;
            known.failed = false;
        }
        if self.servers.values().any(|server| server.said == Some(Word::Suspect)) {
            for server in self.servers.values_mut() {
                server.excused = self.last;
                server.said = None;
            }
        }
        let delay = now.saturating_duration_since(out.sent);
        Some(Back { server, delay, news: newest && out.fate != Fate::NotTaken })
    }

    /// Since when a server has not shown that mail leaves it, where that is too long.
    #[must_use]
    pub fn overdue_since(&self, now: Instant, server: &K) -> Option<Instant> {
        let known = self.servers.get(server)?;
        known.waits_since().filter(|_| known.is_overdue(now))
    }

    /// What was last said of a server, while it holds.
    #[must_use]
    pub fn said(&self, server: &K) -> Option<Word> {
        self.servers.get(server)?.said
    }

    /// What is to be said now that was not said before.
    pub fn judge(&mut self, now: Instant) -> Vec<(K, Word)> {
        let mut newest: Vec<(Instant, K)> = Vec::new();
        let (mut hopeful, mut overdue) = (0_usize, 0_usize);
        for (key, server) in &self.servers {
            if let Some((_, sent)) = server.back {
                newest.push((sent, key.clone()));
                newest.sort_by_key(|(sent, _)| std::cmp::Reverse(*sent));
                newest.truncate(2);
            }
            hopeful += usize::from(server.is_hopeful(now));
            overdue += usize::from(server.is_overdue(now));
        }
        let mut words = Vec::new();
        for (key, server) in self.servers.iter_mut().filter(|(_, server)| server.is_overdue(now)) {
            let Some(sent) = server.waits_since() else { continue };
            let proven = newest.iter().any(|(other, whose)| whose != key && *other >= sent);
            let age = now.saturating_duration_since(sent);
            let word = match (proven, hopeful, overdue) {
                // Whatever was proven before: a route that is changed on one server after the other ends so.
                (_, 0, 2..) => Word::Suspect,
                (false, 1.., _) => continue,
                _ if age >= server.limits.lost => Word::Lost,
                _ => Word::Late,
            };
            if server.said != Some(word) {
                server.said = Some(word);
                words.push((key.clone(), word));
            }
        }
        words
    }

    /// Whose canaries became lost, a server for each of them.
    pub fn count_lost(&mut self, now: Instant) -> Vec<K> {
        let mut lost = Vec::new();
        for (key, server) in &mut self.servers {
            let limit = server.limits.lost;
            let over = |out: &&mut Out| now.saturating_duration_since(out.sent) >= limit;
            for out in server.out.iter_mut().take_while(over).filter(|out| !out.counted) {
                out.counted = true;
                if out.fate == Fate::Taken {
                    lost.push(key.clone());
                }
            }
        }
        lost
    }

    /// When there may be something to say next.
    #[must_use]
    pub fn due(&self, now: Instant) -> Option<Instant> {
        let limits = self.servers.values().flat_map(|server| {
            let waits = server.waits_since().map(|sent| sent + server.limits.slow);
            let counts = server.out.iter().find(|out| !out.counted).map(|out| out.sent + server.limits.lost);
            let lost = server.waits_since().map(|sent| sent + server.limits.lost);
            [waits, lost, counts]
        });
        limits.flatten().filter(|due| *due > now).min()
    }

    /// How many canaries of a server are out.
    #[must_use]
    pub fn out(&self, server: &K) -> usize {
        self.servers.get(server).map_or(0, |server| server.out.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const LIMITS: Limits = Limits { slow: Duration::from_secs(30), lost: Duration::from_secs(300) };

    struct Play {
        ledger: Ledger<char>,
        start: Instant,
        /// The last canary of each server.
        last: BTreeMap<char, u64>,
    }

    impl Play {
        fn new(servers: &str) -> Self {
            let mut ledger = Ledger::default();
            servers.chars().for_each(|server| ledger.enroll(server, LIMITS));
            #[expect(clippy::disallowed_methods, reason = "any instant will do as the start")]
            Self { ledger, start: Instant::now(), last: BTreeMap::new() }
        }

        fn at(&self, seconds: u64) -> Instant {
            self.start + SECOND * u32::try_from(seconds).unwrap()
        }

        /// `a` one is taken by a, `a!` it is not, `a+` the last one of a is back; then all that is said: `aL` lost,
        /// `al` late, `a?` suspect.
        fn sees(&mut self, seconds: u64, events: &str) -> String {
            let now = self.at(seconds);
            for event in events.split_whitespace() {
                let (server, what) = event.split_at(1);
                let server = server.chars().next().unwrap();
                if what == "+" {
                    self.ledger.back(now, self.last[&server]);
                    continue;
                }
                let (number, _) = self.ledger.send(now, &server);
                self.last.insert(server, number);
                if what == "!" { self.ledger.not_taken(number) } else { self.ledger.taken(number) }
            }
            let said = self.ledger.judge(now).into_iter().map(|(server, word)| match word {
                Word::Late => format!("{server}l"),
                Word::Lost => format!("{server}L"),
                Word::Suspect => format!("{server}?"),
            });
            said.collect::<Vec<_>>().join(" ")
        }
    }

    fn play(servers: &str, steps: &[(u64, &str, &str)]) {
        let mut play = Play::new(servers);
        for (seconds, events, expected) in steps {
            assert_eq!(play.sees(*seconds, events), *expected, "{servers} at {seconds}: {events}");
        }
    }

    #[test]
    fn a_server_that_keeps_mail_is_found_by_those_that_do_not() {
        play(
            "abc",
            &[
                (0, "a b", ""),
                (1, "c", ""),
                (2, "a+ b+", ""),
                (31, "", ""), // those of a and b were not sent later than that of c
                (60, "a b c", ""),
                (61, "a+", "cl"),
                (62, "b+", ""),
                (120, "a b c", ""),
                (121, "a+ b+", ""),
                (300, "", ""),
                (301, "", "cL"),
                (302, "", ""),
                (330, "c+", ""), // the last of three: what is older is no news any more
                (600, "", ""),
            ],
        );
    }

    #[test]
    fn what_is_overdue_for_all_speaks_against_nobody() {
        play(
            "abc",
            &[
                (0, "a", ""),
                (1, "b", ""),
                (2, "c", ""),
                (31, "", ""),
                (32, "", "a? b? c?"),
                (400, "", ""),
                (460, "a b c", ""),
                (461, "b+", ""), // from now on it counts who does not use it
                (520, "a b c", ""),
                (522, "b+", ""),
                (580, "a b c", "al cl"),
                (581, "b+", ""),
                (820, "", "aL cL"),
            ],
        );
    }

    #[test]
    fn a_way_back_that_is_lost_on_one_server_after_the_other_takes_out_nobody() {
        play(
            "ab",
            &[
                (0, "a", ""),
                (10, "b", ""),
                (11, "b+", ""),
                (30, "", "al"),
                (70, "b", ""),
                (100, "", "a? b?"),
                (400, "", ""),
            ],
        );
    }

    #[test]
    fn who_cannot_be_sent_to_shows_nothing() {
        play("ab", &[(0, "a b!", ""), (30, "", "al"), (300, "", "aL")]);
        play("a", &[(0, "a", ""), (30, "", "al"), (300, "", "aL"), (301, "a", ""), (302, "a+", "")]);
        // It was well until now, and may be so again.
        play(
            "ab",
            &[(0, "b", ""), (1, "a", ""), (2, "b+", ""), (40, "", ""), (60, "b!", "al"), (301, "", "aL")],
        );
    }

    #[test]
    fn a_canary_counts_once_and_in_its_order() {
        let mut play = Play::new("a");
        let numbers: Vec<_> = (0..3).map(|second| play.ledger.send(play.at(second), &'a').0).collect();
        numbers.iter().for_each(|number| play.ledger.taken(*number));
        let now = play.at(10);
        let back = play.ledger.back(now, numbers[1]).unwrap();
        assert_eq!((back.delay, back.news), (9 * SECOND, true));
        assert!(!play.ledger.back(now, numbers[0]).unwrap().news, "overtaken");
        assert_eq!(play.ledger.back(now, numbers[1]), None, "twice");
        assert_eq!(play.ledger.back(now, 99), None, "never sent");
        assert_eq!((play.ledger.out(&'a'), play.ledger.count_lost(play.at(301))), (1, vec![]));
        assert_eq!(play.ledger.count_lost(play.at(302)), ['a']);
        assert_eq!(play.ledger.count_lost(play.at(303)), []);
        play.ledger.dismiss(&'a');
        assert_eq!(play.ledger.back(now, numbers[2]), None);
    }

    proptest! {
        #[test]
        fn memory_is_bounded_and_nobody_is_blamed_where_nothing_comes_back(
            steps in proptest::collection::vec((0u64..20, "[abc][!]?"), 1..300),
        ) {
            let mut play = Play::new("abc");
            let mut time = 0;
            for (pause, event) in steps {
                time += pause;
                let said = play.sees(time, &event);
                let alone = play.ledger.servers.values().filter(|server| server.waits_since().is_some()).count() < 2;
                prop_assert!(alone || !said.contains(['l', 'L']), "{said}");
                prop_assert!(play.ledger.whose.len() <= 3 * MOST);
                prop_assert!(play.ledger.due(play.at(time)).is_none_or(|due| due > play.at(time)));
            }
        }
    }
}
