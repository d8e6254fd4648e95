//! The control plane: one agreed order of commands over the cluster map.
//!
//! openraft behind types of our own, its log and snapshots in redb. [`Control`] is a node's part in it: it
//! proposes commands (from any node: they are forwarded to the leader), shows the map, answers its peers.
//! [`Director`] runs the failure detector on each node and, on the leader's, proposes what follows from it.
//!
//! Promise: a command that was answered is on stable storage on a majority, and every node applies the same
//! commands in the same order. It does not: decide what a command means (holdfast-cluster), nor reach other
//! nodes itself (the caller gives a [`Transport`] and a [`HeartbeatNetwork`]). [`Control::map`] may be stale on
//! any node; whatever matters is a compare-and-set. What takes time comes as a boxed future: a plain one is compiled
//! by the crate that awaits it, and the consensus library is large.

mod codec;
mod control;
mod director;
mod elsewhere;
mod heartbeat;
mod lead;
mod machine;
mod members;
mod network;
mod raft_types;
mod recover;
mod standing;
mod store;
mod wire;

pub use control::{Control, ControlConfig, ControlMetrics, MAX_VOTERS, ProposeError, StartError, Timings};
pub use director::{Director, DirectorConfig, DirectorEvent};
pub use heartbeat::{HeartbeatFact, HeartbeatNetwork, Said};
pub use members::MembershipError;
pub use network::{Transport, TransportError, TransportFault};
pub use recover::{Generation, NotOne, Position, StoppedControl, Ticket};
pub use standing::Standing;
pub use store::{Damage, StoreError};
