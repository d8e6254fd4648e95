//! What the two slots of an extent's page tell when a disk is opened. A page is written to both the first time, and from then on
//! to one after the other: as long as an extent has a page, each of its slots has one of that extent. So a slot that tells
//! nothing, as it cannot be read or is damaged where it says whose it is, was of the extent that the other one names, and may
//! have been the newer one: that page is lost. Beside a blank slot it was in no use.
//!
//! What was being written when the last run ended is told by its sequence, as each batch says which pages were durable. A sound page
//! counts in any case, since the blocks that it tells of were durable before it was written; one that was torn says nothing that the
//! log does not have. Both are mended before the disk is used, so that the rule holds again.
//!
//! Disks that were formatted before superblocks of version 4 have pages in one slot only. There, what tells nothing was never written.

use crate::format::page::{Page, Remains};
use alloc::{boxed::Box, vec::Vec};
use holdfast_types::{ExtentIndex, SECTOR_BYTES, SegmentKey};

/// What a slot says.
#[derive(Debug)]
enum Said {
    Page(Box<Page>),
    /// It does not pass its checksum, but says whose it is.
    Remains(Remains),
    /// It says that it is nobody's: its first sector, which has the names, is zeros.
    Blank,
    Nothing,
}

impl Said {
    fn of(block: &[u8], nonce: u64) -> Self {
        if let Some(page) = Page::decode(block, nonce) {
            return Said::Page(page);
        }
        match Page::remains(block, nonce) {
            Some(remains) => Said::Remains(remains),
            None if block.iter().take(SECTOR_BYTES).all(|b| *b == 0) => Said::Blank,
            None => Said::Nothing,
        }
    }

    /// Whose extent it is of, in which life, and its sequence.
    fn name(&self) -> Option<((SegmentKey, u64, ExtentIndex), u64)> {
        match self {
            Said::Page(p) => Some(((p.key, p.life, p.extent), p.sequence)),
            Said::Remains(r) => Some(((r.key, r.life, r.extent), r.sequence)),
            Said::Blank | Said::Nothing => None,
        }
    }
}

/// What a slot is to be written over with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mend {
    Erase,
    /// What the other slot has.
    Copy,
}

/// What became of a page.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Judged {
    /// The page that counts, and its slot.
    pub found: Option<(bool, Box<Page>)>,
    /// Pages that were durable, or may have been, and are damaged.
    pub lost: Vec<Remains>,
    pub mends: Vec<(bool, Mend)>,
    /// The highest sequence of either slot.
    pub newest: u64,
    /// A slot cannot be read, and nothing tells whether it was in use, and whose it was.
    pub is_in_doubt: bool,
}

