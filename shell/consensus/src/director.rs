//! The task that keeps owners alive: it sends and hears heartbeats on every node, and on the leader's proposes
//! what follows: that a node is down or up, grants for the segments that lost their owner or their write quorum, and
//! other disks for copies that are lost. What it proposes is a compare-and-set throughout, so that two directors who both think they lead, or
//! one with an old map, do no harm.

use crate::codec;
use crate::control::{Control, ProposeError};
use crate::heartbeat::{Beat, HeartbeatFact, HeartbeatNetwork, Said, filler};
use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use holdfast_cluster::{
    ClusterMap, Command, CommandResult, Detector, DetectorConfig, Liveness, NodeState, PathChange,
    PathConfig, PathNews, Paths, Patience, Replacement, Single, SingleResult, Unplaced, Verdict, Waiting,
    apply, plan_grants, plan_replacements,
};
use holdfast_types::{Epoch, NodeId, PeerPath, ProcessIncarnation, SegmentId, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};

/// The terms of the director.
#[derive(Clone, Debug)]
pub struct DirectorConfig {
    /// Those of the failure detector.
    pub detector: DetectorConfig,
    /// Those by which paths are chosen.
    pub paths: PathConfig,
    /// This run of the daemon, sent with each beat.
    pub incarnation: ProcessIncarnation,
    /// A grant that was not activated for so long goes to another owner.
    pub stuck_after: Duration,
    /// The copies of a node that has been away for so long are placed anew, and those that lacked room for so long.
    pub replace_after: Duration,
    /// The clock: a boot clock, as the engine's.
    pub now: fn() -> Time,
}

/// What the director noticed or did, for the event log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DirectorEvent {
    /// The detector thinks differently of a node.
    Liveness {
        /// Which.
        node: NodeId,
        /// What it thinks now.
        liveness: Liveness,
    },
    /// Something about the way to a node.
    Path(PathNews),
    /// Control recorded, by this leader's proposal, that nodes are down or up and that grants were made.
    Directed {
        /// Down.
        down: Vec<NodeId>,
        /// Up.
        up: Vec<NodeId>,
        /// How many grants were accepted.
        grants: usize,
        /// How long the proposal took.
        took: Duration,
    },
    /// A proposal of this leader's brought nothing.
    Failed(ProposeError),
    /// Segments with too few copies in reach; said when their number changes.
    Waiting(Vec<Waiting>),
    /// This node takes long to write what is decided, and passed the lead on.
    PassedLead,
    /// Control recorded, by this leader's proposal, that lost copies are placed anew.
    Replaced(Vec<Replacement>),
    /// Lost copies that no disk can take over; said when they change.
    Unplaced(Vec<Unplaced>),
}

/// The most commands of one proposal; the rest follows in the next.
const BATCH: usize = 512;
/// After a failed proposal.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(100);
/// Between attempts to pass the lead on.
const PASS_AGAIN: Duration = Duration::from_secs(10);
/// After a look at the map that brought nothing, so many times as long as it took.
const REST_FACTOR: u32 = 4;
/// The map is looked at anew at least so often, for grants that are stuck.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A proposal under way.
type Proposal = BoxFuture<'static, (Directive, Duration, Result<CommandResult, ProposeError>)>;

#[derive(Clone, Default)]
struct Directive {
    down: Vec<NodeId>,
    up: Vec<NodeId>,
    commands: Vec<Single>,
    replacements: Vec<Replacement>,
}

/// Runs the failure detector and, on the leader's node, acts on it.
pub struct Director {
    control: Control,
    network: Arc<dyn HeartbeatNetwork>,
    config: DirectorConfig,
    events: mpsc::Sender<DirectorEvent>,
    map: watch::Receiver<Arc<ClusterMap>>,
    detector: Detector,
    paths: Paths,
    /// Beats that were sent to everybody.
    beats: u64,
    /// The run that each node's last beat named.
    heard: BTreeMap<NodeId, ProcessIncarnation>,
    /// Other nodes that take long to write what control decides, or cannot, as they say.
    slow: BTreeSet<NodeId>,
    /// Not before this moment is the lead passed on again; and whether it was tried since this node leads.
    pass_again: Instant,
    passes_lead: bool,
    /// Since when a segment's grant has not been activated.
    unactivated: BTreeMap<SegmentId, (Epoch, Instant)>,
    /// For copies that are lost, as far as this node knows. A daemon that starts gives everybody a full term.
    patience: Patience,
    started: Instant,
    waiting: Vec<Waiting>,
    unplaced: Vec<Unplaced>,
    proposal: Option<Proposal>,
    /// Not before this moment, after a failure.
    pause: Instant,
    /// Nor before this one, after a look at the map that brought nothing, unless a node came or went. A look takes longer the more
    /// segments there are, and the map changes at every step of each when a host fails or comes back.
    rest: Instant,
    look_again: Instant,
    dirty: bool,
    led: bool,
}

