//! Reads (replication.md §1, "read"): from the own copy, once its store was told of everything that was committed
//! when the read came; then a proof, after the data was read, that no newer owner exists: leases of w(S) copies or
//! an answer of w(S) copies to a question asked after the read came. Any number may be under way.

use super::requests::Waiting;
use super::{Owner, OwnerOutput, StoreUse};
use crate::config::ReadCheck;
use crate::message::{Body, SegmentOp, SegmentResult};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use bytes::{Bytes, BytesMut};
use holdfast_types::{
    BLOCK_BYTES, BlockError, BlockIndex, BlockRange, BlockReply, Lsn, NodeId, ReplicaRef, RequestId,
    StatusRange, StoreOrder, StoreOutcome, StoreRefusal, Time,
};

/// What blocks are read for.
#[derive(Clone, Debug)]
pub(crate) enum Purpose {
    /// To answer a request: bytes `offset`.. `offset` + `len` of the segment.
    Data { to: NodeId, id: RequestId, offset: u64, len: u64 },
    /// To answer which parts hold data.
    Status { to: NodeId, id: RequestId, offset: u64, len: u64 },
    /// To merge a ragged write, or to compare.
    Merge { block: BlockIndex },
}

/// A read of blocks under way.
#[derive(Clone, Debug)]
pub(crate) struct BlockRead {
    pub(crate) range: BlockRange,
    pub(crate) purpose: Purpose,
    /// Everything up to here was committed when it came.
    min: Lsn,
    /// The probe that proves it, where leases do not.
    probe: u64,
    /// Blocks of it that were damaged on the own copy were repaired this often.
    repairs: u32,
}

impl BlockRead {
    /// Who waits for it, if it is not for this owner itself.
    pub(crate) fn asked_by(&self) -> Option<(NodeId, RequestId)> {
        match self.purpose {
            Purpose::Data { to, id, .. } | Purpose::Status { to, id, .. } => Some((to, id)),
            Purpose::Merge { .. } => None,
        }
    }
}

/// An answer that waits for its proof.
#[derive(Debug)]
struct Proving {
    to: NodeId,
    id: RequestId,
    result: SegmentResult,
    probe: u64,
}

/// The reads of an owner.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    /// Wait until the own copy's store knows what they must see.
    waiting: VecDeque<BlockRead>,
    proving: Vec<Proving>,
    /// The own store cannot answer them any more: they wait for the next owner.
    stranded: Vec<BlockRead>,
    /// Reads whose store order is under way.
    ordered: usize,
}

/// A read whose own blocks are damaged again and again after a repair is given up.
const REPAIRS_MOST: u32 = 3;

impl Reads {
    /// Those to be answered, when the owner ends, besides those at the store.
    pub(crate) fn take_all(&mut self) -> Vec<(NodeId, RequestId)> {
        let waiting: Vec<_> = self.waiting.drain(..).chain(self.stranded.drain(..)).collect();
        let waiting = waiting.iter().filter_map(BlockRead::asked_by);
        waiting.chain(self.proving.drain(..).map(|p| (p.to, p.id))).collect()
    }
    fn busy(&self) -> bool {
        !self.proving.is_empty() || !self.waiting.is_empty() || self.ordered > 0
    }
}

impl Owner {
    pub(super) fn read_request(&mut self, now: Time, waiting: Waiting, out: &mut Vec<OwnerOutput>) {
        let (to, id) = (waiting.to, waiting.request.id);
        let (offset, len) = waiting.request.op.span();
        let purpose = match waiting.request.op {
            SegmentOp::Status { .. } => Purpose::Status { to, id, offset, len },
            _ => Purpose::Data { to, id, offset, len },
        };
        self.read_blocks(now, BlockRange::covering(offset, len), purpose, out);
    }

    /// Reads blocks of the committed state as it is now, or newer.
    pub(super) fn read_blocks(
        &mut self,
        now: Time,
        range: BlockRange,
        purpose: Purpose,
        out: &mut Vec<OwnerOutput>,
    ) {
        let (min, probe) = (self.commit, self.leases.next_probe());
        self.reads.waiting.push_back(BlockRead { range, purpose, min, probe, repairs: 0 });
        self.start_reads(now, out);
    }

    /// Gives the store what it can answer now. A lease is asked for meanwhile.
    pub(super) fn start_reads(&mut self, now: Time, out: &mut Vec<OwnerOutput>) {
        let own = self.copies.get(&self.own).map_or(Lsn(0), |c| c.committed);
        while self.reads.waiting.front().is_some_and(|r| r.min <= own) {
            let Some(read) = self.reads.waiting.pop_front() else { break };
            let order = match read.purpose {
                Purpose::Status { .. } => StoreOrder::Status { range: read.range },
                Purpose::Data { .. } | Purpose::Merge { .. } => StoreOrder::Read { range: read.range },
            };
            self.reads.ordered += 1;
            self.store(StoreUse::Read(read), order, out);
        }
        if self.config.reads == ReadCheck::Lease {
            self.ask_leases(now, out);
        }
    }

