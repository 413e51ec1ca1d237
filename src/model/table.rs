//! The table that a dataplane balances by, and the six changes of one.
//!
//! Owns [`Table::apply`], which fails exactly where the kernel would refuse. Refuses to know why a table should change.

use std::collections::BTreeMap;
use std::fmt;

use super::{RealId, RealSettings, VirtualId, VirtualSettings};

/// One virtual and its real servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Virtual {
    /// How the virtual balances.
    pub settings: VirtualSettings,
    /// Who serves it.
    pub reals: BTreeMap<RealId, RealSettings>,
}

impl Virtual {
    /// A virtual without real servers.
    #[must_use]
    pub fn new(settings: VirtualSettings) -> Self {
        Self { settings, reals: BTreeMap::new() }
    }

    /// Whether any of its real servers has weight.
    #[must_use]
    pub fn takes_connections(&self) -> bool {
        self.reals.values().any(|settings| settings.weight.takes_connections())
    }
}

/// A balancing table: what is wanted, or what a dataplane has. Ordered, so that everything printed is stable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// The virtuals by identity.
    pub virtuals: BTreeMap<VirtualId, Virtual>,
}

/// One change of a table. `Set` replaces all settings, as the kernel does: what is left out goes to its default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// A new virtual without real servers.
    AddVirtual(VirtualId, VirtualSettings),
    /// New settings for a virtual that exists; its connections go on.
    SetVirtual(VirtualId, VirtualSettings),
    /// Removes a virtual and all its real servers.
    DeleteVirtual(VirtualId),
    /// A new real server.
    AddReal(VirtualId, RealId, RealSettings),
    /// New settings for a real server that exists; its connections go on.
    SetReal(VirtualId, RealId, RealSettings),
    /// Removes a real server; its connections lose it.
    DeleteReal(VirtualId, RealId),
}

impl Op {
    /// The metric label of this kind of change.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::AddVirtual(..) => "add_virtual",
            Self::SetVirtual(..) => "set_virtual",
            Self::DeleteVirtual(..) => "delete_virtual",
            Self::AddReal(..) => "add_real",
            Self::SetReal(..) => "set_real",
            Self::DeleteReal(..) => "delete_real",
        }
    }

    /// The virtual that this change belongs to.
    #[must_use]
    pub fn virtual_id(&self) -> &VirtualId {
        match self {
            Self::AddVirtual(id, _)
            | Self::SetVirtual(id, _)
            | Self::DeleteVirtual(id)
            | Self::AddReal(id, ..)
            | Self::SetReal(id, ..)
            | Self::DeleteReal(id, _) => id,
        }
    }
}

/// As a person would say it: `set 10.0.0.11:25 of TCP 192.0.2.25:25 to Route weight 0`.
impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddVirtual(id, settings) => write!(f, "add virtual {id} {}", settings.scheduler),
            Self::SetVirtual(id, settings) => write!(f, "set virtual {id} to {}", settings.scheduler),
            Self::DeleteVirtual(id) => write!(f, "delete virtual {id}"),
            Self::AddReal(id, real, s) => {
                write!(f, "add {real} to {id}, {} weight {}", s.forward, s.weight)
            }
            Self::SetReal(id, real, s) => {
                write!(f, "set {real} of {id} to {} weight {}", s.forward, s.weight)
            }
            Self::DeleteReal(id, real) => write!(f, "delete {real} from {id}"),
        }
    }
}

/// Why a table refuses a change; the kernel's errno in the name of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// `EEXIST`: what should be added is there already.
    #[error("it exists already")]
    Exists,
    /// `ESRCH`: the virtual is not there.
    #[error("there is no such virtual")]
    NoVirtual,
    /// `ENOENT`: the virtual is there, the real server is not.
    #[error("the virtual has no such real server")]
    NoReal,
}

impl Table {
    /// Makes one change, as strict as the kernel.
    ///
    /// # Errors
    /// [`TableError`] with the table unchanged.
    pub fn apply(&mut self, op: &Op) -> Result<(), TableError> {
        match op {
            Op::AddVirtual(id, settings) => match self.virtuals.entry(*id) {
                std::collections::btree_map::Entry::Occupied(_) => return Err(TableError::Exists),
                std::collections::btree_map::Entry::Vacant(slot) => {
                    slot.insert(Virtual::new(settings.clone()));
                }
            },
            Op::SetVirtual(id, settings) => self.virtual_mut(id)?.settings = settings.clone(),
            Op::DeleteVirtual(id) => {
                self.virtuals.remove(id).ok_or(TableError::NoVirtual)?;
            }
            Op::AddReal(id, real, settings) => match self.virtual_mut(id)?.reals.entry(*real) {
                std::collections::btree_map::Entry::Occupied(_) => return Err(TableError::Exists),
                std::collections::btree_map::Entry::Vacant(slot) => {
                    slot.insert(*settings);
                }
            },
            Op::SetReal(id, real, settings) => {
                *self.virtual_mut(id)?.reals.get_mut(real).ok_or(TableError::NoReal)? = *settings;
            }
            Op::DeleteReal(id, real) => {
                self.virtual_mut(id)?.reals.remove(real).ok_or(TableError::NoReal)?;
            }
        }
        Ok(())
    }

    fn virtual_mut(&mut self, id: &VirtualId) -> Result<&mut Virtual, TableError> {
        self.virtuals.get_mut(id).ok_or(TableError::NoVirtual)
    }
}
