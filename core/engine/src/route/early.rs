//! Initiators that connect before this node knows what there is to serve. The socket may be older than the daemon
//! (systemd keeps it), and a daemon that restarts has a map of before at best: to say "no such volume" by that would
//! be a lie that initiators believe. So such a connection waits, silent, until control has numbered this run, which
//! brings a map with everything in it that was answered before; then it is opened as if it had come that moment.
//!
//! A node that was never let into its cluster has no such moment in sight: there a login is answered that way.

use crate::Engine;
use crate::io::{Opening, Output, Outputs};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use bytes::Bytes;
use holdfast_types::{CloseReason, ConnectionId, Time};

/// So many may wait. With more, the one that has waited longest is turned away: it is the likeliest to be gone,
/// which cannot be seen while nothing is read from it.
const WAITING_MOST: usize = 256;

/// Connections that wait, in the order in which they came.
#[derive(Default)]
pub struct Early {
    waiting: BTreeMap<ConnectionId, Waiting>,
}

struct Waiting {
    opening: Opening,
    /// What came before the shell stopped reading.
    bytes: Vec<Bytes>,
}

impl Early {
    /// Keeps what an initiator sent. False: it is not one of these.
    pub(crate) fn keep(&mut self, connection: ConnectionId, bytes: &Bytes) -> bool {
        let waiting = self.waiting.get_mut(&connection);
        waiting.map(|w| w.bytes.push(bytes.clone())).is_some()
    }

    /// It is gone.
    pub(crate) fn forget(&mut self, connection: ConnectionId) {
        self.waiting.remove(&connection);
    }
}

impl Engine {
    /// Whether a login can be answered by what there is.
    fn can_answer(&self) -> bool {
        self.incarnation.is_some() || self.exports.not_joined
    }

    /// An initiator connected.
    pub(crate) fn session_opened(
        &mut self,
        now: Time,
        connection: ConnectionId,
        opening: Opening,
        out: &mut Outputs,
    ) {
        if self.can_answer() {
            return self.open_session(now, connection, opening, out);
        }
        let waiting = &mut self.early.waiting;
        waiting.insert(connection, Waiting { opening, bytes: Vec::new() });
        if waiting.len() > WAITING_MOST
            && let Some((connection, _)) = waiting.pop_first()
        {
            out.push(Output::SessionClose { connection, reason: CloseReason::NotReady });
        }
    }

    /// This node was never let into its cluster, and who asks is to be told.
    pub(crate) fn not_joined(&mut self, now: Time, out: &mut Outputs) {
        if self.map.version == 0 && self.incarnation.is_none() {
            self.exports.not_joined = true;
            self.open_early(now, out);
        }
    }

