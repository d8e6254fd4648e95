//! What a copy looks up in its store or puts into it for the owner: leases and probes, log pieces, blocks,
//! images, digests. All of it only for the owner of the highest epoch, and only once that promise is durable.

use super::{Peer, Replica, ReplicaOutput};
use crate::message::Body;
use alloc::vec::Vec;
use bytes::Bytes;
use holdfast_checksum::crc32c;
use holdfast_types::{
    BlockContent, BlockDigest, BlockIndex, BlockRange, ImageBlock, Lsn, StoreOrder, StoreOutcome,
    StoreRefusal, Time,
};

/// The most services under way at once; more are not answered, and asked for again.
const MAX_SERVICES: usize = 256;

/// An order whose outcome is the answer, or leads to it.
#[derive(Debug)]
pub(crate) enum Service {
    Fetch {
        peer: Peer,
        number: u64,
    },
    Read {
        peer: Peer,
        number: u64,
        block: BlockIndex,
    },
    /// The content is there; its version is looked up.
    ReadVersion {
        peer: Peer,
        number: u64,
        block: BlockIndex,
        data: Bytes,
    },
    Heal {
        peer: Peer,
        number: u64,
    },
    Image {
        peer: Peer,
        number: u64,
    },
    Digest {
        peer: Peer,
        number: u64,
    },
    Room {
        peer: Peer,
        number: u64,
    },
}

impl Service {
    pub(crate) fn peer(&self) -> Peer {
        match self {
            Service::Fetch { peer, .. }
            | Service::Read { peer, .. }
            | Service::ReadVersion { peer, .. }
            | Service::Heal { peer, .. }
            | Service::Image { peer, .. }
            | Service::Digest { peer, .. }
            | Service::Room { peer, .. } => *peer,
        }
    }
}

impl Replica {
    pub(super) fn serve(&mut self, peer: Peer, body: Body, now: Time, out: &mut Vec<ReplicaOutput>) {
        if peer.epoch != self.promised
            || self.durable_promise != peer.epoch
            || self.services.len() >= MAX_SERVICES
        {
            return;
        }
        let (service, order) = match body {
            Body::Lease { number } => {
                let granted = self.lease.grant(now, peer.node, (peer.epoch, number));
                return self.send(peer, Body::LeaseReply { number, granted }, out);
            }
            Body::Release { number } => return self.lease.release(now, peer.node, (peer.epoch, number)),
            Body::Probe { number } => return self.send(peer, Body::ProbeReply { number }, out),
            Body::Fetch { number, after, max_bytes } => {
                let order = StoreOrder::ReadLog { after, max_bytes: max_bytes as usize };
                (Service::Fetch { peer, number }, order)
            }
            Body::Read { number, block, min_lsn } => {
                if self.committed < min_lsn || self.incomplete_since.is_some() {
                    return self.send(peer, Body::ReadReply { number, block: None }, out);
                }
                let order = StoreOrder::Read { range: BlockRange::new(block, 1) };
                (Service::Read { peer, number, block }, order)
            }
            Body::Heal { number, block } => {
                if block.data.as_ref().is_some_and(|d| crc32c(d) != block.crc) {
                    return self.send(peer, Body::HealReply { number, replaced: false }, out);
                }
                (Service::Heal { peer, number }, StoreOrder::Heal { block })
            }
            Body::Image { number, blocks } => {
                let intact = blocks.iter().all(|b| b.data.as_ref().is_none_or(|d| crc32c(d) == b.crc));
                if self.incomplete_since.is_none() || !intact {
                    return self.send(peer, Body::ImageReply { number, installed: false }, out);
                }
                (Service::Image { peer, number }, StoreOrder::InstallImage { blocks })
            }
            Body::Digest { number, extent } => {
                (Service::Digest { peer, number }, StoreOrder::Digest { extent })
            }
            Body::Room { number, extent, after } => {
                (Service::Room { peer, number }, StoreOrder::KeepRoom { extent, after })
            }
            // Replies, which no copy gets, and what `receive` took.
            _ => return,
        };
        let order = self.order(order, out);
        self.services.insert(order, service);
    }

