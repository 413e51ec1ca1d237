//! A run as it goes, for a terminal: rate, latency, servers and errors, with the last minutes as small charts.
//!
//! Owns what stands where, at any width and height. Refuses to know terminals and clocks. Cannot fail. What does not fit
//! is cut off; no row is ever wider than it may be, so a terminal never wraps one.

use std::collections::VecDeque;
use std::time::Duration;

use crate::job::{Job, Pace};
use crate::run::Second;
use crate::tally::Latency;
use crate::words::{Class, Phase};

/// Seconds that the small charts remember.
const MEMORY: usize = 600;
/// Servers and kinds of errors that are shown at most.
const MOST_SERVERS: usize = 10;
const MOST_ERRORS: usize = 6;
const NUMBERS: usize = 48;

/// What is known of a run before it begins.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    title: String,
    pace: String,
    time: Option<Duration>,
    count: Option<u64>,
}

impl Shown {
    /// Of a job. `rate` is its rate or profile in words.
    #[must_use]
    pub fn new(job: &Job, rate: Option<&str>) -> Self {
        let first = job.targets.first().map_or("", |target| target.label.as_str());
        let title = match job.targets.len() {
            0 | 1 => first.to_owned(),
            more => format!("{first} and {} more", more - 1),
        };
        let pace = match (&job.pace, rate) {
            (Pace::Open { .. }, Some(rate)) => format!("open, {rate}, at most {} sessions", job.sessions),
            _ => format!("closed, {} sessions", job.sessions),
        };
        Self { title, pace, time: job.stop.time, count: job.stop.count.map(|count| job.share.part(count)) }
    }
}

/// How text looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    Plain,
    Bold,
    Dim,
    Good,
    Bad,
}

impl Look {
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Bold => "\x1b[1m",
            Self::Dim => "\x1b[2m",
            Self::Good => "\x1b[32m",
            Self::Bad => "\x1b[31m",
        }
    }
}

type Row = Vec<(Look, String)>;

/// What a terminal can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Screen {
    /// Characters.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Colours.
    pub color: Paint,
    /// More than ASCII.
    pub blocks: Glyphs,
}

/// Whether there are colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    /// Colours.
    Yes,
    /// None.
    No,
}

/// What bars are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Glyphs {
    /// Blocks.
    Blocks,
    /// ASCII.
    Ascii,
}

impl Glyphs {
    fn ramp(self) -> [char; 8] {
        match self {
            Self::Blocks => ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'],
            Self::Ascii => ['_', '.', ':', '-', '=', '+', '*', '#'],
        }
    }
}

/// A run as it goes.
pub struct Live {
    shown: Shown,
    seconds: u64,
    now: crate::report::Point,
    total: crate::report::Point,
    latency: Latency,
    ok: VecDeque<f64>,
    p99: VecDeque<f64>,
    servers: Vec<(String, u64, u64)>,
    errors: [[u64; Class::COUNT]; Phase::COUNT],
    fresh: [[u64; Class::COUNT]; Phase::COUNT],
}

impl Live {
    /// Before it begins.
    #[must_use]
    pub fn new(shown: Shown) -> Self {
        Self {
            shown,
            seconds: 0,
            now: crate::report::Point::default(),
            total: crate::report::Point::default(),
            latency: Latency::new(),
            ok: VecDeque::new(),
            p99: VecDeque::new(),
            servers: Vec::new(),
            errors: Default::default(),
            fresh: Default::default(),
        }
    }

