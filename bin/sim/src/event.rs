//! The simulated clock: what happens when. Events of the same moment happen in the order in which they were
//! planned, so that a run is a function of its seed.

use crate::control::{Answer, Call};
use crate::faults::Healing;
use crate::stopping::Stop;
use bytes::Bytes;
use holdfast_types::{ConnectionId, DiskId, Duration, NodeId, Time};
use std::collections::BTreeMap;

/// Something that is going to happen.
#[derive(Debug)]
pub enum Event {
    /// A frame reaches its peer, if its link has not broken meanwhile.
    Frame {
        /// Who sent it.
        from: NodeId,
        /// To whom.
        to: NodeId,
        /// The link's generation when it was sent.
        generation: u64,
        /// See the engine's input.
        header: Bytes,
        /// See the engine's input.
        payload: Bytes,
    },
    /// The sender notices that its link is broken.
    LinkLost {
        /// Who dialled.
        from: NodeId,
        /// To whom.
        to: NodeId,
        /// The generation that broke.
        generation: u64,
    },
    /// A node dials a peer.
    Dial {
        /// Who.
        from: NodeId,
        /// In which run.
        process: u64,
        /// Whom.
        to: NodeId,
    },
    /// A disk does one of its orders.
    Disk {
        /// Which.
        disk: DiskId,
        /// Ordered by which run.
        process: u64,
    },
    /// The engine's timer, unless it was planned anew since.
    Timer {
        /// Whose.
        node: NodeId,
        /// Which plan.
        number: u64,
    },
    /// A node's follower of control looks for a newer map.
    Maps {
        /// Whose.
        node: NodeId,
        /// In which run.
        process: u64,
    },
    /// A call reaches control, or finds no way to it.
    Call(Call),
    /// Control's answer reaches the caller.
    Answer(Call, Answer),
    /// A node asks an owner to fence a session, or has waited long enough for the answer.
    Fence(u64),
    /// An owner's answer to that.
    Fenced {
        /// To which asking.
        number: u64,
        /// Whether it is done.
        done: bool,
    },
    /// The director looks at the nodes and the map.
    Direct,
    /// A client's bytes reach its gateway.
    ToServer {
        /// Over which connection.
        connection: ConnectionId,
        /// Any piece of the stream.
        bytes: Bytes,
    },
    /// A gateway's bytes reach its client.
    ToClient {
        /// Over which connection.
        connection: ConnectionId,
        /// Any piece of the stream.
        bytes: Bytes,
    },
    /// The client notices that its connection is gone.
    Hangup(ConnectionId),
    /// The gateway notices that the client's connection is gone.
    ClientGone(ConnectionId),
    /// A client does what it wants next.
    Think {
        /// Which.
        client: usize,
    },
    /// A planned stop goes on.
    Stopping(Stop),
    /// A node's stores write back what they have.
    Checkpoint {
        /// Whose.
        node: NodeId,
        /// In which run.
        process: u64,
    },
    /// A random fault.
    Fault,
    /// A fault ends.
    Heal(Healing),
}

/// The events to come.
#[derive(Debug, Default)]
pub struct Queue {
    events: BTreeMap<(Time, u64), Event>,
    next: u64,
    now: Time,
}

impl Queue {
    /// The time.
    pub fn now(&self) -> Time {
        self.now
    }

    /// Plans an event.
    pub fn at(&mut self, at: Time, event: Event) {
        self.next += 1;
        self.events.insert((at.max(self.now), self.next), event);
    }

    /// Plans an event after some time.
    pub fn after(&mut self, delay: Duration, event: Event) {
        self.at(self.now + delay, event);
    }

    /// The next event, not after `until`; the time is then its time. None: the time is then `until`.
    pub fn next(&mut self, until: Time) -> Option<Event> {
        match self.events.first_entry() {
            Some(first) if first.key().0 <= until => {
                self.now = first.key().0;
                Some(first.remove())
            }
            _ => {
                self.now = self.now.max(until);
                None
            }
        }
    }
}
