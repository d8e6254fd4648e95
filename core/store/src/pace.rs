//! Whether the device keeps up. One that answers, but takes long for everything, fails nothing and is never silent; who waits for
//! it waits with each request. So the time that it takes is averaged over periods of a second, and of one that was slow in
//! half of the last ten is said that it is slow, and later that it keeps up again; others are to own what it holds meanwhile.
//!
//! Two times are looked at, each by what many requests at once do not make longer. Of the journal: from the order of a batch until
//! it is durable, since one batch is in flight at a time. Of reads: from one answer to the next while some are owed, which is
//! what a device takes for one, however many wait.

use crate::api::{StoreEvent, StoreOutput};
use alloc::vec::Vec;
use holdfast_types::{Duration, Time};

/// A device is slow in a period in which it takes so long on average. An idle hard disk writes and flushes in a fifth of it.
pub const SLOW_FROM: Duration = Duration::from_millis(100);
const PERIOD: Duration = Duration::from_secs(1);
/// Of the last [`LOOKED_AT`] periods, so many must be slow.
const SLOW_PERIODS: u32 = 5;
const LOOKED_AT: u32 = 10;
/// So many in a row must not be before it keeps up; twice as many each time that it was soon slow again.
pub const CLEAN_PERIODS: u32 = 30;
const CLEAN_MOST: u32 = 3600;
/// Soon: within so many periods.
const SOON: u32 = 600;

/// How a device does. Only periods in which it answered something count.
#[derive(Debug)]
pub(crate) struct Pace {
    ends: Time,
    journal: Mean,
    reads: Mean,
    /// A bit for each of the last periods, the newest lowest: whether it was slow.
    recent: u32,
    /// Periods since the last slow one.
    clean: u32,
    clean_needed: u32,
    slow_since: Option<Time>,
}

#[derive(Debug, Default)]
struct Mean {
    count: u64,
    time: Duration,
}

impl Mean {
    fn note(&mut self, took: Duration) {
        self.count += 1;
        self.time = self.time + took;
    }

    fn take(&mut self) -> Duration {
        let Mean { count, time } = core::mem::take(self);
        Duration(time.0 / count.max(1))
    }
}

impl Pace {
    pub(crate) fn new(now: Time) -> Self {
        let (journal, reads) = (Mean::default(), Mean::default());
        let ends = now + PERIOD;
        Self { ends, journal, reads, recent: 0, clean: SOON, clean_needed: CLEAN_PERIODS, slow_since: None }
    }

    /// A batch of the journal, or a superblock, is durable.
    pub(crate) fn wrote(&mut self, now: Time, took: Duration, out: &mut Vec<StoreOutput>) {
        self.journal.note(took);
        self.look(now, out);
    }

    /// A read came back. `waited`: how long nothing had while some were owed.
    pub(crate) fn read(&mut self, now: Time, waited: Duration, out: &mut Vec<StoreOutput>) {
        self.reads.note(waited);
        self.look(now, out);
    }

    /// Ends the period if it is over.
    fn look(&mut self, now: Time, out: &mut Vec<StoreOutput>) {
        if now < self.ends {
            return;
        }
        self.ends = now + PERIOD;
        let (journal, reads) = (self.journal.take(), self.reads.take());
        let takes = journal.max(reads);
        let is_slow = takes >= SLOW_FROM;
        // What takes seconds is slow in each of them; once, as after a stop of the process, is not often.
        let periods = (takes.0 / PERIOD.0).clamp(1, u64::from(SLOW_PERIODS) - 2);
        for _ in 0..periods {
            self.recent = (self.recent << 1 | u32::from(is_slow)) & ((1 << LOOKED_AT) - 1);
        }
        match self.slow_since {
            None if is_slow && self.recent.count_ones() >= SLOW_PERIODS => {
                let is_soon = self.clean < SOON;
                self.clean_needed =
                    if is_soon { (self.clean_needed * 2).min(CLEAN_MOST) } else { CLEAN_PERIODS };
                (self.slow_since, self.clean) = (Some(now), 0);
                out.push(StoreOutput::Event(StoreEvent::DiskSlow { journal, reads }));
            }
            Some(_) if is_slow => self.clean = 0,
            _ => self.clean = self.clean.saturating_add(1),
        }
        if let Some(since) = self.slow_since.filter(|_| self.clean >= self.clean_needed) {
            (self.slow_since, self.recent, self.clean) = (None, 0, 0);
            out.push(StoreOutput::Event(StoreEvent::DiskKeepsUp { after: now.since(since) }));
        }
    }

    pub(crate) fn is_slow(&self) -> bool {
        self.slow_since.is_some()
    }

