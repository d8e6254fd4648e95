//! The read lease that a copy gives. A seal reports how long another owner may still read under it, so that the
//! next owner waits that long before it serves (replication.md H9). A copy that has just started knows of no
//! lease and reports a full one.
//!
//! A lease is a node's: a node has one process, which drops its older ownership before it begins the next one, and
//! a process that is gone reads nothing. Thus an owner does not wait for its own node's lease, and a change of S
//! under the same owner costs no pause.

use holdfast_types::{Duration, Epoch, NodeId, Time};

#[derive(Debug)]
pub(crate) struct Lease {
    length: Duration,
    holder: NodeId,
    until: Time,
    /// Until here a lease given before this process began may run.
    unknown_until: Time,
}

impl Lease {
    /// `sealed`: what the copy had promised when it was opened. One that promised nothing gave no lease.
    pub(crate) fn new(now: Time, length: Duration, sealed: Epoch) -> Self {
        let unknown_until = if sealed == Epoch(0) { now } else { now + length };
        Self { length, holder: NodeId(0), until: now, unknown_until }
    }

    /// Gives or renews the lease of an owner on `node`, whose epoch must be the highest promised.
    pub(crate) fn grant(&mut self, now: Time, node: NodeId) -> bool {
        if self.left(now, node) > Duration::ZERO {
            return false;
        }
        (self.holder, self.until) = (node, now + self.length);
        true
    }

    /// How long an owner on another node than `node` may still read.
    pub(crate) fn left(&self, now: Time, node: NodeId) -> Duration {
        let other = if self.holder == node { now } else { self.until };
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
        assert_eq!(lease.left(Time(0), NodeId(4)), L);
        assert!(!lease.grant(Time(1), NodeId(4)));
        assert!(lease.grant(Time(0) + L, NodeId(4)));
    }

    #[test]
    fn a_lease_of_another_owner_must_run_out_first() {
        let mut lease = Lease::new(Time(0), L, Epoch(0));
        assert!(lease.grant(Time(0), NodeId(1)));
        assert!(lease.grant(Time(10), NodeId(1)), "its own is renewed");
        assert_eq!(lease.left(Time(10), NodeId(2)), L);
        assert!(!lease.grant(Time(10), NodeId(2)));
        assert!(lease.grant(Time(10) + L, NodeId(2)));
    }
}
