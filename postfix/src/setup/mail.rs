//! What a real server needs of its Postfix: to listen on the VIP, to know the director, to give ages away.
//!
//! Owns [`settings`], pure: what an instance says of itself and what is asked for, to the settings that are missing. Refuses
//! to change one, and to judge a configuration beyond that. What it does not understand of a list, such as a
//! table, the look asks Postfix about.

pub(crate) mod edit;
pub(crate) mod look;

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;

use super::findings::{Finding, Level};
use super::wish::Wish;

/// One instance, as `postconf` and the kernel show it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Instance {
    pub(crate) directory: PathBuf,
    pub(crate) running: Option<bool>,
    /// Values by name, with all names in them replaced.
    pub(crate) values: Vec<(String, String)>,
    /// The same as they are written.
    pub(crate) written: Vec<(String, String)>,
    /// A postscreen guards a port.
    pub(crate) postscreen: bool,
    /// What `master.cf` says of the PROXY header for the service of port 25, where it does.
    pub(crate) proxy_header: Option<String>,
    /// Directors that a table of `postscreen_access_list` permits.
    pub(crate) permitted: Vec<IpAddr>,
    /// VIPs on whose port 25 something listens.
    pub(crate) listening: Vec<IpAddr>,
}

/// All that is asked of `postconf`.
pub(crate) const PARAMETERS: [&str; 7] = [
    "inet_interfaces",
    "inet_protocols",
    "enable_long_queue_ids",
    "postscreen_access_list",
    "smtpd_client_event_limit_exceptions",
    "smtpd_upstream_proxy_protocol",
    "mynetworks",
];

/// A setting that is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) file: ConfFile,
    /// `name=value` as `postconf -e` reads it, or `service/type/name=value` for `-P`.
    pub(crate) text: String,
    /// Postfix opens its ports at the start only.
    pub(crate) restart: bool,
    level: Level,
    wrong: String,
    effect: &'static str,
}

/// Which file a setting is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ConfFile {
    Main,
    Master,
}

impl ConfFile {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Main => "main.cf",
            Self::Master => "master.cf",
        }
    }

    pub(crate) fn flag(self) -> &'static str {
        match self {
            Self::Main => "-e",
            Self::Master => "-P",
        }
    }
}

impl Instance {
    fn value(&self, name: &str) -> &str {
        find(&self.values, name)
    }

    fn as_written(&self, name: &str) -> &str {
        find(&self.written, name)
    }
}

fn find<'a>(all: &'a [(String, String)], name: &str) -> &'a str {
    all.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
}