impl Director {
    /// Ready to run. Events that nobody takes are dropped.
    pub fn new(
        control: Control,
        network: Arc<dyn HeartbeatNetwork>,
        config: DirectorConfig,
        events: mpsc::Sender<DirectorEvent>,
    ) -> Self {
        let map = control.map();
        let now = Instant::now();
        let detector = Detector::new((config.now)(), config.detector);
        let paths = Paths::new((config.now)(), control.node(), config.paths);
        Self {
            control,
            network,
            config,
            events,
            map,
            detector,
            paths,
            beats: 0,
            heard: BTreeMap::new(),
            slow: BTreeSet::new(),
            pass_again: now,
            passes_lead: false,
            unactivated: BTreeMap::new(),
            patience: Patience::default(),
            started: now,
            waiting: Vec::new(),
            unplaced: Vec::new(),
            proposal: None,
            pause: now,
            rest: now,
            look_again: now,
            dirty: true,
            led: false,
        }
    }

    /// Runs until it is dropped, or control is.
    pub fn run(mut self) -> BoxFuture<'static, ()> {
        async move {
            let interval = Duration::from_nanos(self.config.detector.interval.0);
            let mut ticks = tokio::time::interval(interval);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let network = Arc::clone(&self.network);
            self.watch_nodes();
            loop {
                tokio::select! {
                    _ = ticks.tick() => self.tick().await,
                    fact = network.receive() => self.fact(fact),
                    changed = self.map.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        self.watch_nodes();
                        self.dirty = true;
                    }
                    (directive, took, result) = pending(&mut self.proposal) => {
                        self.proposal = None;
                        self.proposed(directive, took, result);
                    }
                }
                self.direct();
            }
        }
        .boxed()
    }

    fn say(&self, event: DirectorEvent) {
        // The event log is behind: these are not worth waiting for.
        let _ = self.events.try_send(event);
    }

    fn watch_nodes(&mut self) {
        let me = self.control.node();
        let map = self.map.borrow_and_update().clone();
        let runs = map.nodes.values().filter(|n| n.id != me && n.incarnation.0 > 0);
        let others = runs.clone().map(|n| n.id);
        let now = (self.config.now)();
        for verdict in self.detector.watch(now, runs.map(|n| (n.id, n.incarnation))) {
            self.judged(verdict);
        }
        self.paths.watch(now, others.clone());
        self.network.keep_paths(&others.collect());
        self.heard.retain(|node, _| map.nodes.contains_key(node));
        self.slow.retain(|node| map.nodes.contains_key(node));
        self.patience.look(self.uptime(), &map);
    }

    /// For how long this director runs, on a clock that stands still while the host sleeps.
    fn uptime(&self) -> Time {
        Time(self.started.elapsed().as_nanos() as u64)
    }

    fn fact(&mut self, fact: HeartbeatFact) {
        let now = (self.config.now)();
        match fact {
            HeartbeatFact::Beat { from, path, beat } => {
                let Ok(beat) = codec::decode::<Beat>(&beat) else { return };
                let known = self.map.borrow().nodes.get(&from).map(|n| n.incarnation);
                // A beat of an earlier run was under way when that run ended.
                if known.is_some_and(|current| beat.incarnation >= current) {
                    self.detector.heartbeat(now, from);
                    let lossy = beat.said.lossy.iter().map(|(node, _)| *node);
                    let poor = lossy.chain(beat.said.broken.iter().copied()).collect();
                    self.paths.heard(now, from, path, beat.deaf, poor);
                    match beat.said.slow || beat.said.unwritten {
                        true => self.slow.insert(from),
                        false => self.slow.remove(&from),
                    };
                    self.network.heard(from, beat.said);
                    self.heard.insert(from, beat.incarnation);
                }
            }
            HeartbeatFact::Sent { to, packets } => self.paths.sent(now, to, packets),
            HeartbeatFact::Refused { node } => self.detector.refused(now, node),
        }
    }

    async fn tick(&mut self) {
        for news in self.paths.tick((self.config.now)()) {
            if let PathNews::Changed(PathChange { node, path, .. }) = news {
                self.network.use_path(node, path);
            }
            if news.is_worth_telling() {
                tracing::info!(?news, "the way to a node");
                self.say(DirectorEvent::Path(news));
            }
        }
        self.send_beats();
        for verdict in self.detector.tick((self.config.now)()) {
            self.judged(verdict);
            let dead_leader = self.control.leader() == Some(verdict.node);
            if verdict.liveness == Liveness::Dead && dead_leader && self.first_in_line() {
                // No need to wait out the rest of a random term. The others still honour the leader's lease.
                self.control.elect().await;
            }
        }
        let leads = self.control.is_leader();
        if leads && self.control.writes_slowly() {
            self.pass_lead();
        }
        if !leads && std::mem::take(&mut self.passes_lead) {
            self.say(DirectorEvent::PassedLead);
        }
        if leads != self.led || Instant::now() >= self.look_again {
            self.led = leads;
            self.dirty = true;
            self.look_again = Instant::now() + LOOK_EVERY;
        }
    }

    fn judged(&mut self, Verdict { node, liveness }: Verdict) {
        tracing::info!(node = node.0, ?liveness, "failure detector");
        self.say(DirectorEvent::Liveness { node, liveness });
        self.dirty = true;
        self.rest = Instant::now();
    }

    /// To a voter that lives and is not slow. Each change of what control decides waits for the leader's disk.
    fn pass_lead(&mut self) {
        let me = self.control.node();
        let may = |n: &NodeId| *n != me && self.detector.liveness(*n) == Some(Liveness::Alive);
        let voters = self.control.metrics().voters;
        let not_to: BTreeSet<NodeId> =
            voters.iter().copied().filter(|n| !may(n) || self.slow.contains(n)).collect();
        if Instant::now() < self.pass_again || voters.iter().all(|n| not_to.contains(n)) {
            return;
        }
        self.pass_again = Instant::now() + PASS_AGAIN;
        self.passes_lead = true;
        let control = self.control.clone();
        tokio::spawn(async move {
            let passed = control.hand_over_lead(&not_to).await;
            tracing::info!(passed, "this node is slow to write what control decides: another one is to lead");
        });
    }

    /// Whether this node is the lowest voter that lives, so that not all call an election at once. One that is slow comes last.
    fn first_in_line(&self) -> bool {
        let alive =
            |n: &NodeId| *n == self.control.node() || self.detector.liveness(*n) == Some(Liveness::Alive);
        let is_slow = |n: &NodeId| match *n == self.control.node() {
            true => self.control.writes_slowly(),
            false => self.slow.contains(n),
        };
        let living = self.control.metrics().voters.into_iter().filter(alive);
        living.min_by_key(|n| (is_slow(n), *n)) == Some(self.control.node())
    }

    fn send_beats(&mut self) {
        let now = (self.config.now)();
        let (me, incarnation) = (self.control.node(), self.config.incarnation);
        self.beats += 1;
        let filler = filler(self.beats);
        let (broken, lossy) = (self.network.broken(), self.paths.lossy());
        let unwritten = self.control.unwritten().is_some();
        let said = Said { broken, lossy, unwritten, slow: self.control.writes_slowly() };
        self.network.heard(me, said.clone());
        let map = self.map.borrow().clone();
        for node in map.nodes.values().filter(|n| n.id != me && n.incarnation.0 > 0) {
            let deaf = self.paths.deaf_to(now, node.id);
            let beat = Beat { incarnation, deaf, said: said.clone(), filler: filler.clone() };
            // Numbers and bytes: it can be written.
            let beat: Bytes = codec::encode(&beat).unwrap_or_default().into();
            self.network.send(node.id, &node.address, PeerPath::Direct, beat.clone());
            if self.paths.relays_beat(now, node.id) {
                self.network.send(node.id, &node.address, PeerPath::Relayed, beat);
            }
        }
    }

    /// Proposes what is to be done, if this node leads and nothing is under way.
    fn direct(&mut self) {
        let now = Instant::now();
        let is_due = self.dirty && self.proposal.is_none() && now >= self.pause.max(self.rest);
        if !is_due || !self.control.is_leader() {
            return;
        }
        self.dirty = false;
        let directive = self.plan();
        if directive.commands.is_empty() {
            self.rest = Instant::now() + REST_FACTOR * now.elapsed();
            return;
        }
        let control = self.control.clone();
        let started = Instant::now();
        let proposal = async move {
            let result = control.propose(Command::Batch(directive.commands.clone())).await;
            (directive, started.elapsed(), result)
        };
        self.proposal = Some(proposal.boxed());
    }

    fn plan(&mut self) -> Directive {
        let map = self.map.borrow().clone();
        let mut directive = self.judge_nodes(&map);
        let mut next = (*map).clone();
        for command in &directive.commands {
            // Made from this map: each applies.
            let _ = apply(&mut next, command.clone());
        }
        let stuck = self.stuck(&next);
        let plan = plan_grants(&next, &stuck);
        for id in &stuck {
            // Its next owner gets a full term.
            self.unactivated.remove(id);
        }
        if plan.waiting != self.waiting {
            self.waiting.clone_from(&plan.waiting);
            self.say(DirectorEvent::Waiting(plan.waiting));
        }
        directive.commands.extend(plan.grants.into_iter().take(BATCH));
        self.plan_replacements(&next, &mut directive);
        directive
    }

    /// Other disks for copies that are lost. Made from the map before the grants of the same batch: one that a grant
    /// makes stale is planned again.
    fn plan_replacements(&mut self, map: &ClusterMap, directive: &mut Directive) {
        let after = holdfast_types::Duration(self.config.replace_after.as_nanos() as u64);
        let plan = plan_replacements(map, &self.patience.given_up(self.uptime(), after));
        if plan.unplaced != self.unplaced {
            self.unplaced.clone_from(&plan.unplaced);
            self.say(DirectorEvent::Unplaced(plan.unplaced));
        }
        directive.commands.extend(plan.drops);
        directive.commands.extend(plan.replacements.iter().map(|r| r.command.clone()));
        directive.replacements = plan.replacements;
    }

    fn judge_nodes(&self, map: &ClusterMap) -> Directive {
        let mut directive = Directive::default();
        let me = self.control.node();
        for node in map.nodes.values().filter(|n| n.incarnation.0 > 0) {
            let incarnation = node.incarnation;
            let lives = node.id == me && incarnation == self.config.incarnation
                || self.detector.liveness(node.id) == Some(Liveness::Alive)
                    && self.heard.get(&node.id) == Some(&incarnation);
            let dead = node.id != me && self.detector.liveness(node.id) == Some(Liveness::Dead);
            match node.state {
                NodeState::Up | NodeState::Stopping if dead => {
                    directive.down.push(node.id);
                    directive.commands.push(Single::NodeDown { node: node.id, incarnation });
                }
                NodeState::Down if lives => {
                    directive.up.push(node.id);
                    directive.commands.push(Single::NodeUp { node: node.id, incarnation });
                }
                _ => {}
            }
        }
        directive
    }

    /// The segments whose grant has not been activated for too long.
    fn stuck(&mut self, map: &ClusterMap) -> BTreeSet<SegmentId> {
        let now = Instant::now();
        let mut still = BTreeMap::new();
        for (id, info) in map.segments.iter().filter(|(_, i)| i.active.epoch != i.granted.epoch) {
            let since = match self.unactivated.get(id) {
                Some((epoch, since)) if *epoch == info.granted.epoch => *since,
                _ => now,
            };
            still.insert(*id, (info.granted.epoch, since));
        }
        self.unactivated = still;
        let late = |since: &Instant| now.duration_since(*since) >= self.config.stuck_after;
        self.unactivated.iter().filter(|(_, (_, since))| late(since)).map(|(id, _)| *id).collect()
    }

    fn proposed(&mut self, done: Directive, took: Duration, result: Result<CommandResult, ProposeError>) {
        // The map has changed, or the same is to be tried again.
        self.dirty = true;
        match result {
            Ok(result) => {
                let grants = accepted_grants(&done.commands, &result);
                let replaced: Vec<Replacement> = done
                    .replacements
                    .into_iter()
                    .filter(|r| accepted(&done.commands, &result).any(|command| *command == r.command))
                    .collect();
                if !replaced.is_empty() {
                    self.say(DirectorEvent::Replaced(replaced));
                }
                if grants > 0 || !done.down.is_empty() || !done.up.is_empty() {
                    self.say(DirectorEvent::Directed { down: done.down, up: done.up, grants, took });
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a proposal of the director brought nothing");
                self.pause = Instant::now() + PAUSE_AFTER_FAILURE.max(self.control.timings().heartbeat);
                self.say(DirectorEvent::Failed(error));
            }
        }
    }
}

fn accepted_grants(commands: &[Single], result: &CommandResult) -> usize {
    accepted(commands, result).filter(|command| matches!(command, Single::Segment(_))).count()
}

/// The commands about segments that changed something.
fn accepted<'a>(commands: &'a [Single], result: &'a CommandResult) -> impl Iterator<Item = &'a Single> {
    let results: &[_] = match result {
        CommandResult::Batch(results) => results,
        _ => &[],
    };
    let done = SingleResult::Segment(holdfast_types::SegmentCommandResult::Done);
    let is_done = move |result: &Result<SingleResult, _>| result.as_ref().is_ok_and(|r| *r == done);
    commands.iter().zip(results).filter(move |(_, result)| is_done(result)).map(|(command, _)| command)
}

async fn pending(
    proposal: &mut Option<Proposal>,
) -> (Directive, Duration, Result<CommandResult, ProposeError>) {
    match proposal {
        Some(proposal) => proposal.await,
        None => std::future::pending().await,
    }
}
