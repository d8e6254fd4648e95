//! When to wake which machine. Each machine says when it next wants to be woken; this keeps the earliest
//! first, so that a node with thousands of idle segments does nothing.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use holdfast_types::{ConnectionId, DiskId, SegmentKey, Time};

/// A machine that may want to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Machine {
    /// The owner of a segment.
    Owner(SegmentKey),
    /// A segment's replica on a disk.
    Replica(SegmentKey, DiskId),
    /// A disk's store.
    Store(DiskId),
    /// An initiator's session.
    Session(ConnectionId),
    /// The gateway's retries.
    Gateway,
    /// The measure of where a segment's I/O comes from.
    Follow,
}

/// The earliest wish of each machine.
#[derive(Debug, Default)]
pub struct Timers {
    by_machine: BTreeMap<Machine, Time>,
    by_time: BTreeSet<(Time, Machine)>,
}

impl Timers {
    /// Notes when `machine` next wants to be woken, in place of what it wanted before.
    pub fn set(&mut self, machine: Machine, at: Option<Time>) {
        let before = match at {
            Some(at) => self.by_machine.insert(machine, at),
            None => self.by_machine.remove(&machine),
        };
        if before == at {
            return;
        }
        if let Some(before) = before {
            self.by_time.remove(&(before, machine));
        }
        if let Some(at) = at {
            self.by_time.insert((at, machine));
        }
    }

    /// When the first machine wants to be woken.
    pub fn next(&self) -> Option<Time> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Takes out every machine whose time has come, earliest first.
    pub fn take_due(&mut self, now: Time) -> Vec<Machine> {
        let mut due = Vec::new();
        while let Some(&(at, machine)) = self.by_time.first() {
            if at > now {
                break;
            }
            self.by_time.remove(&(at, machine));
            self.by_machine.remove(&machine);
            due.push(machine);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_wish_replaces_an_earlier_one() {
        let mut timers = Timers::default();
        timers.set(Machine::Gateway, Some(Time(5)));
        timers.set(Machine::Gateway, Some(Time(9)));
        assert_eq!(timers.next(), Some(Time(9)));
        assert!(timers.take_due(Time(8)).is_empty());
        assert_eq!(timers.take_due(Time(9)), [Machine::Gateway]);
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn a_withdrawn_wish_wakes_nobody() {
        let mut timers = Timers::default();
        timers.set(Machine::Follow, Some(Time(1)));
        timers.set(Machine::Follow, None);
        assert!(timers.take_due(Time(100)).is_empty());
    }
}
