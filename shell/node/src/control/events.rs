//! What goes into this node's event log: in the words of an operator, with who, what, when and why.

use super::group::{CastOut, FORGOT};
use super::view;
use crate::config::LocalDisk;
use holdfast_api::EventLog;
use holdfast_api::events::NewEvent;
use holdfast_api::model::{CheckFinding, EventLevel};
use holdfast_cluster::{PathChange, PathFault, PathNews, Reason, Unplaced};
use holdfast_consensus::{Damage, DirectorEvent};
use holdfast_engine::{EngineEvent, FrontEndKind};
use holdfast_net::{ConnectError, Refusal};
use holdfast_replication::ReplicationEvent;
use holdfast_store::{OpenReport, StoreEvent};
use holdfast_types::{DiskId, NodeId, PeerPath, ProcessIncarnation};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

/// Where lost copies, or those whose disk has no room for them, lack a place: what is to be done about each.
pub fn no_place(unplaced: &[Unplaced]) -> Vec<String> {
    let (short, gone): (Vec<&Unplaced>, Vec<&Unplaced>) =
        unplaced.iter().partition(|u| u.reason == Reason::NoRoom);
    let pools = |of: &[&Unplaced]| {
        let pools: BTreeSet<&str> = of.iter().map(|u| u.pool.as_str()).collect();
        let add = |pool: &&str| {
            format!("add a disk to pool '{pool}' on their own node, or on one that has no other copy of them")
        };
        pools.iter().map(add).collect::<Vec<_>>().join("; ")
    };
    let mut lines = Vec::new();
    match gone.len() {
        0 => {}
        1 => lines.push(format!("1 copy that is gone has no other place: {}", pools(&gone))),
        n => lines.push(format!("{n} copies that are gone have no other place: {}", pools(&gone))),
    }
    let advice = "discard data (fstrim) or";
    match short.len() {
        0 => {}
        1 => lines.push(format!(
            "1 copy is not in sync, its disk is full, and no other has room for it: {advice} {}",
            pools(&short)
        )),
        n => lines.push(format!(
            "{n} copies are not in sync, their disks are full, and no others have room for them: {advice} {}",
            pools(&short)
        )),
    }
    lines
}

/// Writes the event log of this node. Cheap to clone.
#[derive(Clone)]
pub struct Events {
    log: EventLog,
}

impl Events {
    /// Over an open log.
    pub fn new(log: EventLog) -> Self {
        Self { log }
    }
    /// The log itself, for queries.
    pub fn log(&self) -> &EventLog {
        &self.log
    }

    /// Logs something that an operator did.
    pub fn operator(&self, kind: &'static str, what: String) {
        self.append(EventLevel::Info, "operator", kind, what, String::new());
    }

    fn append(&self, level: EventLevel, who: &str, kind: &'static str, what: String, why: String) {
        let event = NewEvent { level, who: who.into(), kind, what, why };
        self.log.append(event);
    }

    /// The daemon runs.
    pub fn started(&self, incarnation: ProcessIncarnation) {
        let what = format!("daemon started, run {}", incarnation.0);
        self.append(EventLevel::Info, "node", "node-started", what, String::new());
    }
    /// The daemon is about to end in good order.
    pub fn stopped(&self) {
        self.append(EventLevel::Info, "node", "node-stopped", "daemon stops".into(), "asked to".into());
        self.log.flush();
    }
    /// A disk is in use.
    pub fn disk_opened(&self, disk: DiskId, report: &OpenReport, regressed: bool) {
        let mut what = format!("disk {disk} opened, {} records replayed", report.records_replayed);
        if report.torn_tail_cut {
            what += ", a torn write at the journal's end cut off";
        }
        if let Some(before) = report.grown_from {
            what += &format!(", its device has grown: {} MiB of it were used before", before >> 20);
        }
        let (mut level, mut why) = (EventLevel::Info, "");
        if !report.unreadable.is_empty() {
            let places: Vec<String> = report.unreadable.iter().map(u64::to_string).collect();
            let (blocks, bytes) = if places.len() == 1 { ("block", "byte") } else { ("blocks", "bytes") };
            what += &format!(", its {blocks} at {bytes} {} could not be read", places.join(", "));
            (level, why) = (
                EventLevel::Warning,
                "its power failed while it wrote there, or its medium fails: see the kernel log and `smartctl`",
            );
        }
        if regressed {
            let why = "it is an older copy of itself; its copies are rebuilt from the others".into();
            return self.append(EventLevel::Error, "disk", "disk-regressed", what, why);
        }
        self.append(level, "disk", "disk-opened", what, why.into());
    }
    /// A disk is not in use.
    pub fn disk_refused(&self, disk: DiskId, why: &str) {
        self.append(
            EventLevel::Error,
            "disk",
            "disk-refused",
            format!("disk {disk} is not used"),
            why.into(),
        );
    }

