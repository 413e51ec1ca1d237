//! EDGE: descriptors.
//!
//! Owns the soft limit of this process, which is 1024 on most systems. Refuses to fail: who runs out of them later is told
//! by the class `local`.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit to `wanted`, or as far as the hard one goes.
pub(super) fn raise(wanted: usize) {
    let wanted = u64::try_from(wanted).unwrap_or(u64::MAX);
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|current| current < wanted) {
        let new = maximum.map_or(wanted, |maximum| wanted.min(maximum));
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(new), maximum });
    }
}
