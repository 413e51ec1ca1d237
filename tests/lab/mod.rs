//! The whole program on a farm of real Postfix servers.
//!
//! `ipvs_farm` runs in a guest whose kernel has IPVS and is judged by `ipvsadm`; `proxy_farm` runs on the machine
//! itself and is judged by `/status`. What both must do is written once, in `scenario`. `ipvs_harness` shows that
//! the lab itself can be believed. `ldirectord` runs the original and ours on the same farm, one after the other. `tests/run` runs everything.

mod article;
mod doctor;
mod ipvs_farm;
mod ipvs_harness;
mod ldirectord;
mod proxy_farm;
mod queue_farm;
mod scenario;
mod vip;
