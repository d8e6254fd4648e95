//! Room in the journal ring: where the next batch goes, and which batches are still needed. It writes nothing.
//!
//! Two ends matter: the tail is the oldest batch that is needed; the hint is the one from which the superblock
//! says to read, at or before the tail. Only what lies before the hint may be overwritten.

use crate::layout::BLOCK;
use alloc::collections::VecDeque;
use core::ops::Range;

/// A batch's number and where it lies on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Counts up by one from batch to batch.
    pub sequence: u64,
    /// In bytes from the disk's start.
    pub offset: u64,
}

#[derive(Clone, Copy, Debug)]
struct Span {
    place: Place,
    len: u64,
    /// Bytes of the ring that are used up to its end, counted since the ring was made or opened.
    end_total: u64,
    /// What the batches before it tell of that lies elsewhere, counted likewise.
    elsewhere_before: u64,
}

/// The ring's state.
#[derive(Debug)]
pub(crate) struct Ring {
    area: Range<u64>,
    spans: VecDeque<Span>,
    tail: u64,
    next: Place,
    total: u64,
    elsewhere: u64,
}

impl Ring {
    /// An empty ring whose next batch is `next`.
    pub(crate) fn new(area: Range<u64>, next: Place) -> Self {
        debug_assert!(area.contains(&next.offset));
        Self { area, spans: VecDeque::new(), tail: next.sequence, next, total: 0, elsewhere: 0 }
    }

    /// Bytes of the ring.
    pub(crate) fn capacity(&self) -> u64 {
        self.area.end - self.area.start
    }
    /// The next batch's number, and where the last one ended.
    pub(crate) fn next(&self) -> Place {
        self.next
    }
    /// The oldest batch that is needed.
    pub(crate) fn tail(&self) -> Place {
        self.span(self.tail).map_or(self.next, |s| s.place)
    }
    /// Bytes written since the ring was made or opened, padding and data that lies elsewhere included.
    pub(crate) fn total(&self) -> u64 {
        self.total + self.elsewhere
    }

    fn span(&self, sequence: u64) -> Option<&Span> {
        let first = self.spans.front()?.place.sequence;
        self.spans.get(sequence.checked_sub(first)? as usize)
    }
    fn start_total(&self, sequence: u64) -> u64 {
        self.span(sequence).map_or(self.total, |s| s.end_total - s.len)
    }

    /// Bytes from the tail on.
    pub(crate) fn used(&self) -> u64 {
        self.total - self.start_total(self.tail)
    }
    /// Bytes that batches from the tail on tell of: their own, and those of data that lies elsewhere.
    pub(crate) fn told(&self) -> u64 {
        let before = self.span(self.tail).map_or(self.elsewhere, |s| s.elsewhere_before);
        self.used() + self.elsewhere - before
    }
    /// Bytes that the superblock keeps although nobody needs them.
    pub(crate) fn reclaimable(&self) -> u64 {
        match self.spans.front() {
            Some(first) => self.start_total(self.tail) - (first.end_total - first.len),
            None => 0,
        }
    }

    /// Contiguous room where the last batch ended, and at the ring's start.
    fn rooms(&self) -> (u64, u64) {
        let head = self.next.offset;
        match self.spans.front() {
            None => (self.area.end - head, head - self.area.start),
            // One block stays free, so that a full ring is not taken for an empty one.
            Some(first) if first.place.offset < head => {
                (self.area.end - head, (first.place.offset - self.area.start).saturating_sub(BLOCK))
            }
            Some(first) => ((first.place.offset - head).saturating_sub(BLOCK), 0),
        }
    }

    /// The longest batch that can be written now.
    pub(crate) fn room(&self) -> u64 {
        let (here, start) = self.rooms();
        here.max(start)
    }

    /// Where a batch of `len` bytes would go.
    pub(crate) fn place(&self, len: u64) -> Option<Place> {
        let (here, start) = self.rooms();
        if len <= here {
            Some(self.next)
        } else if len <= start {
            Some(Place { sequence: self.next.sequence, offset: self.area.start })
        } else {
            None
        }
    }

    /// What is left out at the ring's end when a batch goes to `place`, and the one before it ended at `end`.
    fn padding(&self, end: Place, place: Place) -> u64 {
        if place.offset == end.offset { 0 } else { self.area.end - end.offset }
    }

    /// Takes the room that [`Ring::place`] named. Also used to tell the ring what was found on the disk.
    pub(crate) fn take(&mut self, place: Place, len: u64) {
        assert_eq!(place.sequence, self.next.sequence, "batches follow each other");
        let padding = self.padding(self.next, place);
        if let (true, Some(last)) = (padding > 0, self.spans.back_mut()) {
            last.len += padding;
            last.end_total += padding;
        }
        self.total += padding + len;
        self.spans.push_back(Span { place, len, end_total: self.total, elsewhere_before: self.elsewhere });
        let end = place.offset + len;
        let offset = if end == self.area.end { self.area.start } else { end };
        self.next = Place { sequence: place.sequence + 1, offset };
    }

    /// The last batch tells of so many bytes that lie elsewhere.
    pub(crate) fn tells_of(&mut self, elsewhere: u64) {
        self.elsewhere += elsewhere;
    }

