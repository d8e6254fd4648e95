//! The read lease that a copy gives. A seal reports how long another owner may still read under it, so that the
//! next owner waits that long before it serves (replication.md H9). A copy that has just started knows of no
//! lease and reports a full one.

use holdfast_types::{Duration, Epoch, Time};

#[derive(Debug)]
pub(crate) struct Lease {
    length: Duration,
    holder: Epoch,
    until: Time,
    /// Until here a lease given before this process began may run.
    unknown_until: Time,
}

impl Lease {
    /// `sealed`: what the copy had promised when it was opened. One that promised nothing gave no lease.
    pub(crate) fn new(now: Time, length: Duration, sealed: Epoch) -> Self {
        let unknown_until = if sealed == Epoch(0) { now } else { now + length };
        Self { length, holder: Epoch(0), until: now, unknown_until }
    }

    /// Gives or renews the lease of `epoch`'s owner, which must be the highest promised.
    pub(crate) fn grant(&mut self, now: Time, epoch: Epoch) -> bool {
        if self.left(now, epoch) > Duration::ZERO {
            return false;
        }
        (self.holder, self.until) = (epoch, now + self.length);
        true
    }

    /// How long an owner other than `epoch`'s may still read.
    pub(crate) fn left(&self, now: Time, epoch: Epoch) -> Duration {
        let other = if self.holder == epoch { now } else { self.until };
        other.max(self.unknown_until).since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    const L: Duration = Duration::from_secs(1);

    #[test]
    fn a_restarted_copy_reports_a_full_lease_and_gives_none() {
        let mut lease = Lease::new(Time(0), L, Epoch(3));
        assert_eq!(lease.left(Time(0), Epoch(4)), L);
        assert!(!lease.grant(Time(1), Epoch(4)));
        assert!(lease.grant(Time(0) + L, Epoch(4)));
    }

    #[test]
    fn a_lease_of_another_owner_must_run_out_first() {
        let mut lease = Lease::new(Time(0), L, Epoch(0));
        assert!(lease.grant(Time(0), Epoch(1)));
        assert!(lease.grant(Time(10), Epoch(1)), "its own is renewed");
        assert_eq!(lease.left(Time(10), Epoch(2)), L);
        assert!(!lease.grant(Time(10), Epoch(2)));
        assert!(lease.grant(Time(10) + L, Epoch(2)));
    }
}
