//! EDGE: descriptors.
//!
//! Owns the soft limit of this process, which is 1024 on most systems. Refuses to fail: who runs out of them later is told
//! by the class `local`.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit to `wanted`, or as far as the hard one goes. Gives what it is then.
pub(super) fn raise(wanted: usize) -> u64 {
    let wanted = u64::try_from(wanted).unwrap_or(u64::MAX);
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|current| current < wanted) {
        let new = maximum.map_or(wanted, |maximum| wanted.min(maximum));
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(new), maximum });
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// What to say where `sessions` do not fit.
pub(super) fn warning(open: u64, sessions: usize) -> Option<String> {
    let wanted = u64::try_from(sessions).unwrap_or(u64::MAX);
    (open < wanted.saturating_add(OWN)).then(|| {
        let fit = open.saturating_sub(OWN);
        format!(
            "only {open} descriptors, so at most {fit} of {sessions} sessions at one time: raise the hard limit (ulimit -Hn, LimitNOFILE=)"
        )
    })
}

/// What the process needs beside its sessions.
const OWN: u64 = 24;