    /// Undoes the last [`Ring::take`], before which the next batch was `next`.
    pub(crate) fn give_back(&mut self, next: Place) {
        let Some(span) = self.spans.pop_back() else { return };
        let padding = self.padding(next, span.place);
        if let (true, Some(last)) = (padding > 0, self.spans.back_mut()) {
            last.len -= padding;
            last.end_total -= padding;
        }
        self.total -= padding + span.len;
        self.elsewhere = span.elsewhere_before;
        self.next = next;
    }

    /// The first batch such that it and all later ones hold at most `bytes`.
    pub(crate) fn within(&self, bytes: u64) -> u64 {
        self.first(|s| self.total - (s.end_total - s.len) <= bytes)
    }

    /// The first batch such that it and all later ones tell of at most `bytes`.
    pub(crate) fn telling_of(&self, bytes: u64) -> u64 {
        let from = |s: &Span| self.total - (s.end_total - s.len) + self.elsewhere - s.elsewhere_before;
        self.first(|s| from(s) <= bytes)
    }

    /// The first batch of which this holds, as it does of all later ones.
    fn first(&self, holds: impl Fn(&Span) -> bool) -> u64 {
        let at = self.spans.partition_point(|s| !holds(s));
        self.spans.get(at).map_or(self.next.sequence, |s| s.place.sequence)
    }

    /// Batches before `sequence` are needed no more. The last one always is: reading starts somewhere.
    pub(crate) fn advance_tail(&mut self, sequence: u64) {
        let last = self.spans.back().map_or(self.next.sequence, |s| s.place.sequence);
        self.tail = self.tail.max(sequence.min(last));
    }

    /// The superblock now says to read from `hint`.
    pub(crate) fn advance_hint(&mut self, hint: Place) {
        debug_assert!(hint.sequence <= self.tail);
        while self.spans.front().is_some_and(|s| s.place.sequence < hint.sequence) {
            self.spans.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    fn ring() -> Ring {
        Ring::new(0x10000..0x20000, Place { sequence: 1, offset: 0x10000 })
    }
    fn put(ring: &mut Ring, len: u64) -> Option<u64> {
        let place = ring.place(len)?;
        ring.take(place, len);
        Some(place.offset)
    }

    #[test]
    fn batches_follow_each_other_until_the_ring_is_full() {
        let mut r = ring();
        for i in 0..15 {
            assert_eq!(put(&mut r, 0x1000), Some(0x10000 + i * 0x1000));
        }
        assert_eq!(put(&mut r, 0x1000), Some(0x1f000));
        assert_eq!(put(&mut r, 0x1000), None);
        assert_eq!((r.used(), r.room()), (0x10000, 0));
    }

    #[test]
    fn what_is_given_back_was_never_taken() {
        let mut r = ring();
        // The third does not fit before the end.
        for len in [0x6000, 0x9000, 0x3000] {
            let (before, next) = (format!("{r:?}"), r.next());
            put(&mut r, len).expect("there is room");
            r.tells_of(0x20000);
            r.give_back(next);
            assert_eq!(format!("{r:?}"), before);
            put(&mut r, len);
            r.advance_tail(2);
            r.advance_hint(r.tail());
        }
        assert_eq!(r.next().offset, 0x13000);
    }

    #[test]
    fn data_that_lies_elsewhere_counts_for_what_is_told_and_takes_no_room() {
        let mut r = ring();
        for _ in 0..4 {
            put(&mut r, 0x1000);
            r.tells_of(0x20000);
        }
        assert_eq!((r.used(), r.told(), r.total()), (0x4000, 0x84000, 0x84000));
        assert_eq!([0x84000, 0x83fff, 0x42000, 0x21000, 0].map(|b| r.telling_of(b)), [1, 2, 3, 4, 5]);
        r.advance_tail(3);
        assert_eq!((r.used(), r.told()), (0x2000, 0x42000));
    }

    #[test]
    fn a_batch_that_does_not_fit_before_the_end_goes_to_the_start() {
        let mut r = ring();
        put(&mut r, 0x6000);
        put(&mut r, 0x6000);
        r.advance_tail(2);
        assert_eq!(put(&mut r, 0x5000), None, "the superblock still points there");
        assert_eq!(r.reclaimable(), 0x6000);
        r.advance_hint(r.tail());
        assert_eq!((r.tail(), r.reclaimable()), (Place { sequence: 2, offset: 0x16000 }, 0));
        assert_eq!(put(&mut r, 0x5000), Some(0x10000));
        assert_eq!(r.used(), 0x6000 + 0x4000 + 0x5000, "what was skipped is used, too");
        assert_eq!(put(&mut r, 0x1000), None, "a block stays free");
    }

    #[test]
    fn the_last_batch_is_always_kept() {
        let mut r = ring();
        put(&mut r, 0x1000);
        put(&mut r, 0x2000);
        r.advance_tail(u64::MAX);
        assert_eq!(r.tail().sequence, 2);
        r.advance_hint(r.tail());
        assert_eq!(r.used(), 0x2000);
    }

    #[test]
    fn the_batches_of_the_last_bytes_are_found() {
        let mut r = ring();
        for _ in 0..5 {
            put(&mut r, 0x1000);
        }
        assert_eq!((r.within(0), r.within(0x1000), r.within(0x2fff), r.within(0x100000)), (6, 5, 4, 1));
    }
}