/// The settings that an instance lacks. `proxied`: the director forwards connections itself and says the client's
/// address in a PROXY header.
pub(crate) fn settings(wish: &Wish, proxied: bool, of: &Instance) -> Vec<Setting> {
    let mut all = Vec::new();
    let main = |text: String, restart, level, wrong: String, effect| Setting {
        file: ConfFile::Main,
        text,
        restart,
        level,
        wrong,
        effect,
    };
    let interfaces = of.value("inet_interfaces");
    let uncovered: Vec<_> = wish.vips.iter().filter(|vip| !covers(interfaces, **vip)).collect();
    if wish.forward != super::wish::Forward::Masq && !uncovered.is_empty() {
        let names: Vec<_> = uncovered.iter().map(ToString::to_string).collect();
        // Words for all, or for loopback, stand alone.
        let value = if interfaces == "loopback-only" {
            "all".to_owned()
        } else {
            format!("{}, {}", of.as_written("inet_interfaces"), names.join(", "))
        };
        all.push(main(
            format!("inet_interfaces={value}"),
            true,
            Level::Wrong,
            format!("Postfix does not listen on {} (inet_interfaces = {interfaces})", names.join(", ")),
            "clients that the director sends here are refused",
        ));
    }
    let protocols = of.value("inet_protocols");
    let speaks = |v6| words(protocols).any(|word| word == "all" || word == if v6 { "ipv6" } else { "ipv4" });
    if let Some(vip) = wish.vips.iter().find(|vip| !speaks(vip.is_ipv6())) {
        all.push(main(
            "inet_protocols=all".to_owned(),
            true,
            Level::Wrong,
            format!("Postfix does not speak the protocol of {vip} (inet_protocols = {protocols})"),
            "clients that the director sends here are refused",
        ));
    }
    let strangers: Vec<_> = wish.directors.iter().filter(|director| !knows(of, **director)).collect();
    if of.postscreen && !strangers.is_empty() {
        let keys: Vec<_> = strangers.iter().map(|director| format!("{director}=permit")).collect();
        all.push(main(
            format!(
                "postscreen_access_list={}, inline:{{{}}}",
                of.as_written("postscreen_access_list"),
                keys.join(", ")
            ),
            false,
            Level::Wrong,
            format!("postscreen does not know the director {}", join(&strangers)),
            "its checks wait 6 seconds for the banner, and this server may be taken for dead",
        ));
    }
    let exceptions = of.value("smtpd_client_event_limit_exceptions");
    let limited: Vec<_> = wish.directors.iter().filter(|director| !listed(exceptions, **director)).collect();
    if !limited.is_empty() {
        let addresses: Vec<_> = limited.iter().map(|ip| bracketed(**ip)).collect();
        let name = "smtpd_client_event_limit_exceptions";
        all.push(main(
            format!("{name}={}, {}", of.as_written(name), addresses.join(", ")),
            false,
            Level::Advice,
            format!("anvil counts the director {} like a client", join(&limited)),
            "with limits for clients its checks are refused when there are many of them",
        ));
    }
    if of.value("enable_long_queue_ids") != "yes" {
        all.push(main(
            "enable_long_queue_ids=yes".to_owned(),
            false,
            Level::Advice,
            "queue ids are short".to_owned(),
            "how old mail is can be told by its file only, and ids come again",
        ));
    }
    let header = of.proxy_header.as_deref().unwrap_or_else(|| of.value("smtpd_upstream_proxy_protocol"));
    if proxied && header != "haproxy" {
        let service = if of.postscreen { "postscreen" } else { "smtpd" };
        all.push(Setting {
            file: ConfFile::Master,
            text: format!("smtp/inet/{service}_upstream_proxy_protocol=haproxy"),
            restart: false,
            level: Level::Wrong,
            wrong: "Postfix expects no PROXY header on port 25".to_owned(),
            effect: "it takes the header of the director for a client that breaks the rules, and refuses it",
        });
    }
    all
}

/// What is wrong with an instance: its settings, and what no setting mends.
pub(crate) fn findings(wish: &Wish, proxied: bool, of: &Instance) -> Vec<Finding> {
    let directory = of.directory.display();
    let mut found = Vec::new();
    let missing = settings(wish, proxied, of);
    for setting in &missing {
        let again = if setting.restart { "stop; postfix start" } else { "reload" };
        let mend =
            format!("postconf -c {directory} {} '{}'; postfix {again}", setting.file.flag(), setting.text);
        let finding = Finding::wrong(setting.wrong.clone(), setting.effect, mend);
        found.push(Finding { level: setting.level, ..finding });
    }
    if of.running == Some(false) {
        found.push(Finding::wrong(
            format!("the Postfix of {directory} does not run"),
            "clients that the director sends here are refused",
            format!("postfix -c {directory} start"),
        ));
    } else if wish.forward != super::wish::Forward::Masq && !missing.iter().any(|setting| setting.restart) {
        for vip in wish.vips.iter().filter(|vip| !of.listening.contains(vip)) {
            found.push(Finding::wrong(
                format!("nobody listens on port 25 of {vip}"),
                "clients that the director sends here are refused",
                format!("postfix -c {directory} stop; postfix -c {directory} start"),
            ));
        }
    }
    let header = of.proxy_header.as_deref().unwrap_or_else(|| of.value("smtpd_upstream_proxy_protocol"));
    if !proxied && !header.is_empty() {
        found.push(Finding::wrong(
            format!("Postfix waits for a PROXY header ({header}), which IPVS never sends"),
            "each client waits 5 seconds and gets 421",
            format!("postconf -c {directory} -X smtpd_upstream_proxy_protocol; postfix reload"),
        ));
    }
    found
}

fn words(list: &str) -> impl Iterator<Item = &str> {
    list.split([' ', ',', '\t']).filter(|word| !word.is_empty())
}

fn covers(interfaces: &str, vip: IpAddr) -> bool {
    words(interfaces).any(|word| word == "all" || plain(word).parse() == Ok(vip))
}

fn plain(word: &str) -> &str {
    word.trim_start_matches('[').trim_end_matches(']')
}