    /// What waited is served.
    pub(crate) fn open_early(&mut self, now: Time, out: &mut Outputs) {
        for (connection, waiting) in core::mem::take(&mut self.early.waiting) {
            self.open_session(now, connection, waiting.opening, out);
            for piece in waiting.bytes {
                self.session_bytes(now, connection, piece, out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EngineConfig;
    use crate::io::{FrontEndKind, Input};
    use alloc::string::String;
    use alloc::sync::Arc;
    use alloc::vec;
    use holdfast_cluster::{ClusterMap, UnixSeconds, Volume};
    use holdfast_replication::{OwnerConfig, ReplicaConfig};
    use holdfast_store::StoreConfig;
    use holdfast_types::{NodeId, ProcessIncarnation, VolumeId};

    const ASKS: ConnectionId = ConnectionId(1);
    /// NBD_OPT_GO for the export "demo" after the client's flags.
    const GO: &[u8] = b"\0\0\0\x03IHAVEOPT\0\0\0\x07\0\0\0\x0a\0\0\0\x04demo\0\0";
    const GREETING: &[u8] = b"NBDMAGICIHAVEOPT\0\x03";

    fn engine() -> Engine {
        Engine::new(EngineConfig {
            node: NodeId(1),
            owner: OwnerConfig::default(),
            replica: ReplicaConfig::default(),
            store: StoreConfig::default(),
            iscsi_needs_chap: false,
        })
    }

    fn map(names: &[&str]) -> Input {
        let mut map = ClusterMap { version: 1 + names.len() as u64, ..ClusterMap::default() };
        for name in names {
            let (id, name) = (VolumeId(1), String::from(*name));
            let volume = Volume {
                id,
                name,
                size: 1 << 20,
                pool: String::new(),
                copies: 1,
                unique_id: 1,
                created: UnixSeconds(0),
            };
            map.volumes.insert(id, volume);
        }
        Input::Map(Arc::new(map))
    }

    /// What the engine says to one connection, and whether it ends it.
    fn said(engine: &mut Engine, inputs: Vec<Input>, to: ConnectionId) -> (Vec<u8>, bool) {
        let mut out = Outputs::new();
        inputs.into_iter().for_each(|input| engine.handle(Time(1), input, &mut out));
        let (mut bytes, mut closed) = (Vec::new(), false);
        for output in out {
            match output {
                Output::SessionSend { connection, bytes: more } if connection == to => bytes.extend(more),
                Output::SessionClose { connection, .. } if connection == to => closed = true,
                _ => {}
            }
        }
        (bytes, closed)
    }

    fn opened(connection: ConnectionId) -> Input {
        let opening = Opening { kind: FrontEndKind::Nbd, portal: String::new(), entropy: [0; 32] };
        Input::SessionOpened { connection, opening }
    }

    fn asks() -> Vec<Input> {
        vec![opened(ASKS), Input::SessionBytes { connection: ASKS, bytes: Bytes::from_static(GO) }]
    }

    /// The type of the first reply to the option.
    fn answer(bytes: &[u8]) -> u32 {
        let reply = bytes.strip_prefix(GREETING).expect("the greeting comes first");
        u32::from_be_bytes(reply[12..16].try_into().expect("four bytes"))
    }

    #[test]
    fn a_client_that_is_there_before_the_map_waits_for_control_and_is_served() {
        let mut engine = engine();
        assert_eq!(said(&mut engine, asks(), ASKS), (vec![], false));
        assert!(!engine.wants_input(ASKS), "no more is read from it");
        // What a restarted node remembers may lack a volume that was made meanwhile.
        assert_eq!(said(&mut engine, vec![map(&[])], ASKS), (vec![], false));
        let inputs = vec![map(&["demo"]), Input::Started(ProcessIncarnation(2))];
        let (bytes, closed) = said(&mut engine, inputs, ASKS);
        assert!(answer(&bytes) == 3 && !closed, "NBD_REP_INFO, not {bytes:?}");
        assert!(engine.wants_input(ASKS));
    }

    #[test]
    fn a_volume_that_the_map_does_not_name_is_refused_once_there_is_a_map() {
        let mut engine = engine();
        said(&mut engine, asks(), ASKS);
        let inputs = vec![map(&["other"]), Input::Started(ProcessIncarnation(2))];
        assert_eq!(answer(&said(&mut engine, inputs, ASKS).0), 1 << 31 | 6, "NBD_REP_ERR_UNKNOWN");
    }

    #[test]
    fn a_node_that_never_joined_says_so_and_serves_once_it_has() {
        let mut engine = engine();
        said(&mut engine, asks(), ASKS);
        let (bytes, _) = said(&mut engine, vec![Input::NotJoined], ASKS);
        assert_eq!(answer(&bytes), 1 << 31 | 2, "NBD_REP_ERR_POLICY");
        assert!(bytes.ends_with(holdfast_types::NOT_JOINED.as_bytes()));
        said(&mut engine, vec![map(&["demo"]), Input::Started(ProcessIncarnation(1))], ASKS);
        let next = ConnectionId(2);
        let bytes = Bytes::from_static(GO);
        let inputs = vec![opened(next), Input::SessionBytes { connection: next, bytes }];
        assert_eq!(answer(&said(&mut engine, inputs, next).0), 3);
    }

    #[test]
    fn so_many_may_wait_and_the_one_that_waited_longest_goes_first() {
        let mut engine = engine();
        let some = (1..=WAITING_MOST as u64).map(|n| opened(ConnectionId(n))).collect();
        assert!(!said(&mut engine, some, ConnectionId(1)).1);
        let one_more = opened(ConnectionId(WAITING_MOST as u64 + 1));
        assert!(said(&mut engine, vec![one_more], ConnectionId(1)).1);
        assert_eq!(engine.early.waiting.len(), WAITING_MOST);
        said(&mut engine, vec![Input::SessionClosed(ConnectionId(2))], ConnectionId(2));
        assert_eq!(engine.early.waiting.len(), WAITING_MOST - 1);
    }
}
