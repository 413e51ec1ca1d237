//! EDGE: picks the dataplane that a configuration asks for and the machine can give.
//!
//! Owns [`Chosen`]. Refuses to know what will be balanced. With `auto` the proxy takes the place of an IPVS that is
//! not there or not allowed, and the reason is said. Other trouble with IPVS may pass, and is an error: a proxy
//! beside a table in the kernel would be worse.

use std::collections::BTreeMap;
use std::time::Duration;

use super::ipvs::Ipvs;
use super::proxy::Proxy;
use super::{Dataplane, Error};
use crate::config::{DataplaneChoice, ProxyOptions};
use crate::model::{Dump, Op, VirtualId};

/// The dataplane in use.
pub enum Chosen {
    /// The kernel.
    Ipvs(Ipvs),
    /// This process.
    Proxy(Proxy),
}

/// Opens what `choice` asks for. Gives it with one sentence on what it is and why.
///
/// # Errors
/// [`Error::NotAvailable`] and [`Error::Permission`] only for [`DataplaneChoice::Ipvs`], any other for `Auto` too.
pub async fn choose(choice: DataplaneChoice) -> Result<(Chosen, String), Error> {
    let because = match choice {
        DataplaneChoice::Proxy => "the configuration says so".to_owned(),
        DataplaneChoice::Auto | DataplaneChoice::Ipvs => match Ipvs::open().await {
            Ok(ipvs) => {
                let why = format!("dataplane ipvs: {}", ipvs.info());
                return Ok((Chosen::Ipvs(ipvs), why));
            }
            Err(error @ (Error::NotAvailable | Error::Permission)) if choice == DataplaneChoice::Auto => {
                error.to_string()
            }
            Err(error) => return Err(error),
        },
    };
    Ok((Chosen::Proxy(Proxy::new()), format!("dataplane proxy: {because}")))
}

impl Dataplane for Chosen {
    fn name(&self) -> &'static str {
        match self {
            Self::Ipvs(ipvs) => ipvs.name(),
            Self::Proxy(proxy) => proxy.name(),
        }
    }

    async fn dump(&mut self) -> Result<Dump, Error> {
        match self {
            Self::Ipvs(ipvs) => ipvs.dump().await,
            Self::Proxy(proxy) => proxy.dump().await,
        }
    }

    async fn apply(&mut self, op: &Op) -> Result<(), Error> {
        match self {
            Self::Ipvs(ipvs) => ipvs.apply(op).await,
            Self::Proxy(proxy) => proxy.apply(op).await,
        }
    }

    fn set_proxy_options(&mut self, options: BTreeMap<VirtualId, ProxyOptions>) {
        match self {
            Self::Ipvs(ipvs) => ipvs.set_proxy_options(options),
            Self::Proxy(proxy) => proxy.set_proxy_options(options),
        }
    }

    async fn close(&mut self, limit: Duration) {
        match self {
            Self::Ipvs(ipvs) => ipvs.close(limit).await,
            Self::Proxy(proxy) => proxy.close(limit).await,
        }
    }
}