    /// A second is over.
    #[expect(clippy::cast_precision_loss, reason = "counts")]
    pub fn add(&mut self, second: &Second) {
        self.seconds = second.point.second + 1;
        self.now = second.point.clone();
        self.total = second.total.clone();
        self.latency.absorb(&second.slice.latency);
        for (memory, value) in [(&mut self.ok, second.point.ok as f64), (&mut self.p99, second.point.p99)] {
            memory.push_back(value);
            if memory.len() > MEMORY {
                memory.pop_front();
            }
        }
        self.fresh = second.slice.errors;
        for (sum, count) in self.errors.iter_mut().flatten().zip(self.fresh.iter().flatten()) {
            *sum += count;
        }
        for (place, name) in second.names.iter().enumerate() {
            if self.servers.len() <= place {
                self.servers.push((name.clone(), 0, 0));
            }
            let (ok, failed) = second.point.servers.get(place).copied().unwrap_or_default();
            if let Some(row) = self.servers.get_mut(place) {
                (row.1, row.2) = (row.1 + ok, row.2 + failed);
            }
        }
    }

    /// The rows of the picture, top to bottom: each at most as wide as the screen, and at least one row less than it is
    /// high.
    #[must_use]
    pub fn rows(&self, screen: Screen) -> Vec<String> {
        let mut rows = self.head(screen);
        rows.push(Row::new());
        rows.extend(self.rates(screen));
        rows.push(Row::new());
        rows.extend(self.latencies(screen));
        if !self.servers.is_empty() {
            rows.push(Row::new());
            rows.extend(self.by_server());
        }
        if self.errors.iter().flatten().any(|count| *count > 0) {
            rows.push(Row::new());
            rows.extend(self.by_error());
        }
        let most = screen.height.saturating_sub(1).max(1);
        if rows.len() + 2 <= most {
            let words = "Ctrl-C: start no more, finish what is under way, report; once more: at once";
            rows.extend([Row::new(), vec![(Look::Dim, words.to_owned())]]);
        }
        if rows.len() > most {
            rows.retain(|row| !row.is_empty());
            rows.truncate(most);
        }
        rows.iter().map(|row| print(row, screen)).collect()
    }

    fn head(&self, screen: Screen) -> Vec<Row> {
        let elapsed = clock(self.seconds);
        let time = match self.shown.time {
            Some(time) => format!("{elapsed} of {}", clock(time.as_secs())),
            None => elapsed,
        };
        let room = screen.width.saturating_sub(time.chars().count() + 1);
        let mut title: String = self.shown.title.chars().take(room).collect();
        title.extend(std::iter::repeat_n(' ', room.saturating_sub(title.chars().count()) + 1));
        let mut rows = vec![
            vec![(Look::Bold, title), (Look::Plain, time)],
            vec![
                (Look::Dim, self.shown.pace.clone()),
                (Look::Plain, format!("; {} open now", self.now.open)),
            ],
        ];
        if let Some(done) = self.done() {
            let room = screen.width.saturating_sub(6);
            rows.push(vec![
                (Look::Good, bar(done, room, screen.blocks)),
                (Look::Plain, format!("{:>4.0} %", done * 100.0)),
            ]);
        }
        rows
    }

    /// The part of the run that is over; the larger one, where it has two ends.
    #[expect(clippy::cast_precision_loss, reason = "counts")]
    fn done(&self) -> Option<f64> {
        let time = self.shown.time.map(|time| self.seconds as f64 / time.as_secs_f64().max(1e-9));
        let count =
            self.shown.count.map(|count| (self.total.ok + self.total.failed) as f64 / count.max(1) as f64);
        [time, count].into_iter().flatten().reduce(f64::max).map(|done| done.min(1.0))
    }

    #[expect(clippy::cast_precision_loss, reason = "counts")]
    fn rates(&self, screen: Screen) -> Vec<Row> {
        let mean = |count: u64| count as f64 / self.seconds.max(1) as f64;
        let line = |look, name: &str, now: u64, total: u64| {
            (look, format!("{name:<12} {now:>10} {:>10.1} {total:>12}", mean(total)))
        };
        let bad = if self.total.failed > 0 { Look::Bad } else { Look::Plain };
        vec![
            vec![(Look::Dim, format!("{:<12} {:>10} {:>10} {:>12}  ok/s", "", "now/s", "mean/s", "so far"))],
            vec![
                line(Look::Good, "ok", self.now.ok, self.total.ok),
                (Look::Good, format!("  {}", spark(&self.ok, screen))),
            ],
            vec![line(bad, "failed", self.now.failed, self.total.failed)],
        ]
    }

