//! The read lease that a copy gives. A seal reports how long another owner may still read under it, so that the
//! next owner waits that long before it serves (replication.md H9). A copy that has just started knows of no
//! lease and reports a full one.
//!
//! A lease is a node's: a node has one process, which drops its older ownership before it begins the next one, and
//! a process that is gone reads nothing. Thus an owner does not wait for its own node's lease, and a change of S
//! under the same owner costs no pause.
//!
//! A holder may give its lease up (Gray and Cheriton, "Leases", 1989): an owner that hands its segment over stops
//! reading first and says so, and the next one need not wait. A release names the last lease that was asked for
//! before it, so that one that is overtaken by a later question ends nothing that is in use.

use holdfast_types::{Duration, Epoch, NodeId, Time};

#[derive(Debug)]
pub(crate) struct Lease {
    length: Duration,
    holder: NodeId,
    /// By which question of which epoch it was asked for last.
    asked: (Epoch, u64),
    until: Time,
    /// Until here a lease given before this process began may run.
    unknown_until: Time,
}

impl Lease {
    /// `sealed`: what the copy had promised when it was opened. One that promised nothing gave no lease.
    pub(crate) fn new(now: Time, length: Duration, sealed: Epoch) -> Self {
        let unknown_until = if sealed == Epoch(0) { now } else { now + length };
        Self { length, holder: NodeId(0), asked: (Epoch(0), 0), until: now, unknown_until }
    }

    /// Gives or renews the lease of an owner on `node`, whose epoch must be the highest promised.
    pub(crate) fn grant(&mut self, now: Time, node: NodeId, asked: (Epoch, u64)) -> bool {
        if self.left(now, node) > Duration::ZERO {
            return false;
        }
        // A question that was overtaken by a later one renews that one's lease.
        let asked = if self.holder == node { self.asked.max(asked) } else { asked };
        (self.holder, self.asked, self.until) = (node, asked, now + self.length);
        true
    }

    /// Ends the lease of an owner on `node`, unless it was asked for again after it was given up.
    pub(crate) fn release(&mut self, now: Time, node: NodeId, upto: (Epoch, u64)) {
        if self.holder == node && self.asked <= upto {
            self.until = now;
        }
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
    const A: (Epoch, u64) = (Epoch(4), 1);

    #[test]
    fn a_restarted_copy_reports_a_full_lease_and_gives_none() {
        let mut lease = Lease::new(Time(0), L, Epoch(3));
        assert_eq!(lease.left(Time(0), NodeId(4)), L);
        assert!(!lease.grant(Time(1), NodeId(4), A));
        assert!(lease.grant(Time(0) + L, NodeId(4), A));
    }

    #[test]
    fn a_lease_of_another_owner_must_run_out_first() {
        let mut lease = Lease::new(Time(0), L, Epoch(0));
        assert!(lease.grant(Time(0), NodeId(1), A));
        assert!(lease.grant(Time(10), NodeId(1), A), "its own is renewed");
        assert_eq!(lease.left(Time(10), NodeId(2)), L);
        assert!(!lease.grant(Time(10), NodeId(2), A));
        assert!(lease.grant(Time(10) + L, NodeId(2), A));
    }

    #[test]
    fn a_lease_that_was_given_up_keeps_nobody_waiting() {
        let mut lease = Lease::new(Time(0), L, Epoch(0));
        assert!(lease.grant(Time(0), NodeId(1), A));
        lease.release(Time(5), NodeId(2), A);
        assert_eq!(lease.left(Time(5), NodeId(2)), L - Duration(5), "only its holder ends it");
        lease.release(Time(5), NodeId(1), A);
        assert_eq!(lease.left(Time(5), NodeId(2)), Duration::ZERO);
    }

    #[test]
    fn a_release_that_comes_after_the_next_question_ends_nothing() {
        let mut lease = Lease::new(Time(0), L, Epoch(0));
        assert!(lease.grant(Time(0), NodeId(1), (Epoch(4), 2)));
        assert!(lease.grant(Time(1), NodeId(1), (Epoch(4), 1)), "an older question comes late");
        lease.release(Time(1), NodeId(1), (Epoch(4), 1));
        assert_eq!(lease.left(Time(1), NodeId(2)), L);
        lease.release(Time(1), NodeId(1), (Epoch(5), 0));
        assert_eq!(lease.left(Time(1), NodeId(2)), Duration::ZERO, "a later owner of the node ends it");
    }

    #[test]
    fn a_copy_that_has_just_started_does_not_take_a_release_for_what_it_does_not_know() {
        let mut lease = Lease::new(Time(0), L, Epoch(3));
        lease.release(Time(0), NodeId(1), A);
        assert_eq!(lease.left(Time(0), NodeId(2)), L);
    }
}
