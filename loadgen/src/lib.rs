//! How to press on a farm of mail servers, and a server to press on.
//!
//! A run goes one way: the command line ([`cli`]) makes a [`job`], threads of the [`worker`] start what its [`plan`] says
//! is due, a [`seat`] does it over [`smtp`] or [`http`], the [`tally`] counts, and [`report`] tells. The `sink` is a whole
//! SMTP server that counts what it took and can be made ill. [`session`] sends a single message. Refuses to know virtuals,
//! weights and IPVS.

pub mod cli;
pub mod corpus;
pub mod http;
pub mod identify;
pub mod job;
pub mod mail;
pub mod message;
pub mod plan;
pub mod report;
pub mod run;
pub mod seat;
pub mod session;
pub mod sink;
pub mod smtp;
pub mod spread;
pub mod tally;
pub mod tls;
pub mod trace;
pub mod wire;
pub mod words;
pub mod worker;
