//! What makes a box a real server of a farm, and undoes it: `smtp-realserver plan`, `up`, `down`, `status`, `persist`.
//!
//! The pipeline: [`wish`] (what is asked for) and [`observed`] (what is so) go into [`plan`], which gives [`change`]s or
//! the problems that forbid them. [`apply`] makes them, reads each back, and takes all back when one fails. [`record`]
//! keeps what was there before, so that `down` gives it back, and only when no other VIP needs it. [`findings`] says what
//! is wrong. Pure, but for the files that open with EDGE.

mod apply;
mod change;
pub(crate) mod cli;
mod command;
mod findings;
mod look;
mod mail;
mod observed;
mod persist;
mod plan;
mod record;
mod store;
mod wish;
