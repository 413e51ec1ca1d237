//! EDGE: a timer finer than the runtime's, and the CPU time of a thread.
//!
//! Owns a timerfd. Refuses to know what is waited for. Fails to be made as the system says; later the runtime's timer stands
//! in.

use std::time::Duration;

use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;
use tokio::time::sleep;

use crate::plan::Nanos;

/// A timer of microseconds; tokio's has milliseconds.
pub(super) struct Timer(AsyncFd<std::os::fd::OwnedFd>);

impl Timer {
    pub(super) fn new() -> std::io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        #[expect(deprecated, reason = "its successor is unsafe; an OwnedFd keeps what that asks for")]
        AsyncFd::new(timer).map(Self)
    }

    pub(super) async fn wait(&mut self, time: Duration) {
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let time = time.min(Duration::from_secs(3600));
        let it_value = Timespec {
            tv_sec: i64::try_from(time.as_secs()).unwrap_or_default(),
            tv_nsec: i64::from(time.subsec_nanos()).max(1),
        };
        let set = Itimerspec { it_interval: zero, it_value };
        if timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &set).is_err() {
            return sleep(time).await;
        }
        // Setting it again takes back that it is readable, so it is never read.
        if let Ok(mut ready) = self.0.readable().await {
            ready.clear_ready();
        }
    }
}

/// CPU time of this thread.
pub(super) fn cpu() -> Nanos {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = Nanos::try_from(time.tv_sec).unwrap_or_default();
    seconds * 1_000_000_000 + Nanos::try_from(time.tv_nsec).unwrap_or_default()
}
