//! The whole program on a farm of real Postfix servers.
//!
//! `ipvs` runs in a guest whose kernel has IPVS and is judged by `ipvsadm`, `proxy` on the machine itself and is
//! judged by `/status`; the scenarios that both play are in `scenario`. `tests/run` runs everything.

mod ipvs_harness;