    pub(super) fn read_done(
        &mut self,
        now: Time,
        mut read: BlockRead,
        outcome: StoreOutcome,
        out: &mut Vec<OwnerOutput>,
    ) {
        self.reads.ordered = self.reads.ordered.saturating_sub(1);
        match outcome {
            StoreOutcome::Read { data } => self.read_content(now, read, data, out),
            StoreOutcome::Status { runs } => {
                let Purpose::Status { to, id, offset, len } = read.purpose else { return };
                let ranges = clip(read.range, &runs, offset, len);
                self.prove(now, to, id, SegmentResult::Ok(BlockReply::Status(ranges)), read.probe, out);
            }
            StoreOutcome::BadBlocks { blocks } if read.repairs < REPAIRS_MOST => {
                read.repairs += 1;
                self.repair(now, self.own, blocks, Some(read), out);
            }
            StoreOutcome::Refused(StoreRefusal::Failed | StoreRefusal::Incomplete) if self.set.len() > 1 => {
                // Another node is to serve (`stuck.rs`), and the read is sent there.
                if let Some(own) = self.copies.get_mut(&self.own) {
                    own.lost = true;
                }
                self.reads.stranded.push(read);
            }
            _ => self.read_failed(now, read, out),
        }
    }

    /// No copy has what was to be read.
    pub(super) fn read_failed(&mut self, now: Time, read: BlockRead, out: &mut Vec<OwnerOutput>) {
        match read.purpose {
            Purpose::Data { to, id, .. } | Purpose::Status { to, id, .. } => {
                self.reply(to, id, SegmentResult::Failed(BlockError::Unreadable), out);
            }
            Purpose::Merge { block } => self.merge_read(now, block, None, out),
        }
    }

    /// The damaged blocks of a read were replaced: it is read again.
    pub(super) fn read_again(&mut self, now: Time, read: BlockRead, out: &mut Vec<OwnerOutput>) {
        self.reads.waiting.push_front(read);
        self.start_reads(now, out);
    }

    fn read_content(&mut self, now: Time, read: BlockRead, data: Vec<Bytes>, out: &mut Vec<OwnerOutput>) {
        match read.purpose {
            Purpose::Data { to, id, offset, len } => {
                let start = (offset - read.range.start.byte_offset()) as usize;
                let result = SegmentResult::Ok(BlockReply::Data(cut(data, start, len as usize)));
                self.prove(now, to, id, result, read.probe, out);
            }
            Purpose::Merge { block } => {
                let mut whole = BytesMut::with_capacity(BLOCK_BYTES);
                data.iter().for_each(|piece| whole.extend_from_slice(piece));
                let good = (whole.len() == BLOCK_BYTES).then(|| whole.freeze());
                self.merge_read(now, block, good, out);
            }
            Purpose::Status { .. } => {}
        }
    }

    pub(super) fn prove_miscompare(
        &mut self,
        now: Time,
        to: NodeId,
        id: RequestId,
        at: u32,
        out: &mut Vec<OwnerOutput>,
    ) {
        let result = SegmentResult::Failed(BlockError::Miscompare { at });
        let probe = self.leases.next_probe();
        self.prove(now, to, id, result, probe, out);
    }

    /// Answers at once under valid leases, else once it is proved.
    fn prove(
        &mut self,
        now: Time,
        to: NodeId,
        id: RequestId,
        result: SegmentResult,
        probe: u64,
        out: &mut Vec<OwnerOutput>,
    ) {
        let proved = match self.config.reads {
            ReadCheck::Lease => self.leases.valid(now, self.w()) || self.leases.proved(probe),
            ReadCheck::Quorum => self.leases.proved(probe),
        };
        if proved {
            return self.reply(to, id, result, out);
        }
        self.reads.proving.push(Proving { to, id, result, probe });
        if self.config.reads == ReadCheck::Lease {
            self.ask_leases(now, out);
        }
    }

    /// Before another node is proposed as the owner: what is read from now on waits until control has decided, and
    /// that node need not wait until the leases have run out.
    pub(super) fn release_leases(&mut self, out: &mut Vec<OwnerOutput>) {
        let number = self.leases.release();
        for copy in self.set.clone() {
            self.send(copy, Body::Release { number }, out);
        }
    }

    pub(super) fn ask_leases(&mut self, now: Time, out: &mut Vec<OwnerOutput>) {
        let handing_over = self.proposals.hands_over(now);
        if handing_over || !self.reads.busy() || !self.leases.wants(now, self.w()) {
            return;
        }
        let number = self.leases.ask(now);
        for copy in self.set.clone() {
            if self.copies.get(&copy).is_some_and(|c| c.up) {
                self.send(copy, Body::Lease { number }, out);
            }
        }
    }