    /// A disk of this node's list is not opened, as it was removed from the cluster.
    pub fn disk_left_out(&self, disk: &LocalDisk) {
        let what = format!("disk {} at {} is not opened", disk.id, disk.path.display());
        let why = "it was removed from the cluster; `disk add --wipe-disk` makes a new one of it".into();
        self.append(EventLevel::Info, "disk", "disk-left-out", what, why);
    }
    /// This node is no part of the cluster any more.
    pub fn cast_out(&self, cast_out: &CastOut) {
        let why = "another node said so".into();
        self.append(EventLevel::Error, "node", cast_out.event, cast_out.why.into(), why);
    }

    /// This node has forgotten its part in control.
    pub fn control_forgotten(&self, damage: Option<&Damage>) {
        let why = match damage {
            Some(damage) => {
                format!("control's database is damaged ({}), kept as {}", damage.what, damage.kept.display())
            }
            None => "control's database is not there, or empty".into(),
        };
        self.append(EventLevel::Error, "control", "control-forgotten", FORGOT.into(), why);
    }

    /// One file of control's database was damaged, and the other one was not.
    pub fn control_mended(&self, damage: &Damage) {
        let what =
            "the record of the control plane was mended from its second file, nothing of it is missing";
        let why = format!("one file is damaged ({}), kept as {}", damage.what, damage.kept.display());
        self.append(EventLevel::Warning, "control", "control-mended", what.into(), why);
    }

    /// The others let this node in again, which had forgotten its part in control.
    pub fn let_in_again(&self) {
        let why = "a majority of the others took it out of the group and let it in anew";
        let what = "this node takes part in control again";
        self.append(EventLevel::Info, "control", "let-in-again", what.into(), why.into());
    }

    /// What control decides cannot be written.
    pub fn control_unwritten(&self, why: &str) {
        let what =
            "what control decides cannot be written here; this node goes on with what it knows".to_owned();
        self.append(EventLevel::Error, "control", "control-unwritten", what, why.to_owned());
    }

    /// It can again.
    pub fn control_written(&self, after: Duration) {
        let what = format!("what control decides is written here again, after {} ms", after.as_millis());
        self.append(EventLevel::Info, "control", "control-written", what, String::new());
    }

    /// A node's control has less than it had acknowledged.
    pub fn control_reverted(&self, node: NodeId) {
        let what = format!(
            "node {node}'s record of the control plane is older than what that node had acknowledged"
        );
        let why = "its disk lost what it had been told to flush, or the host or the file was put back to an earlier \
                   state; what it lacks is sent to it, but what is lost on two nodes at once may be lost for good";
        self.append(EventLevel::Error, "control", "control-reverted", what, why.into());
    }

    /// A node that runs was taken for lost when control was recovered.
    pub fn taken_for_lost(&self, node: NodeId) {
        let what = format!("node {node} runs, with a control plane that was given up");
        let why = "it was taken for lost when control was recovered; stop its daemon, let it follow with the line that \
                   the event control-recovery has, or wipe it";
        self.append(EventLevel::Error, "control", "node-taken-for-lost", what, why.into());
    }

    /// Control is made anew of a stopped node, or a stopped node is to follow one.
    pub fn recovery(&self, what: String) {
        self.append(EventLevel::Warning, "operator", "control-recovery", what, "its majority is lost".into());
    }

    /// What was due in so many seconds is not scrubbed before it is due again.
    pub fn scrub_behind(&self, seconds: u64) {
        let what = format!("the scrub leaves out what became due in {} hours", seconds.div_ceil(3600));
        let why = "this node was away, or owns more than it can read in time".into();
        self.append(EventLevel::Warning, "scrub", "scrub-behind", what, why);
    }

    /// A segment of the volume was scrubbed.
    pub fn scrubbed(&self, volume: &str, findings: &[CheckFinding]) {
        let Some(first) = findings.first() else { return };
        let healed = findings.iter().filter(|f| f.healed).count();
        let many = match findings.len() {
            1 => "1 block of a copy is not as it should be:".to_owned(),
            n => format!("{n} blocks of copies are not as they should be, the first"),
        };
        let what = format!(
            "volume {volume}, segment {}: {many} at byte {} on node {}, disk {}: {}; {healed} healed",
            first.segment, first.offset, first.node, first.disk, first.what
        );
        let level = if healed == findings.len() { EventLevel::Warning } else { EventLevel::Error };
        self.append(
            level,
            "scrub",
            "scrub-found",
            what,
            "every copy is read and compared now and then".into(),
        );
    }

