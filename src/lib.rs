//! smtp-director: an SMTP-aware director for a farm of Postfix servers.

pub mod config;
pub mod dataplane;
pub mod health;
pub mod model;
pub mod reconcile;
pub mod state;
pub mod weight;
