//! EDGE: what happens beside the table when something happens in it: mails are sent, commands are run.
//!
//! Owns the queues, one for mails and one for commands, and their limits. Refuses to know what is worth a mail. What is
//! told here never waits: where a mail server or a command takes its time, others wait in a bounded queue, and what finds no
//! room in it is lost and said to be.

pub mod errand;
pub mod mail;

use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{self, Sender};
use tokio::task::JoinHandle;
use tracing::{debug, warn};

use self::errand::Errand;
use self::mail::Letter;

/// Mails, and commands, that may wait.
const QUEUE: usize = 256;
/// How long one mail may take.
const MAIL: Duration = Duration::from_secs(30);
/// How long one command may take.
const COMMAND: Duration = Duration::from_secs(30);

/// Where news is brought.
#[derive(Debug, Default)]
pub struct Desk(Option<Open>);

#[derive(Debug)]
struct Open {
    mails: Sender<Letter>,
    errands: Sender<Errand>,
    tasks: [JoinHandle<()>; 2],
}

impl Desk {
    /// One that takes news until it is closed.
    #[must_use]
    pub fn open() -> Self {
        let (mails, mut letters) = mpsc::channel::<Letter>(QUEUE);
        let (errands, mut orders) = mpsc::channel::<Errand>(QUEUE);
        let post = tokio::spawn(async move {
            while let Some(letter) = letters.recv().await {
                match mail::send(&letter, MAIL).await {
                    Ok(()) => debug!("mail sent: {}", letter.text),
                    // As ldirectord says it.
                    Err(why) => match letter.alert.relay {
                        Some(_) => warn!("failed to send SMTP email message \"{}\": {why}", letter.text),
                        None => warn!("failed to send email message \"{}\": {why}", letter.text),
                    },
                }
            }
        });
        let run = tokio::spawn(async move {
            while let Some(order) = orders.recv().await {
                if let Err(why) = errand::run(&order, &[], COMMAND).await {
                    warn!("{order}: {why}");
                }
            }
        });
        Self(Some(Open { mails, errands, tasks: [post, run] }))
    }

    /// Sends a mail, in time.
    pub fn write(&self, letter: Letter) {
        let Some(open) = &self.0 else { return };
        if let Err(TrySendError::Full(letter)) = open.mails.try_send(letter) {
            warn!("{QUEUE} mails wait to be sent; this one is lost: {}", letter.text);
        }
    }

    /// Runs a command, after those before it.
    pub fn order(&self, errand: Errand) {
        let Some(open) = &self.0 else { return };
        if let Err(TrySendError::Full(errand)) = open.errands.try_send(errand) {
            warn!("{QUEUE} commands wait to be run; this one is lost: {errand}");
        }
    }

    /// Takes no more, and waits for what is under way, at most so long.
    pub async fn close(self, limit: Duration) {
        let Some(Open { mails, errands, tasks }) = self.0 else { return };
        drop((mails, errands));
        let both = async {
            for task in tasks {
                let _ = task.await;
            }
        };
        if tokio::time::timeout(limit, both).await.is_err() {
            warn!("ending with mails that are not sent or commands that have not ended");
        }
    }
}
