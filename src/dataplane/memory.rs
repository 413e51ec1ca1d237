//! A table in memory, as strict as the kernel: for `plan` and for tests.
//!
//! Owns a [`Table`]. Fails exactly where [`Table::apply`] does.

use super::{Dataplane, Error};
use crate::model::{Counters, Dump, Op, Table};

/// A dataplane that carries nothing.
#[derive(Debug, Default)]
pub struct Memory {
    /// What it holds.
    pub table: Table,
    /// What it says when asked for counters; tests set it.
    pub counters: Counters,
}

impl Dataplane for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }

    async fn dump(&mut self) -> Result<Dump, Error> {
        Ok(Dump { table: self.table.clone(), counters: self.counters.clone() })
    }

    async fn apply(&mut self, op: &Op) -> Result<(), Error> {
        Ok(self.table.apply(op)?)
    }
}
