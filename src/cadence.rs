//! Which of the checks of a healthy server are whole ones.
//!
//! Owns [`Cadence`]: so many connections between two whole checks. Refuses to know clocks and what a check asks.
//! Cannot fail.

/// How much the next check asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// All that the spec says.
    Whole,
    /// Only whether a connection is accepted.
    Connect,
}

/// The memory of one check's depth.
#[derive(Clone, Copy, Debug)]
pub struct Cadence {
    between: u32,
    /// Connections until the next whole check.
    left: u32,
}

impl Cadence {
    /// `between` connections after each whole check; 0 makes every check a whole one. The first is whole.
    #[must_use]
    pub fn new(between: u32) -> Self {
        Self { between, left: 0 }
    }

    /// What the next check asks.
    #[must_use]
    pub fn next(&self) -> Depth {
        if self.left == 0 { Depth::Whole } else { Depth::Connect }
    }

    /// Notes that the check that [`Cadence::next`] said was made. `settled` says that the server is up and nothing
    /// speaks against it: only whole checks make a server that fails, or that nobody knows, up.
    pub fn made(&mut self, settled: bool) {
        self.left = match (settled, self.left) {
            (false, _) => 0,
            (true, 0) => self.between,
            (true, left) => left - 1,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `+` a check after which all is well, `-` one after which it is not; `W` and `c` are what they were.
    fn depths(between: u32, settled: &str) -> String {
        let mut cadence = Cadence::new(between);
        let step = |c| {
            let depth = if cadence.next() == Depth::Whole { 'W' } else { 'c' };
            cadence.made(c == '+');
            depth
        };
        settled.chars().map(step).collect()
    }

    #[test]
    fn whole_checks_come_first_in_turn_and_after_every_failure() {
        for (between, settled, expected) in [
            (0, "++++", "WWWW"),
            (2, "+++++++", "WccWccW"),
            (3, "++-+++++", "WccWcccW"),
            (3, "---+++", "WWWWcc"),
            (1, "+-+-+", "WcWcW"),
        ] {
            assert_eq!(depths(between, settled), expected, "{between} {settled}");
        }
    }
}
