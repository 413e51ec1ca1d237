//! smtp-director: an SMTP-aware director for a farm of Postfix servers.
//!
//! A file says what is wanted, checks say how the real servers are, and the difference between the table that
//! follows from both and the table that is there becomes a few ops on a dataplane:
//!
//! ```text
//! file --parse, lower--> Config --+
//!                                 +--> State --weigh--> desired Table --+
//! CheckPlan --run--> Outcome --observe--> Finding --^                   +--diff--> Vec<Op> --apply--> dataplane
//! AgentPlan --fetch--> Line --take--> Heard --------^                   |
//!                                          actual Table <-----dump------+                    |
//!                                                  ^------------- resync timer --------------+
//! State + actual Table --> Snapshot --render--> /metrics, /status, the status command
//! ```
//!
//! The modules stand in the order of that line. Those marked EDGE touch sockets, files, clocks or processes; the
//! rest is pure and takes the time as an argument. `ARCHITECTURE.md` says where a new line belongs.

pub mod cli;
pub mod config;
pub mod model;

pub mod cadence;
pub mod health;
pub mod heard;
pub mod verdict;
pub mod weight;

pub mod reconcile;
pub mod state;
pub mod vip;

pub mod dataplane;

pub mod arp;

pub mod canary;
pub mod children;
pub mod director;
pub mod maintenance;
pub mod news;
pub mod poller;
pub mod prober;

pub mod http;
pub mod log;
pub mod metrics;
pub mod snapshot;
pub mod systemd;

pub mod demo;
pub mod doctor;
