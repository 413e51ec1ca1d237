//! What is wrong with a real server, what comes of it, and the command that mends it.
//!
//! Owns [`Finding`] and what follows from a plan and a look. Refuses to look. What is no fault but good to know is
//! advice, and does not make a box wrong.

use serde::Serialize;

use super::change::shown;
use super::observed::Observed;
use super::plan::Plan;
use super::wish::{Forward, Wish};

/// One point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) level: Level,
    pub(crate) what: String,
    pub(crate) effect: String,
    pub(crate) mend: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    Wrong,
    Advice,
}

impl Finding {
    pub(crate) fn wrong(what: impl Into<String>, effect: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { level: Level::Wrong, what: what.into(), effect: effect.into(), mend: mend.into() }
    }

    pub(crate) fn advice(
        what: impl Into<String>,
        effect: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self { level: Level::Advice, ..Self::wrong(what, effect, mend) }
    }
}

/// What is wrong with the network of the box.
pub(crate) fn network(wish: &Wish, observed: &Observed, plan: &Plan) -> Vec<Finding> {
    let problems = plan
        .problems
        .iter()
        .map(|problem| Finding::wrong(problem.wrong.clone(), problem.effect.clone(), problem.mend.clone()));
    let missing = plan.steps.iter().filter(|step| !step.so).map(|step| {
        let commands: Vec<_> = step.change.commands().iter().map(|words| shown(words)).collect();
        Finding::wrong(step.wrong.clone(), step.effect.clone(), commands.join("; "))
    });
    let mut found: Vec<_> = problems.chain(missing).collect();
    for vip in &wish.vips {
        for route in observed.defaults.iter().filter(|route| route.source == Some(*vip)) {
            let family = if route.v6 { "-6" } else { "-4" };
            let better = route.line.replace(&format!(" src {vip}"), "");
            found.push(Finding::wrong(
                format!("the default route leaves with the VIP as its source: {}", route.line),
                "answers to what this box sends out come to the director, and outgoing mail hangs",
                format!("ip {family} route replace {better}"),
            ));
        }
        if observed.defaults_of(*vip).next().is_none() && wish.forward != Forward::Masq {
            let (family, kind) = if vip.is_ipv6() { ("-6", "IPv6") } else { ("-4", "IPv4") };
            found.push(Finding::advice(
                format!("there is no default route of {kind}"),
                "clients of other networks get no answer",
                format!("ip {family} route add default via ROUTER"),
            ));
        }
    }
    found.dedup();
    found
}

/// A few lines for people.
pub(crate) fn render(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let level = if finding.level == Level::Wrong { "WRONG " } else { "advice" };
        text += &format!("{level} {}\n       {}\n       $ {}\n", finding.what, finding.effect, finding.mend);
    }
    text
}
