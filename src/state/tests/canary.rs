//! What canaries do to a table, and what they do not.

use super::*;

/// Servers 1 to 3, known to be up, each with canaries of which nothing is known.
fn sent() -> (Play, Vec<CheckPlan>) {
    let mut config = farm(&[1, 2, 3]);
    let canaries: Vec<_> = (1..=3).map(|n| CheckPlan { tier: Tier::Canary, ..plan(n) }).collect();
    for (real, canary) in config.virtuals[0].reals.iter_mut().zip(&canaries) {
        real.checks.push(canary.clone());
    }
    let mut play = Play::new(config);
    (1..=3).for_each(|n| play.sees(n, Up));
    (play, canaries)
}

fn find(play: &mut Play, canary: &CheckPlan, state: health::State, reason: Option<Reason>) {
    let failure = reason.map(|reason| failed(Stage::Delivery, reason));
    let finding = Finding { state, since: Some(play.now), failure, ..Finding::default() };
    play.state.absorb(canary, finding);
}

#[test]
fn a_server_joins_when_its_canary_is_back_or_when_none_of_all_comes_back() {
    let (mut play, canaries) = sent();
    assert_eq!((play.step().1.as_str(), play.state.knows_all()), ("", false));
    find(&mut play, &canaries[0], Up, None);
    assert_eq!(play.step().1, "1=5");
    // The receiver is deaf, or the way back is wrong: a farm must not wait for that.
    for canary in &canaries[1..] {
        find(&mut play, canary, Unknown, Some(Reason::Local));
    }
    assert_eq!((play.step().1.as_str(), play.state.knows_all()), ("1=5 2=5 3=5", true));
    assert!(play.state.canaries_silent());
}

#[test]
fn a_lost_canary_is_a_soft_reason() {
    let (mut play, canaries) = sent();
    for canary in &canaries {
        find(&mut play, canary, Up, None);
    }
    assert_eq!(play.step().1, "1=5 2=5 3=5");
    find(&mut play, &canaries[0], health::State::Degraded(Factor::HALF), Some(Reason::Late));
    assert_eq!(play.step().1, "1=3 2=5 3=5");
    find(&mut play, &canaries[0], Down, Some(Reason::Lost));
    assert_eq!(play.step().1, "1=0 2=5 3=5");
    find(&mut play, &canaries[1], Down, Some(Reason::Lost));
    play.now += 300 * SECOND;
    assert_eq!(play.step().1, "1=0 2=5 3=5", "a third would be too little");
    assert_eq!(play.state.held(&play.state.config().virtuals[0]).len(), 1);
}

#[test]
fn canaries_do_not_end_a_silence_of_all() {
    let (mut play, canaries) = sent();
    let silent = Finding {
        state: Down,
        was: Up,
        since: Some(play.now),
        unanswered_since: Some(play.now),
        asked: Some(play.now),
        gone: true,
        ..Finding::default()
    };
    for (n, canary) in (1..=3).zip(&canaries) {
        play.state.absorb(&plan(n), silent.clone());
        let asked = Some(play.now + SECOND);
        let failure = Some(failed(Stage::Delivery, Reason::Local));
        play.state.absorb(canary, Finding { state: Up, asked, failure, ..Finding::default() });
    }
    assert!(play.state.cut_off_since().is_some());
}