    pub(super) fn served(&mut self, service: Service, outcome: StoreOutcome, out: &mut Vec<ReplicaOutput>) {
        let peer = service.peer();
        if self.halted || peer.epoch != self.promised {
            return;
        }
        let body = match (service, outcome) {
            (Service::Fetch { number, .. }, StoreOutcome::Log { records }) => {
                Body::FetchReply { number, records }
            }
            (Service::Fetch { number, .. }, _) => Body::FetchReply { number, records: Vec::new() },
            (Service::Read { number, block, .. }, StoreOutcome::Read { data }) => {
                let data: Bytes = match <[Bytes; 1]>::try_from(data) {
                    Ok([one]) => one,
                    Err(many) => Bytes::from(many.concat()),
                };
                let order = self.order(StoreOrder::Digest { extent: block.extent() }, out);
                self.services.insert(order, Service::ReadVersion { peer, number, block, data });
                return;
            }
            (Service::Read { number, .. }, _) => Body::ReadReply { number, block: None },
            (Service::ReadVersion { number, block, data, .. }, StoreOutcome::Digest { blocks, .. }) => {
                match versioned(block, data, &blocks) {
                    Version::Found(found) => Body::ReadReply { number, block: Some(found) },
                    Version::Damaged => Body::ReadReply { number, block: None },
                    Version::Moved => {
                        let again = StoreOrder::Read { range: BlockRange::new(block, 1) };
                        let order = self.order(again, out);
                        self.services.insert(order, Service::Read { peer, number, block });
                        return;
                    }
                }
            }
            (Service::ReadVersion { number, .. }, _) => Body::ReadReply { number, block: None },
            (Service::Heal { number, .. }, outcome) => {
                Body::HealReply { number, replaced: outcome == StoreOutcome::Healed { replaced: true } }
            }
            (Service::Image { number, .. }, outcome) => {
                if let StoreOutcome::Refused(reason @ StoreRefusal::Full) = outcome {
                    // The owner says so: a learner that lacks room would seem to be merely slow.
                    self.send(peer, Body::Refused { reason }, out);
                }
                Body::ImageReply { number, installed: outcome == StoreOutcome::Installed }
            }
            (Service::Digest { number, .. }, StoreOutcome::Digest { at, blocks }) => {
                Body::DigestReply { number, at, blocks }
            }
            (Service::Room { number, .. }, StoreOutcome::RoomKept { spare }) => {
                Body::RoomReply { number, refusal: None, spare }
            }
            (Service::Room { number, .. }, StoreOutcome::Refused(refusal)) => {
                Body::RoomReply { number, refusal: Some(refusal), spare: 0 }
            }
            (Service::Room { .. }, _) => return,
            // Refused for now. The owner asks again.
            (Service::Digest { .. }, _) => return,
        };
        self.send(peer, body, out);
    }
}

/// What a block that was read turns out to be.
enum Version {
    Found(ImageBlock),
    Damaged,
    /// It was written after it was read and before its version was looked up.
    Moved,
}

/// The block with its version, if what was read and what the disk was found to hold are the same. One that is not listed was
/// never written.
fn versioned(block: BlockIndex, data: Bytes, digest: &[BlockDigest]) -> Version {
    let found = digest.iter().find(|d| d.block == block);
    let (lsn, content) = found.map_or((Lsn(0), BlockContent::Absent), |d| (d.lsn, d.content));
    match content {
        BlockContent::Good(crc) if crc == crc32c(&data) => {
            Version::Found(ImageBlock { block, lsn, crc, data: Some(data) })
        }
        BlockContent::Absent => Version::Found(ImageBlock { block, lsn, crc: 0, data: None }),
        BlockContent::Good(_) => Version::Moved,
        BlockContent::Bad(_) => Version::Damaged,
    }
}
