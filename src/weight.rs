//! The weight law: from what is known of a server to its share of new connections.
//!
//! Owns [`weigh`]. Refuses to know tables, checks and clocks. Cannot fail.

use crate::health::State;
use crate::model::Weight;

/// One real server, as far as its weight goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The weight that the configuration gives it.
    pub base: Weight,
    /// What its check knows.
    pub state: State,
}

/// The weight that a server should have; `None` keeps whatever the table has.
#[must_use]
pub fn weigh(member: Member) -> Option<Weight> {
    match member.state {
        State::Unknown => None,
        State::Up => Some(member.base),
        State::Down => Some(Weight::ZERO),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_is_the_base_or_nothing_and_unknown_keeps_what_is_there() {
        for (state, expected) in
            [(State::Unknown, None), (State::Up, Some(Weight(7))), (State::Down, Some(Weight::ZERO))]
        {
            assert_eq!(weigh(Member { base: Weight(7), state }), expected, "{state}");
        }
    }
}
