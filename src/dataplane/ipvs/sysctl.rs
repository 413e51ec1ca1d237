//! EDGE: the kernel's settings that decide what becomes of connections when a table changes.
//!
//! Owns what is worth telling an operator at the start. Sets nothing: these hold for everybody who uses IPVS on the
//! machine. A setting that cannot be read is passed over.

use std::fs;
use std::path::Path;

use crate::config::Config;

const FOLDER: &str = "/proc/sys/net/ipv4/vs";

/// What to change for this configuration, a sentence each with its command.
#[must_use]
pub fn advise(config: &Config) -> Vec<String> {
    advise_by(config, |name| Some(fs::read_to_string(Path::new(FOLDER).join(name)).ok()?.trim() == "0"))
}

/// `is_off` says of a setting whether it is 0, if it is known.
fn advise_by(config: &Config, is_off: impl Fn(&str) -> Option<bool>) -> Vec<String> {
    let mut advice = Vec::new();
    if is_off("expire_nodest_conn") == Some(true) {
        advice.push(
            "net.ipv4.vs.expire_nodest_conn is 0: connections of a server that is deleted hang until they time \
             out, instead of being reset; `sysctl -w net.ipv4.vs.expire_nodest_conn=1` mends it"
                .to_owned(),
        );
    }
    let persistent = config.virtuals.iter().find(|v| v.settings.persistence.is_some());
    if let Some(persistent) = persistent.filter(|_| is_off("expire_quiescent_template") == Some(true)) {
        advice.push(format!(
            "net.ipv4.vs.expire_quiescent_template is 0: \"{}\" is persistent, so clients that had a server which \
             is down still go there; `sysctl -w net.ipv4.vs.expire_quiescent_template=1` mends it",
            persistent.name
        ));
    }
    advice
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::native::lower;

    #[test]
    fn advice_is_given_where_it_matters() {
        let plain =
            "[[virtual]]\naddress = \"192.0.2.25:25\"\nREST[[virtual.real]]\naddress = \"10.0.0.11\"\n";
        let persistent = plain.replace("REST", "persistence = \"5m\"\n");
        let plain = plain.replace("REST", "");
        for (text, off, expected) in [
            (&plain, Some(false), 0),
            (&plain, Some(true), 1),
            (&persistent, Some(true), 2),
            (&persistent, Some(false), 0),
            (&persistent, None, 0),
        ] {
            let config = lower(text, &[], "director.example").unwrap();
            assert_eq!(advise_by(&config, |_| off).len(), expected, "{text} {off:?}");
        }
    }
}
