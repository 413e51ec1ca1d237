//! EDGE: the end: the table stays, or our part of it is removed, as configured; mails go out, sessions end.
//!
//! Owns the order of that and how long each may take. Asked to end a second time, it ends at once.
#![expect(clippy::disallowed_methods, reason = "EDGE: the last picture is of now")]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::words::Going;
use super::{Director, Event, Inbox};
use crate::dataplane::Dataplane;
use crate::model::{Table, VirtualId};
use crate::reconcile::diff;

/// How long sessions in this process may go on after a request to end.
const CLOSE_LIMIT: Duration = Duration::from_secs(30);
/// How long mails about the end may take.
const NEWS_LIMIT: Duration = Duration::from_secs(5);

impl<D: Dataplane> Director<D> {
    async fn remove(&mut self, ids: &BTreeSet<VirtualId>) {
        if ids.is_empty() {
            return;
        }
        if let Ok(dump) = self.dataplane.dump().await {
            self.actual = dump;
        }
        let nothing = Table::default();
        let gone = diff(&self.actual.table, &nothing, ids);
        self.apply(gone, &nothing, Going::Down).await;
    }

    /// The end: the table stays, or our part of it is removed, as configured.
    pub(super) async fn leave(mut self, mut inbox: Inbox) {
        self.prober.sync(Vec::new());
        self.poller.sync(Vec::new());
        self.teller.stop();
        let removed: BTreeSet<VirtualId> = self.state.to_remove();
        let private = self.state.private().collect();
        let farm: BTreeSet<VirtualId> = self.state.owned().difference(&private).copied().collect();
        if self.dataplane.name() == "proxy" {
            info!("ending; no new sessions, those that are open have {} s", CLOSE_LIMIT.as_secs());
        } else if removed.is_empty() {
            info!("ending; what the kernel has stays as it is");
        } else if removed == farm {
            info!("ending; removing our virtuals");
        } else {
            info!("ending; removing some of our virtuals");
        }
        self.remove(&removed.union(&private).copied().collect()).await;
        for id in self.state.retired().filter(|id| !removed.contains(id)) {
            warn!("{id} is no longer in the configuration and still drains; nobody will delete it");
        }
        self.trouble = Some("the daemon is ending".to_owned());
        let now = Instant::now();
        self.state.weigh(now, &self.actual);
        self.publish(now);
        // Asked a second time, it ends at once.
        let again = async {
            loop {
                match inbox.events.recv().await {
                    Some(Event::Stop) => return,
                    Some(Event::Look(looker)) => drop(looker.send(())),
                    Some(Event::Reload(_) | Event::Answered(_) | Event::Maintenance(_)) => {}
                    None => std::future::pending().await,
                }
            }
        };
        let desk = std::mem::take(&mut self.teller.desk);
        tokio::select! {
            _ = async { tokio::join!(self.dataplane.close(CLOSE_LIMIT), desk.close(NEWS_LIMIT)) } => {}
            () = again => warn!("ending at once"),
        }
    }
}
