//! Busy polling: whether to look for work for a moment before sleeping. A core that sleeps takes longer to wake than
//! a disk takes to flush, several times for each write; a host without I/O must burn nothing. So the thread
//! polls only while the time between two facts is short (docs/decisions/0013).

use holdfast_types::Duration;

/// The longest that a configuration may ask for.
pub const POLL_MOST: Duration = Duration::from_micros(1000);
/// Polling for less than this is not worth its calls.
const WINDOW_LEAST: Duration = Duration::from_micros(5);
/// A call to sched_yield(2) that takes longer has given the core to somebody else.
pub(super) const CORE_TAKEN: Duration = Duration::from_micros(10);

/// For how long to poll, by how long the last waits took.
pub(super) struct Polling {
    most: Duration,
    window: Duration,
}

impl Polling {
    /// Polls for up to `most` at a time; zero: never.
    pub(super) fn new(most: Duration) -> Self {
        Self { most, window: Duration::ZERO }
    }

    /// For how long to poll now.
    pub(super) fn window(&self) -> Duration {
        self.window
    }

    /// Polling found nothing, and the next fact came after `waited`, polling included. A wait that polling nearly covers
    /// opens the window; each longer one halves it.
    pub(super) fn slept(&mut self, waited: Duration) {
        self.window = if waited.0 <= self.most.0 * 2 { self.most } else { Duration(self.window.0 / 2) };
        if self.window.0 < WINDOW_LEAST.0 {
            self.window = Duration::ZERO;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Duration = Duration::from_micros(100);

    #[test]
    fn short_waits_open_the_window_and_long_ones_close_it() {
        let mut polling = Polling::new(MOST);
        assert_eq!(polling.window(), Duration::ZERO, "a thread that was just started sleeps");
        polling.slept(Duration::from_micros(200));
        assert_eq!(polling.window(), MOST);
        polling.slept(Duration::from_micros(201));
        assert_eq!(polling.window(), Duration::from_micros(50), "one pause does not close it");
        for _ in 0..4 {
            polling.slept(Duration::from_secs(1));
        }
        assert_eq!(polling.window(), Duration::ZERO, "a host without I/O does not poll");
        polling.slept(Duration::from_micros(150));
        assert_eq!(polling.window(), MOST);
    }

    #[test]
    fn never_polls_where_that_was_asked_for() {
        let mut polling = Polling::new(Duration::ZERO);
        polling.slept(Duration::ZERO);
        assert_eq!(polling.window(), Duration::ZERO);
    }
}
