//! Canary mail: a small signed message through each server, which comes back to the director where mail leaves the server.
//!
//! Owns the way of a canary: its text and signature ([`letter`]), who is waited for and what follows ([`ledger`]), and
//! its reception ([`session`], [`receiver`]); [`desk`] puts them together. Refuses to know tables and weights: what it
//! finds is an outcome of a check, like any other. Fails for the director only: where the receiver cannot listen, or no
//! canary of any server comes back, nothing is said of a server.
//!
//! A canary is believed when its signature is ours, its number is one that we wait for, and it comes for the first time.
//! The key is made at each start and kept nowhere. What an earlier start sent is recognised by the number of that start,
//! taken and thrown away: if it were refused, the farm would return it to its sender.

pub(crate) mod desk;
pub mod ledger;
pub mod letter;
pub(crate) mod receiver;
pub mod session;