/// Judges a page by its two slots, each with whether it cannot be read. Pages up to `durable` were durable.
pub(crate) fn judge(slots: [(&[u8], bool); 2], nonce: u64, durable: u64, is_twin: bool) -> Judged {
    let [a, b] = slots.map(|(block, _)| Said::of(block, nonce));
    let is_unreadable = slots.map(|(_, is_unreadable)| is_unreadable);
    let mut judged = Judged::default();
    let sequence = |said: &Said| if let Said::Page(page) = said { page.sequence } else { 0 };
    let counts = sequence(&a).max(sequence(&b));
    judged.newest = [&a, &b].iter().filter_map(|said| said.name()).map(|(_, s)| s).max().unwrap_or(0);
    let is_same = match (a.name(), b.name()) {
        (Some((a, _)), Some((b, _))) => a == b,
        _ => false,
    };
    for (slot, said, other) in [(false, &a, &b), (true, &b, &a)] {
        let is_in_use = is_twin && matches!(other, Said::Nothing);
        let is_torn = |r: &Remains| r.sequence > counts.max(durable);
        match said {
            // It is older than the page that counts, and was to be written over: it does not matter what it said.
            Said::Remains(r) if r.sequence <= counts => {}
            Said::Remains(r) if r.sequence <= durable => judged.lost.push(*r),
            // Of the two that were there one is gone, and it may have been durable.
            Said::Remains(r) if is_in_use => judged.lost.push(Remains { has_blocks: true, ..*r }),
            Said::Remains(_) if is_same && matches!(other, Said::Page(_)) => {
                judged.mends.push((slot, Mend::Copy));
            }
            Said::Remains(_) => judged.mends.push((slot, Mend::Erase)),
            // What was being written over the page that counts is torn: that is told of above.
            Said::Page(_) if matches!(other, Said::Remains(r) if is_torn(r)) => {}
            Said::Page(page) if is_twin && !is_same && page.sequence == counts => {
                if page.sequence > durable {
                    judged.mends.push((!slot, Mend::Copy));
                } else {
                    let own = Remains::of(page);
                    judged.lost.push(Remains { has_blocks: own.has_blocks || is_in_use, ..own });
                }
            }
            Said::Nothing if is_unreadable[usize::from(slot)] => match other {
                Said::Blank if is_twin => judged.mends.push((slot, Mend::Erase)),
                _ => judged.is_in_doubt |= !is_twin || other.name().is_none(),
            },
            Said::Page(_) | Said::Blank | Said::Nothing => {}
        }
    }
    if is_same {
        judged.lost.truncate(1);
    }
    let (slot, newest) = if sequence(&a) > sequence(&b) { (false, a) } else { (true, b) };
    if let Said::Page(page) = newest {
        judged.found = Some((slot, page));
    }
    judged
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_types::{BLOCK_BYTES, Lsn};

    const NONCE: u64 = 7;
    const DURABLE: u64 = 10;

    fn page(extent: u32, sequence: u64) -> Box<Page> {
        let mut page = Page::empty(SegmentKey::default(), 1, ExtentIndex(extent));
        page.sequence = sequence;
        page.set(0, Lsn(sequence), Some(1));
        page
    }
    fn sound(extent: u32, sequence: u64) -> Vec<u8> {
        page(extent, sequence).encode(NONCE)
    }
    /// Damaged in its body, or where it says whose it is.
    fn damaged(extent: u32, sequence: u64, at: usize) -> Vec<u8> {
        let mut block = sound(extent, sequence);
        block[at] ^= 4;
        block
    }
    fn body(extent: u32, sequence: u64) -> Vec<u8> {
        damaged(extent, sequence, 3000)
    }
    fn blank() -> Vec<u8> {
        alloc::vec![0; BLOCK_BYTES]
    }
    fn nothing() -> Vec<u8> {
        alloc::vec![0xff; BLOCK_BYTES]
    }

    /// The extent and sequence that count, those lost, what is mended: the same whichever slot is which.
    type Outcome = (Option<(u32, u64)>, Vec<(u32, u64)>, Vec<(bool, Mend)>);
    fn outcome(a: &[u8], b: &[u8]) -> Outcome {
        let [one, other] = [(a, b, false), (b, a, true)].map(|(a, b, turned)| {
            let judged = judge([(a, false), (b, false)], NONCE, DURABLE, true);
            assert!(!judged.is_in_doubt);
            let mut mends: Vec<(bool, Mend)> =
                judged.mends.into_iter().map(|(slot, mend)| (slot ^ turned, mend)).collect();
            mends.sort_by_key(|m| m.0);
            let named = |r: Remains| (r.extent.0, r.sequence);
            (
                judged.found.map(|(_, p)| (p.extent.0, p.sequence)),
                judged.lost.into_iter().map(named).collect(),
                mends,
            )
        });
        assert_eq!(one, other, "it matters which slot is which");
        one
    }

    #[test]
    fn the_newer_page_counts_and_what_was_torn_is_mended() {
        use Mend::{Copy, Erase};
        let cases: [(&str, Vec<u8>, Vec<u8>, Outcome); 12] = [
            ("in no use", blank(), blank(), (None, Vec::new(), Vec::new())),
            ("both sound", sound(1, 5), sound(1, 6), (Some((1, 6)), Vec::new(), Vec::new())),
            ("as at first", sound(1, 5), sound(1, 5), (Some((1, 5)), Vec::new(), Vec::new())),
            (
                "the older one was being written over",
                body(1, 4),
                sound(1, 6),
                (Some((1, 6)), Vec::new(), Vec::new()),
            ),
            (
                "the newer one is torn",
                body(1, 11),
                sound(1, 6),
                (Some((1, 6)), Vec::new(), Vec::from([(false, Copy)])),
            ),
            ("first one torn", body(1, 11), blank(), (None, Vec::new(), Vec::from([(false, Erase)]))),
            (
                "first one missing",
                blank(),
                sound(1, 11),
                (Some((1, 11)), Vec::new(), Vec::from([(false, Copy)])),
            ),
            (
                "first one torn where the names are",
                nothing(),
                sound(1, 11),
                (Some((1, 11)), Vec::new(), Vec::from([(false, Copy)])),
            ),
            (
                "first one over waste",
                sound(2, 5),
                sound(1, 11),
                (Some((1, 11)), Vec::new(), Vec::from([(false, Copy)])),
            ),
            (
                "first one torn over waste",
                sound(2, 5),
                body(1, 11),
                (Some((2, 5)), Vec::new(), Vec::from([(true, Erase)])),
            ),
            (
                "both slots torn",
                body(1, 11),
                body(1, 11),
                (None, Vec::new(), Vec::from([(false, Erase), (true, Erase)])),
            ),
            ("never written", nothing(), nothing(), (None, Vec::new(), Vec::new())),
        ];
        for (what, a, b, expected) in cases {
            assert_eq!(outcome(&a, &b), expected, "{what}");
        }
    }

    #[test]
    fn what_was_durable_and_is_damaged_is_lost_wherever_the_damage_is() {
        for at in 0..BLOCK_BYTES {
            let (found, lost, mends) = outcome(&damaged(1, 6, at), &sound(1, 5));
            assert_eq!((found, mends), (Some((1, 5)), Vec::new()), "byte {at}");
            assert!(lost == [(1, 6)] || lost == [(1, 5)], "byte {at}: {lost:?}");
        }
        assert_eq!(outcome(&body(1, 6), &blank()).1, [(1, 6)]);
        assert_eq!(outcome(&body(1, 11), &nothing()).1, [(1, 11)]);
        // Written to one slot, and the other one is somebody's or nobody's.
        assert_eq!(outcome(&blank(), &sound(1, 6)).1, [(1, 6)]);
        assert_eq!(outcome(&sound(2, 5), &sound(1, 6)).1, [(1, 6)]);
    }

    #[test]
    fn an_unreadable_slot_is_of_the_extent_that_the_other_one_names() {
        let judged =
            |other: &[u8], is_twin| judge([(&nothing(), true), (other, false)], NONCE, DURABLE, is_twin);
        let lost: Vec<ExtentIndex> = judged(&sound(1, 5), true).lost.iter().map(|r| r.extent).collect();
        assert_eq!(lost, [ExtentIndex(1)]);
        assert_eq!(judged(&sound(1, 11), true).mends, [(false, Mend::Copy)]);
        let unused = judged(&blank(), true);
        assert_eq!((unused.is_in_doubt, unused.mends), (false, Vec::from([(false, Mend::Erase)])));
        assert!(judged(&nothing(), true).is_in_doubt);
        // In one slot only it may have been the only one that was written, or waste is in the other one.
        assert!(judged(&blank(), false).is_in_doubt && judged(&sound(1, 5), false).is_in_doubt);
    }

    #[test]
    fn a_page_of_tombstones_that_was_being_erased_is_told_as_one() {
        let mut page = Page::empty(SegmentKey::default(), 1, ExtentIndex(1));
        page.sequence = 6;
        page.set(0, Lsn(3), None);
        let judged = judge([(&blank(), false), (&page.encode(NONCE), false)], NONCE, DURABLE, true);
        assert_eq!(judged.lost, [Remains::of(&page)]);
        assert!(!judged.lost[0].has_blocks);
    }

    #[test]
    fn of_an_earlier_formatting_pages_are_in_one_slot() {
        for other in [blank(), nothing(), sound(2, 3)] {
            let judged = judge([(&sound(1, 6), false), (&other, false)], NONCE, DURABLE, false);
            assert_eq!(
                (judged.found, judged.lost, judged.mends),
                (Some((false, page(1, 6))), Vec::new(), Vec::new())
            );
        }
    }
}
