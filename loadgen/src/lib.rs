//! How to press on a farm of mail servers, and a server to press on.
//!
//! Owns the messages ([`message`]), the client that sends one ([`session`]) and a whole SMTP server in the process
//! that counts what it took and can be made ill ([`sink`]). Refuses to know virtuals, weights and IPVS.

pub mod message;
pub mod session;
pub mod sink;
