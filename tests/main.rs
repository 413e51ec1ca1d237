//! All that opens a socket or runs a binary. One target, so that it links once.

mod agents;
mod canary;
mod checks;
mod config;
mod contract;
mod daemon;
mod databases;
#[cfg(test)]
mod farm;
#[cfg(test)]
mod lab;
mod ldcommand;
#[cfg(test)]
mod ldirectord;
mod load;
mod postfix;
mod probe;
mod proxy;
mod queue;
mod scratch;
mod services;
mod setup;
#[cfg(test)]
mod simulation;
mod sink;