    #[expect(clippy::cast_precision_loss, reason = "an hour in microseconds is far below 2^52")]
    fn latencies(&self, screen: Screen) -> Vec<Row> {
        let at = |quantile| self.latency.0.value_at_quantile(quantile) as f64 / 1000.0;
        let line = |name: &str, values: [f64; 4]| {
            let mut text = format!("{name:<11}");
            for value in values {
                text.push_str(&format!(" {:>8}", short(value)));
            }
            (Look::Plain, text)
        };
        let now = [self.now.p50, self.now.p90, self.now.p99, self.now.max];
        let max = self.latency.0.max() as f64 / 1000.0;
        vec![
            vec![(
                Look::Dim,
                format!("{:<11} {:>8} {:>8} {:>8} {:>8}  p99", "latency, ms", "p50", "p90", "p99", "max"),
            )],
            vec![line("now", now), (Look::Plain, format!("  {}", spark(&self.p99, screen)))],
            vec![line("so far", [at(0.5), at(0.9), at(0.99), max])],
        ]
    }

    #[expect(clippy::cast_precision_loss, reason = "counts")]
    fn by_server(&self) -> Vec<Row> {
        let all: u64 = self.servers.iter().map(|(_, ok, _)| ok).sum();
        let head = format!("{:<34} {:>9} {:>12} {:>7} {:>9}", "server", "ok/s", "ok", "share", "failed");
        let mut rows = vec![vec![(Look::Dim, head)]];
        for (place, (name, ok, failed)) in self.servers.iter().enumerate().take(MOST_SERVERS) {
            let (now, ill) = self.now.servers.get(place).copied().unwrap_or_default();
            let name: String = name.chars().take(34).collect();
            let share = *ok as f64 * 100.0 / all.max(1) as f64;
            // One that is ill, or silent while others are not.
            let look = if ill > 0 || (now == 0 && self.now.ok > 0) { Look::Bad } else { Look::Plain };
            rows.push(vec![(look, format!("{name:<34} {now:>9} {ok:>12} {share:>6.1}% {failed:>9}"))]);
        }
        let more = self.servers.len().saturating_sub(MOST_SERVERS);
        if more > 0 {
            rows.push(vec![(Look::Dim, format!("and {more} more"))]);
        }
        rows
    }

    fn by_error(&self) -> Vec<Row> {
        let mut kinds: Vec<_> = Phase::ALL
            .into_iter()
            .zip(self.errors.iter().zip(&self.fresh))
            .flat_map(|(phase, (row, fresh))| {
                Class::ALL.into_iter().zip(row.iter().zip(fresh)).map(move |(class, n)| (phase, class, n))
            })
            .filter(|(.., (count, _))| **count > 0)
            .collect();
        kinds.sort_by_key(|(.., (count, _))| std::cmp::Reverse(**count));
        let head = format!("{:<12} {:<21} {:>9} {:>12}", "error in", "", "now/s", "so far");
        let mut rows = vec![vec![(Look::Dim, head)]];
        for (phase, class, (count, fresh)) in kinds.iter().take(MOST_ERRORS) {
            let text = format!("{:<12} {:<21} {fresh:>9} {count:>12}", phase.name(), class.name());
            rows.push(vec![(if **fresh > 0 { Look::Bad } else { Look::Plain }, text)]);
        }
        let more = kinds.len().saturating_sub(MOST_ERRORS);
        if more > 0 {
            rows.push(vec![(Look::Dim, format!("and {more} more kinds"))]);
        }
        rows
    }
}

