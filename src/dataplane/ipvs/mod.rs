//! IPVS in the kernel: the dataplane that a farm runs on.
//!
//! Owns nothing itself; four files do. `wire` turns the model into generic netlink and back (pure), `refusal`
//! says what an errno means to a person (pure), `kernel` holds the socket and `sysctl` reads settings (both EDGE).

mod kernel;
mod refusal;
pub mod sysctl;
pub mod wire;

pub use kernel::Ipvs;
