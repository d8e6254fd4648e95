//! The numbers that both sides keep: StatSN of what the target says, and the window of command numbers that
//! the initiator may use.
//!
//! Source: RFC 7143 4.2.2.

use crate::pdu::Header;

/// How many commands the initiator may have at the target at once.
pub(crate) const QUEUE_DEPTH: u32 = 128;

/// What is to become of a command with a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// It is next.
    InOrder,
    /// It is outside of the window: to be ignored.
    Outside,
    /// One before it is missing, and on one ordered connection will not come.
    Gap,
}

/// The numbers of one connection.
#[derive(Debug)]
pub(crate) struct Sequence {
    stat_sn: u32,
    expected: u32,
    max: u32,
}

impl Sequence {
    /// From the command number of the login.
    pub(crate) fn new(command_sn: u32) -> Self {
        Self { stat_sn: 1, expected: command_sn, max: command_sn.wrapping_add(QUEUE_DEPTH - 1) }
    }

    //= RFC 7143 4.2.2.1
    /// Judges a command's number, and counts it when it is next. An immediate command has no number of its own.
    pub(crate) fn arrived(&mut self, command_sn: u32, immediate: bool) -> Arrival {
        if immediate {
            return Arrival::InOrder;
        }
        let ahead = command_sn.wrapping_sub(self.expected);
        // Compared as RFC 1982 does; an empty window lies behind `expected`.
        let room = self.max.wrapping_add(1).wrapping_sub(self.expected);
        if ahead >= room {
            return Arrival::Outside;
        }
        if ahead > 0 {
            return Arrival::Gap;
        }
        self.expected = self.expected.wrapping_add(1);
        Arrival::InOrder
    }

    /// Opens the window for as many commands as there is room; it never closes again by itself.
    pub(crate) fn open(&mut self, room: u32) {
        let max = self.expected.wrapping_add(room.min(QUEUE_DEPTH)).wrapping_sub(1);
        if (max.wrapping_sub(self.max) as i32) > 0 {
            self.max = max;
        }
    }

    /// Puts the numbers into a PDU that has a status number of its own.
    pub(crate) fn stamp(&mut self, header: &mut Header) {
        self.stamp_without_status(header);
        header.set_u32(24, self.stat_sn);
        self.stat_sn = self.stat_sn.wrapping_add(1);
    }

    /// Puts the numbers into a PDU that shows the next status number and does not use it.
    pub(crate) fn stamp_unnumbered(&mut self, header: &mut Header) {
        self.stamp_without_status(header);
        header.set_u32(24, self.stat_sn);
    }

    /// Puts the numbers into a PDU that has no status number.
    pub(crate) fn stamp_without_status(&mut self, header: &mut Header) {
        header.set_u32(28, self.expected);
        header.set_u32(32, self.max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_count_across_the_end_of_the_number_space() {
        let mut sequence = Sequence::new(u32::MAX);
        assert_eq!(sequence.arrived(u32::MAX, false), Arrival::InOrder);
        assert_eq!(sequence.arrived(0, false), Arrival::InOrder);
        assert_eq!(sequence.arrived(0, false), Arrival::Outside, "a repeat is ignored");
        assert_eq!(sequence.arrived(2, false), Arrival::Gap);
    }

    #[test]
    fn a_full_window_takes_nothing_until_it_is_opened() {
        let mut sequence = Sequence::new(10);
        for sn in 10..10 + QUEUE_DEPTH {
            assert_eq!(sequence.arrived(sn, false), Arrival::InOrder);
        }
        let next = 10 + QUEUE_DEPTH;
        assert_eq!(sequence.arrived(next, false), Arrival::Outside);
        sequence.open(0);
        assert_eq!(sequence.arrived(next, false), Arrival::Outside);
        sequence.open(1);
        assert_eq!(sequence.arrived(next, false), Arrival::InOrder);
    }

    #[test]
    fn an_immediate_command_takes_no_number() {
        let mut sequence = Sequence::new(5);
        assert_eq!(sequence.arrived(5, true), Arrival::InOrder);
        assert_eq!(sequence.arrived(5, false), Arrival::InOrder);
    }
}