    /// So many connections to this node were refused; the last one came from there.
    pub fn refused(&self, refusal: Refusal, count: u64, from: IpAddr) {
        let times = if count == 1 { String::new() } else { format!(", {count} times") };
        let what = format!("a connection from {from} was refused{times}: {refusal}");
        let why = match refusal {
            Refusal::Expired => {
                "compare the clocks of both hosts; a node renews its certificate while it runs"
            }
            Refusal::OtherCluster => "a node of another cluster is configured to reach this address",
            Refusal::OtherVersion => "run the same version on every node",
            Refusal::OtherNode => "was a data folder copied from one node to another? Join that host anew",
            Refusal::NotAMember => {
                "`holdfast node ls` lists the members; if it is a removed node, stop its daemon and wipe its data folder"
            }
            Refusal::OtherKey => {
                "somebody made a certificate with the authority's key: every host that was ever a member has it; find \
                 what runs at that address"
            }
            Refusal::NoCertificate => {
                "what is there is no node: see which program connects from that address"
            }
            Refusal::ChapFailed => "compare its user and secret with those of `holdfast chap set`",
            Refusal::ChapNotSet => "set one with `holdfast chap set`",
            Refusal::NotHoldfast | Refusal::TooSlow | Refusal::Closed => "",
        };
        self.append(EventLevel::Warning, "network", "connection-refused", what, why.into());
    }

    /// This node reaches another one, and is not let in; or what answers is not that node.
    pub fn not_let_in(&self, node: NodeId, error: &ConnectError) {
        let what = format!("no connection to node {node}");
        self.append(EventLevel::Warning, "network", "no-connection", what, error.to_string());
    }

    /// A disk has that much room for new data now. Only what crosses a line is an event.
    pub fn disk_room(&self, disk: &holdfast_cluster::Disk, free: u64) {
        let who = format!("disk {}", disk.path);
        if free == 0 && disk.free > 0 {
            let why = holdfast_api::model::FULL_HELP.into();
            self.append(EventLevel::Error, &who, "disk-full", "full: it takes no new data".into(), why);
        } else if disk.is_nearly_full(free) && !disk.is_nearly_full(disk.free) {
            let what = format!("nearly full: {} left", holdfast_api::size::show(free));
            self.append(
                EventLevel::Warning,
                &who,
                "disk-nearly-full",
                what,
                "it takes no new volumes".into(),
            );
        } else if free > 0 && disk.free == 0 {
            let what = format!("has room again: {}", holdfast_api::size::show(free));
            self.append(EventLevel::Info, &who, "disk-has-room", what, String::new());
        }
    }

    fn path(&self, news: &PathNews) {
        match news {
            PathNews::Lossy(node, packets) => {
                let what = format!("packets to node {node} get lost: {}", view::share_lost(*packets));
                let why = "the kernel had to send them again; a cable, transceiver or port on the way".into();
                self.append(EventLevel::Warning, "network", "path-lossy", what, why);
            }
            PathNews::Clean(node) => {
                let what = format!("packets to node {node} do not get lost any more");
                self.append(EventLevel::Info, "network", "path-clean", what, String::new());
            }
            PathNews::Changed(PathChange { node, path: Some(PeerPath::Relayed), fault, .. }) => {
                let what = format!(
                    "node {node} is not reached directly: what goes there is relayed by another node"
                );
                let why = match fault {
                    Some(PathFault::Lossy) => "packets get lost on the direct way and not on that one".into(),
                    Some(PathFault::SaidByPeer) => format!("node {node} finds fault with the direct way"),
                    Some(PathFault::Silent) | None => "heartbeats come and go by a third node only".into(),
                };
                self.append(EventLevel::Warning, "network", "path-broken", what, why);
            }
            PathNews::Changed(PathChange { node, .. }) => {
                let what = format!("node {node} is reached directly again");
                self.append(EventLevel::Info, "network", "path-whole", what, String::new());
            }
        }
    }