/// Whether an address is in a list of addresses and networks; tables and names are not looked into.
fn listed(list: &str, ip: IpAddr) -> bool {
    words(list).any(|word| {
        let word: String = word.chars().filter(|c| !matches!(c, '[' | ']')).collect();
        word.parse() == Ok(ip) || word.parse::<IpNet>().is_ok_and(|network| network.contains(&ip))
    })
}

fn knows(of: &Instance, director: IpAddr) -> bool {
    let mine = words(of.value("postscreen_access_list")).any(|word| word == "permit_mynetworks");
    of.permitted.contains(&director) || (mine && listed(of.value("mynetworks"), director))
}

fn bracketed(ip: IpAddr) -> String {
    if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() }
}

fn join(all: &[&IpAddr]) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::wish::Forward;
    use super::*;

    fn instance(values: &[(&str, &str)]) -> Instance {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let mut all: Vec<_> = values.iter().map(own).collect();
        for (name, value) in
            [("inet_interfaces", "all"), ("inet_protocols", "all"), ("enable_long_queue_ids", "yes")]
        {
            all.push((name.to_owned(), value.to_owned()));
        }
        let vips = vec!["192.0.2.25".parse().unwrap()];
        Instance {
            values: all.clone(),
            written: all,
            listening: vips,
            running: Some(true),
            ..Instance::default()
        }
    }

    fn wish(directors: &[&str]) -> Wish {
        let directors = directors.iter().map(|ip| ip.parse().unwrap()).collect();
        Wish { forward: Forward::Gate, vips: vec!["192.0.2.25".parse().unwrap()], dummy: None, directors }
    }

    fn texts(wish: &Wish, of: &Instance) -> Vec<String> {
        settings(wish, false, of).into_iter().map(|setting| setting.text).collect()
    }

    #[test]
    fn a_right_instance_lacks_nothing() {
        assert_eq!(findings(&wish(&[]), false, &instance(&[])), []);
        let known = [("smtpd_client_event_limit_exceptions", "127.0.0.0/8, 192.0.2.0/28 [2001:db8::]/64")];
        assert_eq!(findings(&wish(&["192.0.2.2", "2001:db8::2"]), false, &instance(&known)), []);
    }

    #[test]
    fn the_vip_is_added_to_a_list_and_to_nothing_else() {
        for (list, expected) in [
            ("all", vec![]),
            ("127.0.0.1, [192.0.2.25]", vec![]),
            ("127.0.0.1", vec!["inet_interfaces=127.0.0.1, 192.0.2.25"]),
            ("loopback-only", vec!["inet_interfaces=all"]),
        ] {
            assert_eq!(texts(&wish(&[]), &instance(&[("inet_interfaces", list)])), expected);
        }
        assert_eq!(texts(&wish(&[]), &instance(&[("inet_protocols", "ipv6")])), ["inet_protocols=all"]);
    }

    #[test]
    fn a_director_is_let_through_by_its_address_alone() {
        let mut of =
            instance(&[("postscreen_access_list", "permit_mynetworks"), ("mynetworks", "127.0.0.0/8")]);
        let anvil = "smtpd_client_event_limit_exceptions=, 192.0.2.2";
        assert_eq!(texts(&wish(&["192.0.2.2"]), &of), [anvil]);
        of.postscreen = true;
        let screen = "postscreen_access_list=permit_mynetworks, inline:{192.0.2.2=permit}";
        assert_eq!(texts(&wish(&["192.0.2.2"]), &of), [screen, anvil]);
        of.permitted = vec!["192.0.2.2".parse().unwrap()];
        assert_eq!(texts(&wish(&["192.0.2.2"]), &of), [anvil]);
    }

    #[test]
    fn a_header_is_expected_where_it_is_sent() {
        let of = instance(&[("smtpd_upstream_proxy_protocol", "haproxy")]);
        assert!(findings(&wish(&[]), false, &of)[0].what.contains("which IPVS never sends"));
        assert_eq!(findings(&wish(&[]), true, &of), []);
        let found = settings(&wish(&[]), true, &instance(&[]));
        assert_eq!(found[0].text, "smtp/inet/smtpd_upstream_proxy_protocol=haproxy");
    }

    #[test]
    fn what_no_setting_mends_is_said() {
        let mut of = Instance { listening: vec![], ..instance(&[]) };
        assert!(findings(&wish(&[]), false, &of)[0].what.contains("nobody listens"));
        of.running = Some(false);
        assert!(findings(&wish(&[]), false, &of)[0].what.contains("does not run"));
    }
}
