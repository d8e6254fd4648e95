//! Peers: frames in and out, links, and which part of this node a message is for.

use crate::io::{EngineEvent, Lane, Output, Outputs};
use crate::route::map::gateway_is_dead;
use crate::{Engine, Work};
use alloc::string::ToString;
use bytes::Bytes;
use holdfast_replication::{Body, Envelope, Message, SegmentReply, SegmentRequest, SegmentResult, wire};
use holdfast_types::{Epoch, NodeId, Time};

impl Engine {
    /// A frame of a peer whose identity was verified.
    pub(crate) fn frame(
        &mut self,
        now: Time,
        from: NodeId,
        header: &[u8],
        payload: Bytes,
        out: &mut Outputs,
    ) {
        match wire::decode(header, payload) {
            Ok(message) => self.deliver(now, from, message, out),
            Err(error) => {
                out.push(Output::Event(EngineEvent::BadFrame { from, error: error.to_string() }));
            }
        }
    }

    /// Sends a message to a node; to this one without the wire.
    pub(crate) fn send(&mut self, to: NodeId, message: Message, out: &mut Outputs) {
        if to == self.config.node {
            return self.work.push_back(Work::Message(message));
        }
        if !self.links.contains(&to) {
            // Whoever sent it hears of the link when it is back, and sends again.
            return;
        }
        let lane = if message.is_bulk() { Lane::Bulk } else { Lane::Io };
        out.push(Output::Send { to, lane, frame: wire::encode(&message) });
    }

    /// Gives a message to the part that it is for.
    pub(crate) fn deliver(&mut self, now: Time, from: NodeId, message: Message, out: &mut Outputs) {
        if is_of_a_client(&message) {
            self.copies.clients_at = Some(now);
        }
        match message {
            Message::Request(request) => self.deliver_request(now, from, request, out),
            Message::Reply(reply) => self.with_gateway(out, |gateway, o| gateway.reply(now, reply, o)),
            Message::Replication(envelope) if envelope.body.is_for_owner() => {
                self.with_owner(now, envelope.segment, out, |owner, o| owner.receive(now, from, envelope, o));
            }
            Message::Replication(envelope) => {
                // A copy that this node does not have (yet): the owner asks again.
                let copy = (envelope.segment, envelope.replica.disk);
                self.with_replica(now, copy, out, |replica, o| replica.receive(now, from, envelope, o));
            }
        }
    }

    fn deliver_request(&mut self, now: Time, from: NodeId, request: SegmentRequest, out: &mut Outputs) {
        if !self.copies.owners.contains_key(&request.segment) {
            let (id, segment) = (request.id, request.segment);
            let reply = SegmentReply { id, segment, epoch: Epoch(0), result: SegmentResult::NotOwner };
            return self.send(from, Message::Reply(reply), out);
        }
        // Its node was declared down since: whatever comes under that number comes late.
        if gateway_is_dead(&self.map, request.id.gateway) {
            self.fence_gateway(now, request.segment, request.id.gateway, out);
        }
        self.follow.note(now, request.segment, from);
        self.with_owner(now, request.segment, out, |owner, o| owner.request(now, from, request, o));
    }

    /// The link to a peer came up or went down.
    pub(crate) fn link_changed(&mut self, now: Time, node: NodeId, up: bool, out: &mut Outputs) {
        if up {
            self.links.insert(node);
        } else {
            self.links.remove(&node);
        }
        let owned: alloc::vec::Vec<_> = self.copies.owners.keys().copied().collect();
        for segment in owned {
            self.with_owner(now, segment, out, |owner, o| owner.link(now, node, up, o));
        }
        self.with_gateway(out, |gateway, o| gateway.link(now, node, up, o));
    }
}

/// Whether a client waits for what the message brings about: this node has better things to do than to compare copies.
fn is_of_a_client(message: &Message) -> bool {
    match message {
        Message::Request(_) => true,
        Message::Replication(Envelope { body: Body::Append { records, .. }, .. }) => !records.is_empty(),
        Message::Replication(_) | Message::Reply(_) => false,
    }
}
