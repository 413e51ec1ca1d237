//! What a mail box says of its Postfix: the report, its formats, and the agent that makes and serves it.
//!
//! [`report`] and what is below it are pure and all that a reader of reports needs (`default-features = false`). With
//! the feature `agent` comes what touches the box: [`cli`] is the program `smtp-realserver`. No address, subject or
//! id of a message is in a report, whatever the source knows of it.

pub mod report;

#[cfg(feature = "agent")]
pub mod agent;
#[cfg(feature = "agent")]
mod bounded;
#[cfg(feature = "agent")]
pub mod cli;
#[cfg(feature = "agent")]
mod clock;
#[cfg(feature = "agent")]
mod conf;
#[cfg(feature = "agent")]
mod done;
#[cfg(feature = "agent")]
pub mod look;
#[cfg(feature = "agent")]
mod proc;
#[cfg(feature = "agent")]
pub mod queue;
#[cfg(feature = "agent")]
mod setup;
#[cfg(feature = "agent")]
mod timeline;
#[cfg(feature = "agent")]
mod tls;
#[cfg(feature = "agent")]
mod vip;
#[cfg(feature = "agent")]
mod vitals;
