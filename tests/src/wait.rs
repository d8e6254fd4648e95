//! Waiting for an observed state with a deadline; never for a length of time.

use std::time::{Duration, Instant};

/// How often a state is looked at.
const POLL: Duration = Duration::from_millis(20);

/// Looks until `look` finds something, and returns it. Panics with `what` when `limit` has passed.
pub fn wait_for<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < limit, "waited {limit:?} in vain for: {what}");
        std::thread::sleep(POLL);
    }
}

/// Looks until `look` says so. Panics with `what` when `limit` has passed.
pub fn until(what: &str, limit: Duration, mut look: impl FnMut() -> bool) {
    wait_for(what, limit, || look().then_some(()));
}