    /// What the director noticed or did.
    pub fn director(&self, event: &DirectorEvent) {
        match event {
            DirectorEvent::Liveness { node, liveness } => {
                let what = format!("node {node} is {}", format!("{liveness:?}").to_lowercase());
                self.append(EventLevel::Warning, "failure detector", "liveness", what, "heartbeats".into());
            }
            DirectorEvent::Path(news) => self.path(news),
            DirectorEvent::Directed { down, up, grants, took } => {
                let names =
                    |nodes: &[NodeId]| nodes.iter().map(|n| n.to_string()).collect::<Vec<_>>().join(", ");
                let what = format!("down: [{}], up: [{}], {grants} grants", names(down), names(up));
                let why = format!("this node leads; took {} ms", took.as_millis());
                self.append(EventLevel::Warning, "control", "directed", what, why);
            }
            DirectorEvent::PassedLead => {
                let what = "it takes this node long to write what control decides: it passed the lead on";
                let why = "the disk of its data folder is slow";
                self.append(EventLevel::Warning, "control", "lead-passed", what.into(), why.into());
            }
            DirectorEvent::Failed(error) => {
                self.append(EventLevel::Warning, "control", "no-majority", error.to_string(), String::new());
            }
            DirectorEvent::Waiting(waiting) => {
                let what = format!("{} segments have too few copies in reach", waiting.len());
                self.append(
                    EventLevel::Error,
                    "control",
                    "segments-wait",
                    what,
                    "their hosts are away".into(),
                );
            }
            DirectorEvent::Replaced(replaced) => {
                for r in replaced {
                    let what = format!(
                        "segment {}: its copy on node {}, disk {}, is placed anew on node {}, disk {}",
                        r.segment.segment, r.from.node, r.from.disk, r.to.node, r.to.disk
                    );
                    let why = match r.reason {
                        Reason::Failed => "its disk has failed".into(),
                        Reason::Missing => "its node runs without its disk".into(),
                        Reason::Silent => "its disk does not answer".into(),
                        Reason::Away => format!("node {} stays away", r.from.node),
                        Reason::NoRoom => "its disk is full, and it was not in sync".into(),
                    };
                    self.append(EventLevel::Warning, "control", "copy-placed-anew", what, why);
                }
            }
            DirectorEvent::Unplaced(unplaced) => {
                let what = match unplaced.as_slice() {
                    [] => "every lost copy has a place again".to_owned(),
                    [one] => format!("a lost copy has no place: segment {}", one.segment.segment),
                    many => format!("{} lost copies have no place", many.len()),
                };
                let why = no_place(unplaced).join("; ");
                let level = if unplaced.is_empty() { EventLevel::Info } else { EventLevel::Error };
                self.append(level, "control", "copies-without-a-place", what, why);
            }
        }
    }

    /// What the engine noticed.
    pub fn engine(&self, event: &EngineEvent) {
        match event {
            EngineEvent::Replication { segment, event } => {
                let level = match event {
                    ReplicationEvent::Phase { .. } => return,
                    ReplicationEvent::Unreadable { .. }
                    | ReplicationEvent::Regressed { .. }
                    | ReplicationEvent::Diverged { .. }
                    | ReplicationEvent::NoRoom { .. }
                    | ReplicationEvent::OneCopyLeft { .. } => EventLevel::Error,
                    ReplicationEvent::Activated { .. }
                    | ReplicationEvent::Adding { .. }
                    | ReplicationEvent::ResyncStarted { .. }
                    | ReplicationEvent::ResyncFinished { .. }
                    | ReplicationEvent::Healed { .. }
                    | ReplicationEvent::RoomAgain { .. }
                    | ReplicationEvent::Resumed => EventLevel::Info,
                    _ => EventLevel::Warning,
                };
                let who = format!("segment {}", segment.segment);
                self.append(level, &who, "replication", event.to_string(), String::new());
            }
            EngineEvent::Store { disk, event } => {
                let look = "the kernel's log may say why: look at its cable, controller and power";
                let wear = "worn out, failing, or too much is asked of it: compare with the other disks, and look at its SMART data";
                let (level, kind, why) = match event {
                    StoreEvent::DiskSilent { .. } => (EventLevel::Error, "disk-silent", look),
                    StoreEvent::DiskAnswers { .. } => (EventLevel::Info, "disk-answers", ""),
                    StoreEvent::DiskSlow { .. } => (EventLevel::Warning, "disk-slow", wear),
                    StoreEvent::DiskKeepsUp { .. } => (EventLevel::Info, "disk-keeps-up", ""),
                    _ => (EventLevel::Error, "store", ""),
                };
                self.append(level, &format!("disk {disk}"), kind, event.to_string(), why.to_owned());
            }
            EngineEvent::LoggedIn { session, kind, initiator, volume } => {
                let protocol = match kind {
                    FrontEndKind::Iscsi => "iSCSI",
                    FrontEndKind::Nbd => "NBD",
                };
                let volume = volume.as_deref().unwrap_or("discovery");
                let what = format!("{protocol} session {} to {volume}", session.0);
                // NBD clients have no name.
                let who = if initiator.is_empty() { "a client" } else { initiator };
                self.append(EventLevel::Info, who, "login", what, String::new());
            }
            EngineEvent::BadFrame { from, error } => {
                let who = format!("node {from}");
                self.append(EventLevel::Error, &who, "bad-frame", error.clone(), String::new());
            }
        }
    }
}
