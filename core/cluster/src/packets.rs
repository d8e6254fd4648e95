//! Whether the way to a node loses packets, by what the kernel had to send it again.
//!
//! A cable, a transceiver or a port that is about to fail lets most packets through, and each that it drops costs whoever
//! waits for it 200 ms or more. No silence shows that, so the packets on the connection of heartbeats are counted,
//! whose number does not depend on load: some 22 in a second. Losses count by the half seconds that have any: what
//! drops many packets at once, and is over, loses no more than that.

use alloc::collections::VecDeque;
use holdfast_types::{Duration, Packets, Time};

const PERIOD: Duration = Duration::from_millis(500);
/// The periods that are looked at: 30 seconds.
const PERIODS: u64 = 60;
/// So many of them with losses: the way loses packets. With one in ten lost that takes 4 seconds; of one in two hundred
/// it is as good as nothing.
const LOSSY_FROM: usize = 5;
/// No more than so many: it does not.
const CLEAN_TO: usize = 1;

/// See the module's text.
#[derive(Clone, Debug, Default)]
pub(crate) struct PacketLoss {
    /// By the number of the period, the oldest first.
    periods: VecDeque<(u64, Packets)>,
    is_lossy: bool,
}

impl PacketLoss {
    /// So many were counted since the last time.
    pub(crate) fn counted(&mut self, now: Time, packets: Packets) {
        let period = now.0 / PERIOD.0;
        match self.periods.back_mut() {
            Some((newest, of_it)) if *newest >= period => *of_it = of_it.and(packets),
            _ => self.periods.push_back((period, packets)),
        }
    }

    /// Looks at the clock and at what was counted. Whether the way is another one in that.
    pub(crate) fn look(&mut self, now: Time) -> bool {
        let first = (now.0 / PERIOD.0 + 1).saturating_sub(PERIODS);
        while self.periods.front().is_some_and(|(period, _)| *period < first) {
            self.periods.pop_front();
        }
        let with_losses = self.periods.iter().filter(|(_, packets)| packets.lost > 0).count();
        let is_lossy = with_losses > if self.is_lossy { CLEAN_TO } else { LOSSY_FROM - 1 };
        core::mem::replace(&mut self.is_lossy, is_lossy) != is_lossy
    }

    /// What was sent lately and what became of it, if the way loses packets.
    pub(crate) fn lossy(&self) -> Option<Packets> {
        self.is_lossy.then(|| self.periods.iter().fold(Packets::default(), |sum, (_, p)| sum.and(*p)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF: u64 = 500_000_000;

    fn lost(lost: u32) -> Packets {
        Packets { sent: 11, lost }
    }

    /// Half seconds with so many lost in each, after those before; when it was lossy first and clean first again.
    fn run(loss: &mut PacketLoss, from: u64, to: u64, losses: impl Fn(u64) -> u32) -> Option<u64> {
        (from..to).find(|n| {
            loss.counted(Time(n * HALF), lost(losses(*n)));
            loss.look(Time(n * HALF))
        })
    }

    #[test]
    fn steady_loss_is_found_within_seconds_and_forgotten_half_a_minute_after_it_ends() {
        let mut loss = PacketLoss::default();
        assert_eq!(run(&mut loss, 0, 100, |_| 0), None);
        assert_eq!(run(&mut loss, 100, 200, |_| 1), Some(104), "two and a half seconds");
        assert_eq!(loss.lossy(), Some(Packets { sent: 60 * 11, lost: 5 }));
        assert_eq!(run(&mut loss, 105, 110, |_| 1), None);
        assert_eq!(run(&mut loss, 110, 300, |_| 0), Some(109 + 59), "the last but one leaves the window");
    }

    #[test]
    fn a_burst_is_no_steady_loss() {
        let mut loss = PacketLoss::default();
        // What is sent again and again after a pause that doubles: four times in three seconds.
        assert_eq!(run(&mut loss, 0, 60, |n| if [10, 11, 13, 16].contains(&n) { 7 } else { 0 }), None);
        assert_eq!(run(&mut loss, 100, 300, |n| u32::from(n % 15 == 0)), None, "four in thirty seconds");
    }

    #[test]
    fn with_nothing_sent_any_more_it_ends_too() {
        let mut loss = PacketLoss::default();
        assert_eq!(run(&mut loss, 0, 10, |_| 1), Some(4));
        assert!(loss.look(Time(33 * 2 * HALF)));
        assert_eq!(loss.lossy(), None);
        assert!(loss.periods.is_empty(), "no memory is kept");
    }
}
