//! An alarm by the clock that goes on while the device is suspended: what became due meanwhile is due as soon as it wakes up. The kernel
//! keeps it to the moment (timerfd_create(2)), so an idle device is woken once for each and not on the way there.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd, RawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::timer::{Expiration, TimerSetTimeFlags};
use nix::sys::timerfd::{ClockId, TimerFd, TimerFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::events::Moment;

/// The longest sleep where the kernel gives no alarm: the runtime's timers stand still while the device is suspended.
const NAP: Duration = Duration::from_secs(10);

/// The alarm of one task.
pub(super) struct Alarm {
    clock: Option<AsyncFd<Clock>>,
    /// What the kernel was told.
    set: Option<Moment>,
}

struct Clock(TimerFd);

impl AsRawFd for Clock {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Alarm {
    /// Where the kernel gives none (no file is left), it goes off too often instead.
    pub(super) fn new() -> Self {
        Self {
            clock: clock().ok(),
            set: None,
        }
    }

    /// Returns at this moment, or somewhat earlier. May be dropped and called again.
    pub(super) async fn at(&mut self, due: Moment) {
        let Some(clock) = &self.clock else {
            return nap(due).await;
        };
        if self.set != Some(due) {
            // From now on, and not as a moment: what pretends another time to the agent (libfaketime) would move that, whatever clock it is by. Zero would
            // switch it off.
            let rest = due.saturating_sub(moment()).max(Duration::from_nanos(1));
            let rest = Expiration::OneShot(rest.into());
            let flags = TimerSetTimeFlags::empty();
            if clock.get_ref().0.set(rest, flags).is_err() {
                return nap(due).await;
            }
            self.set = Some(due);
        }
        loop {
            let Ok(mut ready) = clock.readable().await else {
                return nap(due).await;
            };
            match ready.get_inner().0.wait() {
                Ok(()) => break,
                Err(Errno::EAGAIN) => ready.clear_ready(),
                Err(_) => return nap(due).await,
            }
        }
        self.set = None;
    }
}

#[expect(
    deprecated,
    reason = "the new way is unsafe code; `Clock` gives one descriptor, which it keeps open for as long as it lives"
)]
fn clock() -> io::Result<AsyncFd<Clock>> {
    let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
    let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, flags)?;
    AsyncFd::with_interest(Clock(timer), Interest::READABLE)
}

async fn nap(due: Moment) {
    tokio::time::sleep(due.saturating_sub(moment()).min(NAP)).await;
}

/// Now, by that clock.
pub(super) fn moment() -> Moment {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME)
        .map(Duration::from)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(3_600);

    async fn goes_off(mut alarm: Alarm) {
        let due = moment() + MOMENT;
        // Whoever waited for something else first has set it to another time.
        tokio::select! {
            () = alarm.at(moment() + LONG) => panic!("an hour early"),
            () = tokio::task::yield_now() => {}
        }
        alarm.at(due).await;
        assert!(moment() >= due);
        // What has passed is due at once, again and again, and so is the beginning of time.
        for past in [due, due, Duration::ZERO] {
            alarm.at(past).await;
        }
        let later = moment() + MOMENT;
        alarm.at(later).await;
        assert!(moment() >= later, "what went off earlier counts again");
    }

    #[tokio::test]
    async fn it_goes_off_when_it_is_due_and_not_for_what_it_was_set_to_before() {
        let alarm = Alarm::new();
        assert!(alarm.clock.is_some());
        goes_off(alarm).await;
    }

    #[tokio::test]
    async fn without_a_file_for_it_the_runtime_keeps_the_time() {
        goes_off(Alarm {
            clock: None,
            set: None,
        })
        .await;
    }
}
