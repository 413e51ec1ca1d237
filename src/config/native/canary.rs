//! `[virtual] canary`: a message through each server that comes back to the director.
//!
//! Owns its keys, their defaults and the rules between them, and which addresses are nobody else's to reach. Refuses to
//! know how a message is sent (`check`, `steps`) and what becomes of it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use checks::smtp::{DataSpec, Dialect};

use super::check::{LONGEST, SHORTEST};
use super::fields::{Fields, Raw, Report};
use super::steps::{TIMEOUT, recipient, sender};
use super::values::{boolean, duration, socket_address, word};
use super::virtuals::Lowered;
use crate::config::Canary;
use crate::config::diagnostic::Place;

const DIALECTS: [(&str, Dialect); 2] = [("smtp", Dialect::Smtp), ("lmtp", Dialect::Lmtp)];
const USUAL_PORT: u16 = 2526;
const DAY: Duration = Duration::from_secs(86_400);

/// What a `canary` table says, whole.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) data: DataSpec,
    pub(super) interval: Duration,
    pub(super) canary: Arc<Canary>,
    /// Where the table stands.
    pub(super) place: Place,
}

/// Reads the table of a virtual. `None` where there is none, or one that is wrong.
pub(super) fn read(fields: Option<&Fields<'_>>) -> Option<Wanted> {
    let fields = fields?;
    let time = |key, most| fields.read(key, |raw| duration(raw, SHORTEST..=most));
    let from = fields.read("from", sender).or(String::new());
    let to = fields.read("to", address);
    let public = fields.read("public", boolean).known_or(false);
    let listen = fields.read("listen", |raw| socket_address(raw, USUAL_PORT));
    let dialect = fields.read("protocol", |raw| word(raw, &DIALECTS)).or(Dialect::Smtp);
    let interval = time("interval", LONGEST).or(Duration::from_secs(60));
    let timeout = time("timeout", LONGEST).or(TIMEOUT);
    let (slow, lost) = (time("slow", DAY), time("lost", DAY));
    if to.is_absent() {
        fields.rule("canary: to is missing: an address that the farm routes to listen".into());
    }
    if listen.is_absent() {
        fields.rule(format!("canary: listen is missing; listen = \"127.0.0.1:{USUAL_PORT}\", for example"));
    }
    if let Some((at, _)) = listen.given()
        && public == Some(false)
        && !is_private(at.ip())
    {
        fields.refuse_value(
            "listen",
            "is an address that anybody may reach; one of the management network, or public = true",
        );
    }
    let (slow, lost) = (slow.known_or(Duration::from_secs(30))?, lost.known_or(Duration::from_secs(300))?);
    if lost <= slow {
        let key = if fields.has("lost") { "lost" } else { "slow" };
        fields.refuse_value(
            key,
            "leaves nothing between them; lost must be longer than slow (30s and 5m unless told)",
        );
    }
    let ((to, _), (listen, _)) = (to.given()?, listen.given()?);
    Some(Wanted {
        data: DataSpec { from, to: to.clone(), timeout, text: None },
        interval,
        canary: Arc::new(Canary { listen: *listen, dialect, slow, lost }),
        place: fields.place.clone(),
    })
}

/// A recipient of a domain, which a route can be made for.
fn address(raw: &Raw<'_>) -> Result<String, String> {
    let address = recipient(raw)?;
    if address.contains('@') { Ok(address) } else { Err(format!("{} has no domain to route", raw.shown())) }
}

/// One receiver takes the canaries of one address, in one dialect.
pub(super) fn refuse_shared_receivers(report: &Report<'_>, virtuals: &[Lowered]) {
    let mut receivers: BTreeMap<SocketAddr, (&Wanted, &Place)> = BTreeMap::new();
    for wanted in virtuals.iter().filter_map(|one| one.canary.as_ref()) {
        let listen = wanted.canary.listen;
        let Some((earlier, place)) = receivers.get(&listen) else {
            receivers.insert(listen, (wanted, &wanted.place));
            continue;
        };
        if earlier.data.to != wanted.data.to || earlier.canary.dialect != wanted.canary.dialect {
            let line = report.name_of(place);
            let message = format!(
                "canary: listen {listen} is that of {line}, which has another to or protocol; the same, or another port"
            );
            report.rule(&wanted.place, message);
        }
    }
}

