//! How the owner knows, after it has read, that no newer owner may have acknowledged a write in the meantime:
//! leases of w(S) copies, or a question to w(S) copies asked after the read came (replication.md H9, H10).
//! A copy that cannot give a lease yet, as it has only just started and may have given one before, still answers the
//! question for one, and that answer is as good as a probe's: reads go on, one question for each burst of them.
//! Leases are taken when a read needs one and renewed only while reads come, thus an idle segment costs nothing.

use alloc::collections::{BTreeMap, BTreeSet};
use holdfast_types::{Duration, ReplicaRef, Time};

/// Asked again when no answer came for this long.
const RETRY: Duration = Duration::from_millis(50);
/// Questions whose answers are still counted.
const PROBES_MOST: usize = 64;

#[derive(Debug)]
pub(crate) struct Leases {
    length: Duration,
    /// When each copy's lease ends, counted from when it was asked for.
    until: BTreeMap<ReplicaRef, Time>,
    asked: BTreeMap<u64, Time>,
    last_asked: Option<Time>,
    next: u64,
    probes: BTreeMap<u64, BTreeSet<ReplicaRef>>,
    confirmed: u64,
}

impl Leases {
    pub(crate) fn new(length: Duration, drift_per_mille: u64) -> Self {
        let length = Duration(length.0 / 1000 * (1000 - drift_per_mille.min(1000)));
        Self {
            length,
            until: BTreeMap::new(),
            asked: BTreeMap::new(),
            last_asked: None,
            next: 1,
            probes: BTreeMap::new(),
            confirmed: 0,
        }
    }

    /// Whether `quorum` copies' leases run now.
    pub(crate) fn valid(&self, now: Time, quorum: usize) -> bool {
        self.until.values().filter(|until| **until > now).count() >= quorum
    }

    /// Whether it is time to ask (again): none is valid, or the oldest that matters has lost a third.
    pub(crate) fn wants(&self, now: Time, quorum: usize) -> bool {
        let fresh = Duration(self.length.0 / 3 * 2);
        let recent = self.last_asked.is_some_and(|at| now.since(at) < RETRY);
        !recent && !self.valid(now + fresh, quorum)
    }

    /// The number of a question that is sent now.
    pub(crate) fn ask(&mut self, now: Time) -> u64 {
        let number = self.next;
        self.next += 1;
        self.asked.retain(|_, at| now.since(*at) < self.length);
        self.asked.insert(number, now);
        self.last_asked = Some(now);
        // A copy answers only in the epoch that it promised: refused or not, the answer proves what a probe's would.
        self.await_probe(number);
        number
    }

    pub(crate) fn retry_at(&self) -> Option<Time> {
        self.last_asked.map(|at| at + RETRY)
    }

    /// Gives every lease up, those included that are asked for and not granted yet. The last number that does not
    /// count any more.
    pub(crate) fn release(&mut self) -> u64 {
        self.until.clear();
        self.asked.clear();
        self.last_asked = None;
        self.next - 1
    }

    pub(crate) fn granted(&mut self, from: ReplicaRef, number: u64) {
        if let Some(sent) = self.asked.get(&number) {
            let until = self.until.entry(from).or_default();
            *until = (*until).max(*sent + self.length);
        }
    }

    /// The number of the next probe: a read that comes now is proved by it or a later one.
    pub(crate) fn next_probe(&self) -> u64 {
        self.next
    }

    /// Whether a probe that was sent at or after `number` was answered by a quorum.
    pub(crate) fn proved(&self, number: u64) -> bool {
        self.confirmed >= number
    }

    pub(crate) fn probe(&mut self, now: Time) -> u64 {
        let number = self.next;
        self.next += 1;
        self.last_asked = Some(now);
        self.await_probe(number);
        number
    }

    fn await_probe(&mut self, number: u64) {
        self.probes.insert(number, BTreeSet::new());
        while self.probes.len() > PROBES_MOST {
            self.probes.pop_first();
        }
    }

    pub(crate) fn probed(&mut self, from: ReplicaRef, number: u64, quorum: usize) {
        let Some(replies) = self.probes.get_mut(&number) else { return };
        replies.insert(from);
        if replies.len() >= quorum {
            self.confirmed = self.confirmed.max(number);
            self.probes = self.probes.split_off(&(number + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_types::NodeId;
    fn copy(n: u16) -> ReplicaRef {
        ReplicaRef { node: NodeId(n), ..ReplicaRef::default() }
    }

    #[test]
    fn a_lease_counts_from_when_it_was_asked_for_and_is_shorter_by_the_drift() {
        let mut leases = Leases::new(Duration::from_secs(1), 10);
        let number = leases.ask(Time(0));
        leases.granted(copy(1), number);
        leases.granted(copy(2), number);
        assert!(leases.valid(Time(0) + Duration::from_millis(989), 2));
        assert!(!leases.valid(Time(0) + Duration::from_millis(990), 2));
    }

    #[test]
    fn after_a_release_nothing_that_was_asked_before_counts() {
        let mut leases = Leases::new(Duration::from_secs(1), 10);
        let (first, second) = (leases.ask(Time(0)), leases.ask(Time(0)));
        leases.granted(copy(1), first);
        leases.granted(copy(2), first);
        assert_eq!(leases.release(), second);
        leases.granted(copy(1), second);
        leases.granted(copy(2), second);
        assert!(!leases.valid(Time(1), 2), "the answer was on its way");
        let third = leases.ask(Time(1));
        leases.granted(copy(1), third);
        leases.granted(copy(2), third);
        assert!(leases.valid(Time(2), 2) && third > second);
    }

    #[test]
    fn one_copys_lease_is_no_quorum() {
        let mut leases = Leases::new(Duration::from_secs(1), 10);
        let number = leases.ask(Time(0));
        leases.granted(copy(1), number);
        leases.granted(copy(1), number);
        assert!(!leases.valid(Time(1), 2));
    }

    #[test]
    fn a_probe_sent_before_the_read_proves_nothing() {
        let mut leases = Leases::new(Duration::from_secs(1), 10);
        let early = leases.probe(Time(0));
        let read = leases.next_probe();
        leases.probed(copy(1), early, 2);
        leases.probed(copy(2), early, 2);
        assert!(leases.proved(early) && !leases.proved(read));
    }
}
