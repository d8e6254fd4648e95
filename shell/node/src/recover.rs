//! The control plane after its majority is lost for good: on a node whose daemon is stopped, what its log knows, and
//! how it goes on alone from it; on the others that are left, how they follow it. What is checked here is what keeps an
//! operator from losing more than is lost: that a majority is gone, that every node is said to be lost or left, that
//! no node that is left knows more, and that volumes which may lose writes are named and accepted.

use crate::config::{ConfigError, DataDir};
use crate::control::events::Events;
use holdfast_api::EventLog;
use holdfast_api::events::EventLogError;
use holdfast_cluster::{ClusterMap, losses_without};
use holdfast_consensus::{StoppedControl, StoreError};
use holdfast_net::{Identity, IdentityError, pin};
use holdfast_types::NodeId;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use thiserror::Error;

pub use holdfast_cluster::Loss;
pub use holdfast_consensus::{NotOne, Position, Ticket};

/// Why nothing was changed.
#[derive(Debug, Error)]
pub enum RecoverError {
    /// The data folder, or a daemon that runs on it.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Who this node is.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Control's database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The event log.
    #[error(transparent)]
    Events(#[from] EventLogError),
    /// There is nothing to go on from.
    #[error("this node was never let into its cluster's control plane: recover on another one")]
    NeverJoined,
    /// A name or number that no node has.
    #[error("there is no node {0:?} in this cluster; `holdfast recover` lists them")]
    NoSuchNode(String),
    /// It was said of this node, or twice of one.
    #[error("node {0} is named twice, or is this node, which is the one that goes on")]
    NamedTwice(NodeId),
    /// Somebody is neither lost nor left.
    #[error(
        "nothing is said of node {nodes}: each is either --lost, or --survivor NODE=POSITION with what \
         `holdfast recover` says there"
    )]
    Unaccounted {
        /// Who.
        nodes: String,
    },
    /// Nothing has to be recovered.
    #[error("{left} of {of} voters are left, a majority: start their daemons, and control goes on by itself")]
    MajorityLives {
        /// How many are left.
        left: usize,
        /// Of how many.
        of: usize,
    },
    /// Another node is the one to recover on.
    #[error(
        "the log of node {node} goes further ({theirs}, here {ours}): recover there, and let this node follow"
    )]
    KnowsMore {
        /// Which.
        node: NodeId,
        /// Where its log ends.
        theirs: Position,
        /// Where that of this node ends.
        ours: Position,
    },
    /// Acknowledged writes may be lost.
    #[error(
        "acknowledged writes may be on the lost nodes only: {}; if one of their disks can be put into a host that \
         runs as that node, do that instead; to go on with what is left, add --accept-loss",
        in_words(losses)
    )]
    WouldLose {
        /// What.
        losses: Vec<Loss>,
    },
    /// The ticket is this node's own.
    #[error("this ticket was printed on this node: it is for the others")]
    OwnTicket,
    /// It was done before.
    #[error("this node follows already: start its daemon")]
    FollowsAlready,
    /// What this node knows is more than what the new group began with.
    #[error(
        "the log of this node goes further ({ours}) than that of node {node}, which was recovered ({theirs}): if this \
         node was left then, recover here instead; to give up what it alone knows, add --discard"
    )]
    WouldForget {
        /// Who was recovered.
        node: NodeId,
        /// Where its log ended.
        theirs: Position,
        /// Where that of this node ends.
        ours: Position,
    },
}

impl RecoverError {
    /// The exit code of a command that ends with it: 2 when the input was wrong, 1 otherwise.
    pub fn exit_code(&self) -> u8 {
        match self {
            RecoverError::NoSuchNode(_)
            | RecoverError::NamedTwice(_)
            | RecoverError::Unaccounted { .. }
            | RecoverError::OwnTicket => 2,
            RecoverError::Config(ConfigError::Invalid { .. }) => 2,
            _ => 1,
        }
    }
}

fn in_words(losses: &[Loss]) -> String {
    let one = |l: &Loss| match (l.in_doubt, l.gone) {
        (doubt, 0) => format!("volume {} in {doubt} of its {} segments", l.volume, l.segments),
        (0, gone) => format!("volume {} without any copy of {gone} of its {} segments", l.volume, l.segments),
        (doubt, gone) => format!(
            "volume {} in {doubt} of its {} segments and without any copy of {gone}",
            l.volume, l.segments
        ),
    };
    losses.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// What the operator says of the other nodes, by name or number.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// Lost for good.
    pub lost: Vec<String>,
    /// Left, and where their logs end.
    pub survivors: Vec<(String, Position)>,
    /// Volumes may lose acknowledged writes.
    pub accept_loss: bool,
}

/// A stopped node's control.
pub struct Stopped {
    dir: DataDir,
    node: NodeId,
    control: StoppedControl,
    // Until all is done: no daemon starts meanwhile.
    _lock: crate::config::DirLock,
}

/// What [`Stopped::recover`] did.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// What the others need to follow.
    pub ticket: Ticket,
    /// Where control's database is kept as it was.
    pub kept: PathBuf,
}

impl Stopped {
    /// Opens the control of the node with that data folder. Its daemon must not run.
    pub fn open(dir: &Path) -> Result<Self, RecoverError> {
        let dir = DataDir::new(dir);
        dir.load_config()?;
        let lock = dir.lock()?;
        let node = Identity::load(&dir.identity())?.node();
        let control = StoppedControl::open(&dir.control(), node)?;
        Ok(Self { dir, node, control, _lock: lock })
    }