    /// With `reads=quorum`: one question for all reads of a burst.
    pub(super) fn probe_reads(&mut self, now: Time, out: &mut Vec<OwnerOutput>) {
        if self.config.reads != ReadCheck::Quorum || !self.active() {
            return;
        }
        let next = self.leases.next_probe();
        if !self.reads.proving.iter().any(|p| p.probe >= next) {
            return;
        }
        self.send_probe(now, out);
    }

    fn send_probe(&mut self, now: Time, out: &mut Vec<OwnerOutput>) {
        let number = self.leases.probe(now);
        for copy in self.set.clone() {
            self.send(copy, Body::Probe { number }, out);
        }
    }

    pub(super) fn lease_reply(
        &mut self,
        now: Time,
        copy: ReplicaRef,
        number: u64,
        granted: bool,
        out: &mut Vec<OwnerOutput>,
    ) {
        if self.set.contains(&copy) {
            let quorum = self.w();
            if granted {
                self.leases.granted(copy, number);
            }
            self.leases.probed(copy, number, quorum);
            self.answer_proved(now, out);
        }
    }

    pub(super) fn probe_reply(
        &mut self,
        now: Time,
        copy: ReplicaRef,
        number: u64,
        out: &mut Vec<OwnerOutput>,
    ) {
        if self.set.contains(&copy) {
            let quorum = self.w();
            self.leases.probed(copy, number, quorum);
            self.answer_proved(now, out);
        }
    }

    fn answer_proved(&mut self, now: Time, out: &mut Vec<OwnerOutput>) {
        let all = self.config.reads == ReadCheck::Lease && self.leases.valid(now, self.w());
        let (proved, rest): (Vec<_>, Vec<_>) = core::mem::take(&mut self.reads.proving)
            .into_iter()
            .partition(|p| all || self.leases.proved(p.probe));
        self.reads.proving = rest;
        for p in proved {
            self.reply(p.to, p.id, p.result, out);
        }
    }

    pub(super) fn reads_timer(&mut self, now: Time, out: &mut Vec<OwnerOutput>) {
        self.proposals.end_hand_over(now);
        if self.reads.proving.is_empty() || !self.active() {
            return;
        }
        match self.config.reads {
            ReadCheck::Lease => self.ask_leases(now, out),
            ReadCheck::Quorum if self.leases.retry_at().is_none_or(|at| at <= now) => {
                self.send_probe(now, out)
            }
            ReadCheck::Quorum => {}
        }
    }

    pub(super) fn reads_timer_at(&self) -> Option<Time> {
        if self.reads.proving.is_empty() {
            return None;
        }
        let waits = self.proposals.hands_over_until();
        waits.or(self.leases.retry_at())
    }
}

/// The part of pieces that follow each other from byte `start` on.
fn cut(pieces: Vec<Bytes>, mut start: usize, mut len: usize) -> Vec<Bytes> {
    let mut result = Vec::with_capacity(pieces.len());
    for piece in pieces {
        if start >= piece.len() {
            start -= piece.len();
            continue;
        }
        let end = piece.len().min(start + len);
        if end > start {
            len -= end - start;
            result.push(piece.slice(start..end));
        }
        start = 0;
        if len == 0 {
            break;
        }
    }
    result
}

/// Runs of blocks as runs of bytes, without what lies outside the range that was asked for.
fn clip(range: BlockRange, runs: &[(u32, bool)], offset: u64, len: u64) -> Vec<StatusRange> {
    let mut at = range.start.byte_offset();
    let mut result = Vec::new();
    for (count, allocated) in runs {
        let end = at + u64::from(*count) * BLOCK_BYTES as u64;
        let (from, to) = (at.max(offset), end.min(offset + len));
        if to > from {
            result.push(StatusRange { len: to - from, allocated: *allocated });
        }
        at = end;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_cut_out_of_pieces() {
        let pieces = alloc::vec![
            Bytes::from_static(b"abcd"),
            Bytes::from_static(b"efgh"),
            Bytes::from_static(b"ijkl")
        ];
        assert_eq!(cut(pieces.clone(), 2, 4).concat(), b"cdef");
        assert_eq!(cut(pieces.clone(), 4, 4).concat(), b"efgh");
        assert_eq!(cut(pieces, 9, 3).concat(), b"jkl");
    }

    #[test]
    fn status_is_clipped_to_what_was_asked() {
        let range = BlockRange::new(BlockIndex(1), 2);
        let runs = clip(range, &[(1, true), (1, false)], 4096 + 512, 4096);
        let run = |len, allocated| StatusRange { len, allocated };
        assert_eq!(runs, [run(3584, true), run(512, false)]);
    }
}