    /// When to have it write something, if nothing else does before: a device that is slow and idle would stay so.
    pub(crate) fn probe_at(&self) -> Option<Time> {
        self.is_slow().then_some(self.ends + SLOW_FROM)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{vec, vec::Vec};

    const SLOW: u64 = 500;
    const FAST: u64 = 1;

    /// A device that is asked for a write each time that the one before is done; and what was said of it, with when.
    struct Rig {
        pace: Pace,
        now: Time,
        said: Vec<(u64, StoreEvent)>,
    }

    impl Rig {
        fn new() -> Self {
            Rig { pace: Pace::new(Time(0)), now: Time(0), said: Vec::new() }
        }

        fn writes(&mut self, ms: u64, seconds: u64) {
            self.each(ms, seconds * 1000, Pace::wrote);
        }

        fn each(
            &mut self,
            ms: u64,
            for_ms: u64,
            call: impl Fn(&mut Pace, Time, Duration, &mut Vec<StoreOutput>),
        ) {
            let until = self.now + Duration::from_millis(for_ms);
            while self.now < until {
                self.now += Duration::from_millis(ms);
                let mut out = Vec::new();
                call(&mut self.pace, self.now, Duration::from_millis(ms), &mut out);
                for output in out {
                    let StoreOutput::Event(event) = output else { panic!("{output:?}") };
                    self.said.push((self.now.0 / 1_000_000_000, event));
                }
            }
        }

        fn said(&mut self) -> Vec<(u64, StoreEvent)> {
            core::mem::take(&mut self.said)
        }
    }

    fn is_slow(journal: u64, reads: u64) -> StoreEvent {
        let ms = Duration::from_millis;
        StoreEvent::DiskSlow { journal: ms(journal), reads: ms(reads) }
    }

    fn keeps_up(after: u64) -> StoreEvent {
        StoreEvent::DiskKeepsUp { after: Duration::from_secs(after) }
    }

    #[test]
    fn a_device_is_slow_after_five_periods_and_keeps_up_after_thirty() {
        let mut rig = Rig::new();
        rig.writes(FAST, 20);
        assert_eq!(rig.said(), vec![]);
        rig.writes(SLOW, 40);
        assert_eq!(rig.said(), [(25, is_slow(SLOW, 0))]);
        rig.writes(FAST, 29);
        assert!(rig.pace.is_slow() && rig.said().is_empty());
        rig.writes(FAST, 2);
        assert_eq!(rig.said(), [(90, keeps_up(65))]);
    }

    #[test]
    fn writes_that_are_fast_do_not_hide_slow_reads() {
        let mut rig = Rig::new();
        for _ in 0..30 {
            rig.each(FAST, 100, Pace::wrote);
            rig.each(200, 200, Pace::read);
        }
        assert_eq!(rig.said(), [(5, is_slow(FAST, 200))]);
    }

    #[test]
    fn a_few_slow_periods_are_passed_over() {
        let mut rig = Rig::new();
        for _ in 0..10 {
            rig.writes(SLOW, 4);
            rig.writes(FAST, 7);
        }
        assert_eq!(rig.said(), vec![]);
    }

    #[test]
    fn a_device_that_gives_an_answer_in_a_second_and_a_half_is_slow_too() {
        let mut rig = Rig::new();
        rig.writes(1400, 30);
        assert_eq!(rig.said(), [(7, is_slow(1400, 0))]);
        let mut rig = Rig::new();
        rig.writes(2500, 30);
        assert_eq!(rig.said(), [(7, is_slow(2500, 0))]);
    }

    #[test]
    fn one_that_hung_once_is_not() {
        let mut rig = Rig::new();
        rig.writes(FAST, 20);
        rig.writes(60_000, 60);
        rig.writes(FAST, 60);
        assert_eq!(rig.said(), vec![]);
    }

    #[test]
    fn one_that_is_soon_slow_again_must_do_well_for_longer() {
        let mut rig = Rig::new();
        for clean in [30, 60, 120] {
            rig.writes(SLOW, 10);
            rig.writes(FAST, clean + 2);
            let said: Vec<StoreEvent> = rig.said().into_iter().map(|(_, event)| event).collect();
            assert!(
                matches!(said[..], [StoreEvent::DiskSlow { .. }, StoreEvent::DiskKeepsUp { .. }]),
                "{said:?}"
            );
            assert!(!rig.pace.is_slow());
        }
        rig.writes(FAST, 700);
        rig.writes(SLOW, 10);
        rig.writes(FAST, 32);
        assert_eq!(rig.said().len(), 2, "that was long ago");
    }

    #[test]
    fn an_idle_device_is_probed_only_while_it_is_slow() {
        let mut rig = Rig::new();
        rig.writes(FAST, 5);
        assert_eq!(rig.pace.probe_at(), None);
        rig.writes(SLOW, 6);
        assert!(rig.pace.probe_at().is_some_and(|at| at > rig.now));
    }
}
