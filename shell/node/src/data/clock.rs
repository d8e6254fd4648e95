//! The clock of the engine: CLOCK_BOOTTIME, which also runs while the host sleeps, as leases need
//! (replication.md H10).

use holdfast_types::Time;
use rustix::time::{ClockId, clock_gettime};

/// Now.
pub fn boot_time() -> Time {
    let now = clock_gettime(ClockId::Boottime);
    // The kernel's boot clock is never negative.
    Time(now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs())
}