/// Addresses of loopback, of private networks and of examples (RFC 1918, 4193, 5737, 3849, 6598).
fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => {
            let shared = matches!(v4.octets(), [100, 64..=127, ..]);
            v4.is_loopback() || v4.is_private() || v4.is_link_local() || v4.is_documentation() || shared
        }
        IpAddr::V6(v6) => {
            let example = matches!(v6.segments(), [0x2001, 0x0db8, ..]);
            v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local() || example
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::lower;
    use super::*;
    use crate::config::{CheckPlan, Config, Tier};

    fn file(canary: &str, check: &str) -> String {
        format!(
            "[[virtual]]\naddress = \"192.0.2.25:25\"\ncanary = {{ {canary} }}\ncheck = {{ {check} }}\n\
             [[virtual.real]]\naddress = \"10.0.0.11-10.0.0.12\"\n"
        )
    }

    fn canaries(config: &Config) -> Vec<&CheckPlan> {
        let plans = config.virtuals[0].reals.iter().flat_map(|real| &real.checks);
        plans.filter(|plan| plan.tier == Tier::Canary).collect()
    }

    #[test]
    fn a_canary_is_a_check_of_its_own_for_each_server() {
        let text =
            file("to = \"canary@example.com\", listen = \"192.0.2.2:2526\"", "interval = \"7s\", fall = 4");
        let config = lower(&text, &[], "director.example").unwrap();
        let plans = canaries(&config);
        assert_eq!(plans.len(), 2);
        let checks::Kind::Smtp(smtp) = &plans[0].spec.kind else { panic!("{plans:?}") };
        let data = smtp.data.as_ref().unwrap();
        assert_eq!((data.from.as_str(), data.to.as_str(), &smtp.mail), ("", "canary@example.com", &None));
        assert_eq!((plans[0].interval, plans[0].fall), (Duration::from_secs(60), 4));
        let canary = plans[0].canary.as_ref().unwrap();
        assert_eq!((canary.slow, canary.lost), (Duration::from_secs(30), Duration::from_secs(300)));
        assert_eq!(canary.listen, "192.0.2.2:2526".parse().unwrap());
    }

    #[test]
    fn it_asks_over_tls_where_mail_is_asked_so() {
        for (check, tls) in
            [("tls = { mode = \"required\" }", true), ("tls = { mode = \"opportunistic\" }", false)]
        {
            let text = file("to = \"a@example.com\", listen = \"127.0.0.1:2526\"", check);
            let config = lower(&text, &[], "director.example").unwrap();
            let checks::Kind::Smtp(smtp) = &canaries(&config)[0].spec.kind else { panic!() };
            assert_eq!(smtp.tls.is_some(), tls, "{check}");
        }
    }

    #[test]
    fn what_cannot_work_is_refused() {
        let good = "to = \"a@example.com\", listen = \"127.0.0.1:2526\"";
        for (canary, check, problem) in [
            ("", "", "canary: to is missing"),
            ("to = \"a@example.com\"", "", "canary: listen is missing"),
            (
                "to = \"postmaster\", listen = \"127.0.0.1:2526\"",
                "",
                "to: \"postmaster\" has no domain to route",
            ),
            (
                "to = \"a@example.com\", listen = \"127.0.0.1\"",
                "",
                "listen: \"127.0.0.1\" has no port; write \"127.0.0.1:2526\"",
            ),
            (
                "to = \"a@example.com\", listen = \"8.8.4.4:25\"",
                "",
                "listen: \"8.8.4.4:25\" is an address that anybody may reach",
            ),
            (
                "to = \"a@example.com\", listen = \"0.0.0.0:25\"",
                "",
                "listen: \"0.0.0.0:25\" is an address that anybody",
            ),
            (
                "to = \"a@example.com\", listen = \"[2600::1]:25\"",
                "",
                "listen: \"[2600::1]:25\" is an address that",
            ),
            (&format!("{good}, slow = \"5m\""), "", "slow: \"5m\" leaves nothing between them"),
            (
                &format!("{good}, slow = \"5s\", lost = \"5s\""),
                "",
                "lost: \"5s\" leaves nothing between them",
            ),
            (
                &format!("{good}, protocol = \"esmtp\""),
                "",
                "protocol: \"esmtp\" is unknown; \"smtp\" or \"lmtp\"",
            ),
            (&format!("{good}, way = 1"), "", "way: unknown key in canary"),
            (good, "type = \"connect\"", "canary: no server here is asked by SMTP or LMTP"),
        ] {
            let problems = lower(&file(canary, check), &[], "director.example").unwrap_err();
            assert!(problems.iter().any(|one| one.message.starts_with(problem)), "{canary}: {problems:?}");
        }
        for canary in
            ["listen = \"[::1]:2526\"", "listen = \"8.8.4.4:25\", public = true", "listen = \"[fd00::1]:25\""]
        {
            let text = file(&format!("to = \"a@example.com\", {canary}"), "");
            assert!(lower(&text, &[], "director.example").is_ok(), "{canary}");
        }
    }

    #[test]
    fn one_receiver_has_one_recipient() {
        let one = file("to = \"a@example.com\", listen = \"127.0.0.1:2526\"", "");
        let other = one.replace(":25\"", ":587\"");
        let both = format!("{one}{other}");
        assert!(lower(&both, &[], "director.example").is_ok());
        for (from, to) in [("to = \"a@", "to = \"b@"), ("canary = { ", "canary = { protocol = \"lmtp\", ")] {
            let both = format!("{one}{}", other.replace(from, to));
            let problems = lower(&both, &[], "director.example").unwrap_err();
            let expected =
                "canary: listen 127.0.0.1:2526 is that of line 3, which has another to or protocol";
            assert!(problems[0].message.starts_with(expected), "{problems:?}");
        }
    }
}