/// A row, cut off where the screen ends.
fn print(row: &Row, screen: Screen) -> String {
    let mut out = String::new();
    let mut left = screen.width;
    for (look, text) in row {
        let part: String = text.chars().take(left).collect();
        left -= part.chars().count();
        let code = if screen.color == Paint::Yes { look.code() } else { "" };
        out.push_str(code);
        out.push_str(&part);
        if !code.is_empty() {
            out.push_str("\x1b[0m");
        }
    }
    out
}

fn clock(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

/// A number of at most eight characters.
fn short(value: f64) -> String {
    match value {
        v if v < 100.0 => format!("{v:.2}"),
        v if v < 10_000.0 => format!("{v:.1}"),
        v => format!("{v:.0}"),
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of a width")]
#[expect(clippy::cast_precision_loss, reason = "a width")]
fn bar(done: f64, room: usize, glyphs: Glyphs) -> String {
    let full = (done * room as f64) as usize;
    let (on, off) = if glyphs == Glyphs::Blocks { ('█', '░') } else { ('#', '.') };
    (0..room).map(|place| if place < full { on } else { off }).collect()
}

/// The last seconds, as many as there is room for beside the numbers.
fn spark(values: &VecDeque<f64>, screen: Screen) -> String {
    let room = screen.width.saturating_sub(NUMBERS + 2);
    let last: Vec<f64> = values.iter().skip(values.len().saturating_sub(room)).copied().collect();
    let most = last.iter().copied().fold(0.0, f64::max);
    let ramp = screen.blocks.ramp();
    let height = |value: f64| {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 7")]
        let place = if most > 0.0 { (value / most * 7.0).round() as usize } else { 0 };
        ramp.get(place).copied().unwrap_or(' ')
    };
    last.into_iter().map(height).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Point;
    use crate::tally::Slice;

    fn live() -> Live {
        let shown = Shown {
            title: "smtp://127.0.0.1:25 and 1 more".into(),
            pace: "open, 300/s, at most 20 sessions".into(),
            time: Some(Duration::from_mins(1)),
            count: None,
        };
        let mut live = Live::new(shown);
        for n in 0..90_u64 {
            let mut slice = Slice { second: n, ..Slice::default() };
            slice.latency.record(n * 1_000_000);
            slice.errors[Phase::Rcpt as usize][Class::Permfail as usize] = n % 3;
            let servers = vec![(n, 0), (0, 1)];
            let point = Point { second: n, ok: n, failed: 1, p99: n as f64, servers, ..Point::default() };
            let total = Point { ok: n * n, failed: n, ..point.clone() };
            live.add(&Second { point, slice, names: vec!["mx1".into(), "ünï".repeat(40)], total });
        }
        live
    }

    #[test]
    fn the_picture_fits_whatever_the_screen_is() {
        for width in [0, 1, 10, 40, 80, 200] {
            for height in [0, 1, 2, 5, 10, 24, 60] {
                for blocks in [Glyphs::Blocks, Glyphs::Ascii] {
                    let screen = Screen { width, height, color: Paint::No, blocks };
                    for live in [live(), Live::new(Shown::default())] {
                        let rows = live.rows(screen);
                        assert!(rows.len() <= height.saturating_sub(1).max(1), "{rows:?}");
                        assert!(rows.iter().all(|row| row.chars().count() <= width.max(1)), "{rows:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn all_that_matters_is_on_eighty_columns() {
        let screen = Screen { width: 80, height: 24, color: Paint::No, blocks: Glyphs::Ascii };
        let text = live().rows(screen).join("\n");
        for part in ["1:30 of 1:00", "100 %", "ok  ", "mx1", "rcpt         permfail", "Ctrl-C"] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        let coloured = live().rows(Screen { color: Paint::Yes, ..screen }).join("\n");
        assert_eq!(coloured.matches("\x1b[0m").count() * 2, coloured.matches('\x1b').count());
    }
}
