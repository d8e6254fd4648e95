//! Whether the device answers. One that hangs fails nothing: what it was ordered to do just does not come back, for seconds
//! or for good, and whoever waits for it waits as long. So a disk that owes an answer and gives none for a while is said to
//! be silent, and that it answers again; others are to serve meanwhile. Reads and writes are looked at apart: of a device
//! whose flush hangs, reads may come back.

use crate::api::{StoreEvent, StoreOutput};
use alloc::vec::Vec;
use holdfast_types::{Duration, Time};

/// A device that owes answers and gave none for so long is silent. One that is only slow gives one now and then.
pub const SILENT_AFTER: Duration = Duration::from_millis(1500);

/// What a device owes.
#[derive(Debug, Default)]
pub(crate) struct Silence {
    reads: Owed,
    writes: Owed,
    /// Since when it has been silent, if that was said.
    silent_since: Option<Time>,
    /// When to look. Not moved by every answer: whoever looks finds out whether there was one.
    look_at: Option<Time>,
}

/// Answers of one kind that are owed.
#[derive(Debug, Default)]
struct Owed {
    orders: usize,
    /// Any answer starts it anew.
    since: Option<Time>,
}

impl Silence {
    pub(crate) fn ordered(&mut self, is_read: bool) {
        self.of(is_read).orders += 1;
    }

    /// How long nothing of that kind had come back while some was owed.
    pub(crate) fn answered(&mut self, now: Time, is_read: bool, out: &mut Vec<StoreOutput>) -> Duration {
        let owed = self.of(is_read);
        owed.orders -= 1;
        let waited = owed.since.take().map_or(Duration::ZERO, |since| now.since(since));
        if let Some(since) = self.silent_since.filter(|_| !self.is_overdue(now)) {
            self.silent_since = None;
            out.push(StoreOutput::Event(StoreEvent::DiskAnswers { after: now.since(since) }));
        }
        waited
    }

    /// A burst has ended: from now on is waited for what is owed.
    pub(crate) fn burst_ended(&mut self, now: Time) {
        for owed in [&mut self.reads, &mut self.writes] {
            owed.since = (owed.orders > 0).then(|| owed.since.unwrap_or(now));
        }
        if self.silent_since.is_none() && self.since().is_some() {
            self.look_at.get_or_insert(now + SILENT_AFTER);
        }
    }

    pub(crate) fn next_timer(&self) -> Option<Time> {
        self.look_at.filter(|_| self.since().is_some())
    }

    pub(crate) fn timer(&mut self, now: Time, out: &mut Vec<StoreOutput>) {
        if self.look_at.is_none_or(|at| at > now) {
            return;
        }
        self.look_at = None;
        match self.since() {
            Some(since) if self.is_overdue(now) => {
                self.silent_since = Some(since);
                out.push(StoreOutput::Event(StoreEvent::DiskSilent { since }));
            }
            since => self.look_at = since.map(|since| since + SILENT_AFTER),
        }
    }

    pub(crate) fn is_silent(&self) -> bool {
        self.silent_since.is_some()
    }

    fn since(&self) -> Option<Time> {
        [self.reads.since, self.writes.since].into_iter().flatten().min()
    }

    fn is_overdue(&self, now: Time) -> bool {
        self.since().is_some_and(|since| now.since(since) >= SILENT_AFTER)
    }

    fn of(&mut self, is_read: bool) -> &mut Owed {
        if is_read { &mut self.reads } else { &mut self.writes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    const READ: bool = true;
    const WRITE: bool = false;

    fn ms(n: u64) -> Time {
        Time(n * 1_000_000)
    }

    /// What is said when the timer is called at its time, until then.
    fn run(silence: &mut Silence, until: u64) -> Vec<StoreOutput> {
        let mut out = Vec::new();
        while let Some(at) = silence.next_timer().filter(|at| *at <= ms(until)) {
            silence.timer(at, &mut out);
        }
        out
    }

    fn said(event: StoreEvent) -> Vec<StoreOutput> {
        vec![StoreOutput::Event(event)]
    }

    #[test]
    fn a_device_that_hangs_is_silent_once_and_answers_again_once() {
        let (mut silence, mut out) = (Silence::default(), Vec::new());
        silence.ordered(WRITE);
        silence.burst_ended(ms(1));
        assert_eq!(run(&mut silence, 1500), vec![]);
        assert_eq!(run(&mut silence, 20_000), said(StoreEvent::DiskSilent { since: ms(1) }));
        silence.ordered(READ);
        silence.burst_ended(ms(20_000));
        assert_eq!(run(&mut silence, 60_000), vec![]);
        assert!(silence.is_silent());
        silence.answered(ms(60_000), WRITE, &mut out);
        assert!(out.is_empty() && silence.is_silent(), "what was to be read is still owed");
        silence.answered(ms(60_001), READ, &mut out);
        assert_eq!(out, said(StoreEvent::DiskAnswers { after: ms(60_001).since(ms(1)) }));
        silence.burst_ended(ms(60_001));
        assert_eq!((run(&mut silence, 90_000), silence.next_timer()), (vec![], None), "it owes nothing");
    }

    #[test]
    fn a_device_that_is_slow_is_not_silent() {
        let (mut silence, mut out) = (Silence::default(), Vec::new());
        for at in (0..20_000).step_by(1400) {
            silence.ordered(WRITE);
            silence.ordered(WRITE);
            silence.burst_ended(ms(at));
            out.extend(run(&mut silence, at + 1400));
            silence.answered(ms(at + 1400), WRITE, &mut out);
            silence.burst_ended(ms(at + 1400));
        }
        assert_eq!(out, vec![]);
    }

    #[test]
    fn reads_that_come_back_do_not_hide_a_flush_that_hangs() {
        let (mut silence, mut out) = (Silence::default(), Vec::new());
        silence.ordered(WRITE);
        for at in (0..3000).step_by(100) {
            silence.ordered(READ);
            silence.burst_ended(ms(at));
            out.extend(run(&mut silence, at + 50));
            silence.answered(ms(at + 50), READ, &mut out);
            silence.burst_ended(ms(at + 50));
        }
        assert_eq!(out, said(StoreEvent::DiskSilent { since: ms(0) }));
    }
}
