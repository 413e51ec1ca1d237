//! What people do to single servers: they work on one, or take one that is down out of the table.
//!
//! Owns [`Maintained`] and who is left out of a table. Refuses to know how either is told. Cannot fail.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::State;
use crate::model::{Dump, RealId, VirtualId};

/// A server that somebody works on: one port of it, or all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Maintained {
    /// Its address.
    pub ip: IpAddr,
    /// One of its ports; `None` is each.
    pub port: Option<u16>,
}

impl fmt::Display for Maintained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => SocketAddr::new(self.ip, port).fmt(f),
            None => self.ip.fmt(f),
        }
    }
}

impl State {
    /// Takes over who is in maintenance.
    pub fn maintain(&mut self, maintained: BTreeSet<Maintained>) {
        self.maintained = maintained;
    }

    pub(super) fn is_maintained(&self, real: &RealId) -> bool {
        let each = Maintained { ip: real.0.ip(), port: None };
        self.maintained.contains(&each)
            || self.maintained.contains(&Maintained { port: Some(real.0.port()), ..each })
    }

    /// Who is not put back into the table while it has no weight: somebody has deleted it since this configuration had it there.
    pub(super) fn left_out(&mut self, actual: &Dump) -> BTreeSet<(VirtualId, RealId)> {
        let reals = self.config.virtuals.iter().flat_map(|v| v.reals.iter().map(|real| (v.id, real.id)));
        let is_there = |(id, real): &(VirtualId, RealId)| {
            actual.table.virtuals.get(id).is_some_and(|have| have.reals.contains_key(real))
        };
        let (there, gone): (BTreeSet<_>, BTreeSet<_>) = reals.partition(is_there);
        let left = match self.config.readd_quiescent {
            true => BTreeSet::new(),
            false => gone.intersection(&self.placed).copied().collect(),
        };
        self.placed.extend(there);
        left
    }
}
