//! Every key that there is, and what is said to one that there is not.
//!
//! Owns the list of keys of each kind of table. Refuses to know what they mean. Never fails.

use crate::config::diagnostic::printable;

/// A kind of table and every key that it can hold.
pub(super) struct Scope {
    pub(super) title: &'static str,
    pub(super) keys: &'static [&'static str],
}

pub(super) static TOP: Scope = Scope {
    title: "the top level",
    keys: &[
        "dataplane",
        "http",
        "log",
        "log_format",
        "log_to",
        "supervised",
        "autoreload",
        "callback",
        "execute",
        "maintenance_dir",
        "readd_quiescent",
        "on_exit",
        "resync",
        "vip_marks",
        "arp_watch",
        "alert",
        "check",
        "virtual",
    ],
};
pub(super) static VIRTUAL: Scope = Scope {
    title: "[[virtual]]",
    keys: &[
        "name",
        "address",
        "fwmark",
        "family",
        "protocol",
        "scheduler",
        "scheduler_flags",
        "one_packet",
        "forward",
        "tunnel",
        "persistence",
        "netmask",
        "quiescent",
        "drain",
        "floor",
        "queue",
        "latency",
        "slow_start",
        "on_exit",
        "fallback",
        "fallback_command",
        "monitor_file",
        "proxy_protocol",
        "idle",
        "vip_check",
        "weight",
        "canary",
        "alert",
        "check",
        "real",
    ],
};
pub(super) static REAL: Scope = Scope {
    title: "[[virtual.real]]",
    keys: &[
        "address",
        "port",
        "weight",
        "forward",
        "tunnel",
        "upper_threshold",
        "lower_threshold",
        "queue",
        "monitor_as",
        "check",
    ],
};
pub(super) static CHECK: Scope = Scope {
    title: "check",
    keys: &[
        "type",
        "address",
        "port",
        "ehlo_name",
        "interval",
        "retry",
        "fall",
        "rise",
        "damping",
        "deadline",
        "connect_timeout",
        "banner_timeout",
        "ehlo_timeout",
        "quit_timeout",
        "banner",
        "banner_name",
        "require",
        "proxy_header",
        "tls",
        "auth",
        "mail",
        "data",
        "verdict",
        "connects_between",
        "request",
        "receive",
        "host",
        "method",
        "database",
        "secret_file",
        "secret",
        "command",
    ],
};
pub(super) static TLS: Scope = Scope {
    title: "tls",
    keys: &["mode", "verify", "name", "pins", "ca_file", "min_version", "warn_days", "interval", "timeout"],
};
pub(super) static AUTH: Scope =
    Scope { title: "auth", keys: &["file", "user", "password", "mechanism", "without_tls", "timeout"] };
pub(super) static MAIL: Scope =
    Scope { title: "mail", keys: &["from", "accept", "refuse", "interval", "timeout"] };
pub(super) static ALERT: Scope =
    Scope { title: "alert", keys: &["to", "from", "every", "when", "smtp", "service", "comment"] };
pub(super) static DATA: Scope = Scope { title: "data", keys: &["from", "to", "interval", "timeout"] };
pub(super) static CANARY: Scope = Scope {
    title: "canary",
    keys: &["from", "to", "listen", "protocol", "interval", "slow", "lost", "timeout", "public"],
};
pub(super) static TUNNEL: Scope = Scope { title: "tunnel", keys: &["type", "port", "checksum"] };
pub(super) static FALLBACK: Scope = Scope { title: "fallback", keys: &["address", "forward"] };

pub(super) static QUEUE: Scope = Scope {
    title: "queue",
    keys: &["agent", "command", "tls", "full_at", "floor_at", "interval", "deadline"],
};
pub(super) static QUEUE_TLS: Scope =
    Scope { title: "queue.tls", keys: &["ca_file", "certificate", "key", "name"] };
pub(super) static LATENCY: Scope = Scope { title: "latency", keys: &["full_at", "floor_at"] };

/// Where a key that is unknown in one table may belong.
static SCOPES: [&Scope; 15] = [
    &TOP, &VIRTUAL, &REAL, &CHECK, &TUNNEL, &FALLBACK, &TLS, &AUTH, &MAIL, &DATA, &QUEUE, &QUEUE_TLS,
    &LATENCY, &ALERT, &CANARY,
];

/// `"a", "b"`.
pub(super) fn quoted(words: &[&str]) -> String {
    words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ")
}

/// The word of `words` that was probably meant.
pub(super) fn nearest<'w>(word: &str, words: &[&'w str]) -> Option<&'w str> {
    // Longer than any of our words by far; the distance would take its square in time.
    const LONGEST: usize = 40;
    if word.len() > LONGEST {
        return None;
    }
    let word = word.to_ascii_lowercase().replace('-', "_");
    let allowed = (word.len() / 3).clamp(1, 3);
    words
        .iter()
        .map(|known| (strsim::osa_distance(&word, known), *known))
        .filter(|(distance, known)| *distance <= allowed && *distance < known.len())
        .min()
        .map(|(_, known)| known)
}

/// Whether to say what was probably meant.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Advice {
    Guess,
    None,
}

/// What is wrong with a key that `scope` does not have, and which one was probably meant.
pub(super) fn unknown(key: &str, scope: &Scope, advice: Advice) -> String {
    let title = scope.title;
    let shown = printable(&key.chars().take(60).collect::<String>());
    if advice == Advice::None {
        return format!("{shown}: unknown key in {title}");
    }
    let owners = |key: &str| {
        let titles: Vec<_> = SCOPES.iter().filter(|s| s.keys.contains(&key)).map(|s| s.title).collect();
        titles.join(" or ")
    };
    let all: Vec<&str> = SCOPES.iter().flat_map(|scope| scope.keys).copied().collect();
    let advice = if all.contains(&key) {
        format!("it belongs to {}", owners(key))
    } else if let Some(meant) = nearest(key, scope.keys) {
        format!("did you mean \"{meant}\"?")
    } else if let Some(meant) = nearest(key, &all) {
        format!("did you mean \"{meant}\" of {}?", owners(meant))
    } else {
        format!("known are {}", scope.keys.join(", "))
    };
    format!("{shown}: unknown key in {title}; {advice}")
}