    /// This node.
    pub fn node(&self) -> NodeId {
        self.node
    }
    /// The map as its whole log makes it.
    pub fn map(&self) -> &ClusterMap {
        self.control.map()
    }
    /// Where its log ends.
    pub fn position(&self) -> Option<Position> {
        self.control.position()
    }
    /// Who votes.
    pub fn voters(&self) -> BTreeSet<NodeId> {
        self.control.voters()
    }

    /// The lost nodes of a choice, and what they take with them, if the choice may be carried out.
    pub fn weigh(&self, choice: &Choice) -> Result<(BTreeSet<NodeId>, Vec<Loss>), RecoverError> {
        let ours = self.position().ok_or(RecoverError::NeverJoined)?;
        let lost: Vec<NodeId> = choice.lost.iter().map(|n| self.find(n)).collect::<Result<_, _>>()?;
        let find = |(name, position): &(String, Position)| Ok((self.find(name)?, *position));
        let survivors: Vec<(NodeId, Position)> =
            choice.survivors.iter().map(find).collect::<Result<_, RecoverError>>()?;
        let mut named = BTreeSet::from([self.node]);
        for node in lost.iter().chain(survivors.iter().map(|(node, _)| node)) {
            if !named.insert(*node) {
                return Err(RecoverError::NamedTwice(*node));
            }
        }
        let voters = self.voters();
        let unnamed: Vec<String> =
            self.others().filter(|n| !named.contains(n)).map(|n| n.to_string()).collect();
        if !unnamed.is_empty() {
            return Err(RecoverError::Unaccounted { nodes: unnamed.join(", ") });
        }
        let lost: BTreeSet<NodeId> = lost.into_iter().collect();
        // One that has forgotten has no vote that counts: it waits for a majority of the others to let it in.
        let forgot: BTreeSet<NodeId> = survivors
            .iter()
            .filter(|(_, position)| *position == Position::NONE)
            .map(|(node, _)| *node)
            .collect();
        let left = voters.difference(&lost).filter(|n| !forgot.contains(n)).count();
        if left * 2 > voters.len() {
            return Err(RecoverError::MajorityLives { left, of: voters.len() });
        }
        if let Some((node, theirs)) = survivors.into_iter().find(|(_, position)| *position > ours) {
            return Err(RecoverError::KnowsMore { node, theirs, ours });
        }
        let losses = losses_without(self.map(), &lost);
        Ok((lost, losses))
    }

    /// Every other node that something has to be said of: those that vote, and those that ever ran.
    pub fn others(&self) -> impl Iterator<Item = NodeId> {
        let ran = self.map().nodes.values().filter(|n| n.incarnation.0 > 0).map(|n| n.id);
        let mut all: BTreeSet<NodeId> = ran.chain(self.voters()).collect();
        all.remove(&self.node);
        all.into_iter()
    }

    fn find(&self, text: &str) -> Result<NodeId, RecoverError> {
        let by_number = text.parse().ok().map(NodeId).filter(|n| self.others().any(|o| o == *n));
        let by_name = || self.map().node_named(text).map(|n| n.id);
        let found = by_number.or_else(by_name).or((text == self.node.to_string()).then_some(self.node));
        found.ok_or_else(|| RecoverError::NoSuchNode(text.chars().take(crate::config::MAX_NAME).collect()))
    }

    /// Makes this node the whole control plane, without the lost ones.
    pub fn recover(self, choice: &Choice) -> Result<Recovered, RecoverError> {
        let (lost, losses) = self.weigh(choice)?;
        if !losses.is_empty() && !choice.accept_loss {
            return Err(RecoverError::WouldLose { losses });
        }
        let events = Events::new(EventLog::open(&self.dir.events(), self.node.0)?);
        let names: Vec<String> = lost.iter().map(ToString::to_string).collect();
        let without =
            if lost.is_empty() { String::new() } else { format!(" without nodes {}", names.join(", ")) };
        let accepted = match losses.as_slice() {
            [] => String::new(),
            losses => format!("; accepted that acknowledged writes may be lost: {}", in_words(losses)),
        };
        events.recovery(format!("control is made anew of this node{without}{accepted}"));
        let mut drawn = [0; 4];
        pin::random(&mut drawn);
        let recovered = self.control.recover(&lost, u32::from_le_bytes(drawn))?;
        let (ticket, kept) = recovered.ok_or(RecoverError::NeverJoined)?;
        events.recovery(format!(
            "control is this node alone; others follow with `holdfast recover --follow {ticket}`"
        ));
        Ok(Recovered { ticket, kept })
    }

    /// Forgets this node's control, so that the recovered node lets it in. Where its database is kept as it was.
    pub fn follow(self, ticket: &Ticket, discard: bool) -> Result<PathBuf, RecoverError> {
        if ticket.node == self.node {
            return Err(RecoverError::OwnTicket);
        }
        if self.control.generation() == ticket.generation {
            return Err(RecoverError::FollowsAlready);
        }
        if let Some(ours) = self.position().filter(|ours| *ours > ticket.position && !discard) {
            return Err(RecoverError::WouldForget { node: ticket.node, theirs: ticket.position, ours });
        }
        let events = Events::new(EventLog::open(&self.dir.events(), self.node.0)?);
        events.recovery(format!("control follows node {}, ticket {ticket}", ticket.node));
        Ok(self.control.follow(ticket)?)
    }
}
