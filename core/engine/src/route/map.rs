//! What control says: which copies this node holds, what it owns, where requests go, which gateways are dead.

use crate::Engine;
use crate::gateway::Route;
use crate::io::{Output, Outputs};
use crate::route::changed::Changed;
use crate::route::copies::Owned;
use crate::timers::Machine;
use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;
use holdfast_cluster::{ClusterMap, NodeState};
use holdfast_replication::{Owner, Replica};
use holdfast_types::{
    DiskId, GatewayId, NodeId, ProcessIncarnation, ReplicaRef, SegmentInfo, SegmentKey, Time,
};

impl Engine {
    /// Control numbered this run. Its first gateway has the same number.
    pub(crate) fn started(&mut self, now: Time, incarnation: ProcessIncarnation, out: &mut Outputs) {
        self.incarnation = Some(incarnation);
        self.gateway_renewed(now, incarnation, out);
        self.refresh(now, out);
        self.open_early(now, out);
    }

    /// Control gave this node's gateway a new number.
    pub(crate) fn gateway_renewed(&mut self, now: Time, run: ProcessIncarnation, out: &mut Outputs) {
        // Sessions that have to be registered first are held before the gateway sends anything.
        self.gateway.renew(run);
        self.register_all(now, out);
        self.with_gateway(out, |gateway, o| gateway.send_all(now, o));
    }

    /// A newer map. An older one, which a follower may offer after a restart of its leader, is passed over.
    pub(crate) fn map_changed(&mut self, now: Time, map: Arc<ClusterMap>, out: &mut Outputs) {
        if map.version <= self.map.version {
            return;
        }
        let before = core::mem::replace(&mut self.map, map);
        let exports = self.map.exports();
        if exports != self.exports {
            self.exports = exports;
            self.exports_changed(now, out);
        }
        let changed = Changed::since(&before, &self.map, self.config.node);
        self.bring_in_line(now, &changed, out);
    }

    /// Brings copies, owners and routes in line with the map. Idempotent.
    pub(crate) fn refresh(&mut self, now: Time, out: &mut Outputs) {
        let everything = Changed::everything(&self.map, Vec::new());
        self.bring_in_line(now, &everything, out);
    }

    fn bring_in_line(&mut self, now: Time, changed: &Changed, out: &mut Outputs) {
        let map = self.map.clone();
        for key in &changed.gone {
            self.with_gateway(out, |gateway, o| gateway.gone(*key, o));
            self.lose_owner(*key, out);
        }
        self.refresh_copies(now, changed, out);
        self.free_deleted(now, &map, changed, out);
        for info in &changed.infos {
            self.refresh_owner(now, info, out);
            let route = Route { owner: info.granted.owner, epoch: info.granted.epoch };
            self.with_gateway(out, |gateway, o| gateway.route(now, info.key, route, o));
        }
        self.leave_slow_disks(now, out);
        self.fence_dead_gateways(now, &map, out);
        let (own, _) = self.gateway.id();
        if own.incarnation.0 > 0 && gateway_is_dead(&map, own) {
            self.with_gateway(out, |gateway, o| gateway.run_ended(o));
        }
    }

    fn refresh_copies(&mut self, now: Time, changed: &Changed, out: &mut Outputs) {
        let node = self.config.node;
        let mine = |r: &&ReplicaRef| r.node == node;
        let members = changed.infos.iter().flat_map(|s| s.members.iter().filter(mine).map(|r| (s.key, *r)));
        let wanted: Vec<(SegmentKey, ReplicaRef)> =
            members.filter(|(_, r)| self.disk_in_use(r.disk) == Some(r.incarnation)).collect();
        let keep: BTreeSet<_> = wanted.iter().map(|(key, r)| (*key, r.disk)).collect();
        let ended = match changed.is_everything {
            true => self.copies.end_replicas(.., |copy| !keep.contains(copy)),
            false => {
                let keys = changed.infos.iter().map(|s| s.key).chain(changed.gone.iter().copied());
                let ended = keys.map(|key| (key, DiskId(0))..=(key, DiskId(u128::MAX)));
                ended.flat_map(|of| self.copies.end_replicas(of, |copy| !keep.contains(copy))).collect()
            }
        };
        for copy in ended {
            self.timers.set(Machine::Replica(copy.0, copy.1), None);
        }
        for (key, me) in wanted {
            if self.copies.replicas.contains_key(&(key, me.disk)) {
                continue;
            }
            let mut state = None;
            self.with_store(now, me.disk, out, |store, _| {
                store.create_replica(now, key);
                state = store.replica_state(key);
            });
            if let Some(state) = state {
                let replica = Replica::new(now, key, me, state, self.config.replica.clone());
                let replica = replica.numbered_from(self.copies.ended_at.max(1));
                self.timers.set(Machine::Replica(key, me.disk), replica.next_timer());
                self.copies.replicas.insert((key, me.disk), replica);
            }
        }
    }

    /// Only a tombstone frees a copy; that a segment is absent from a map never does (replication.md H19). Control hears
    /// of it when the copy is gone durably: after a crash before that it is found on the disk and given up again.
    fn free_deleted(&mut self, now: Time, map: &ClusterMap, changed: &Changed, out: &mut Outputs) {
        let node = self.config.node;
        for (key, tombstone) in changed.freed.iter().filter_map(|key| Some((key, map.tombstones.get(key)?))) {
            for copy in tombstone.copies.iter().filter(|c| c.node == node) {
                if self.disk_in_use(copy.disk) != Some(copy.incarnation) {
                    continue;
                }
                self.with_store(now, copy.disk, out, |store, o| store.drop_replica(now, *key, o));
            }
        }
    }

    fn refresh_owner(&mut self, now: Time, info: &SegmentInfo, out: &mut Outputs) {
        let grant = &info.granted;
        let mine = grant.owner == self.config.node && Some(grant.owner_incarnation) == self.incarnation;
        if let Some(owned) = self.copies.owners.get(&info.key) {
            let current = mine && owned.epoch == grant.epoch;
            self.with_owner(now, info.key, out, |owner, o| owner.info_changed(now, info, o));
            if current {
                return;
            }
            self.lose_owner(info.key, out);
        }
        if !mine {
            return;
        }
        let own = grant.set.iter().find(|r| r.node == self.config.node);
        let Some(own) = own.filter(|r| self.copies.replicas.contains_key(&(info.key, r.disk))) else {
            // Its disk is not open yet; `refresh` comes back when it is.
            return;
        };
        let mut orders = Vec::new();
        let config = self.config.owner.clone();
        let owner = Owner::new(now, self.config.node, info, &self.links, config, &mut orders);
        let (disk, epoch) = (own.disk, grant.epoch);
        let owned = Owned {
            owner,
            epoch,
            disk,
            checks: Vec::new(),
            fences: BTreeSet::new(),
            fenced: BTreeSet::new(),
        };
        self.copies.owners.insert(info.key, owned);
        self.with_owner(now, info.key, out, |_, o| o.extend(orders));
    }

    fn lose_owner(&mut self, segment: SegmentKey, out: &mut Outputs) {
        if let Some(owned) = self.copies.end_owner(segment) {
            out.extend(owned.checks.into_iter().map(|number| Output::Checked { number, report: None }));
            out.extend(owned.fences.into_iter().map(|number| Output::SessionFenced { number, done: false }));
        }
        self.timers.set(Machine::Owner(segment), None);
        self.copies.touched.remove(&segment);
        self.follow.forget(segment);
    }

    /// What a dead gateway sent and is not in the log never will be (replication.md R9).
    fn fence_dead_gateways(&mut self, now: Time, map: &ClusterMap, out: &mut Outputs) {
        let dead = |gateway| gateway_is_dead(map, gateway);
        let owned = self.copies.owners.iter().flat_map(|(segment, owned)| {
            owned.owner.unfenced(dead).into_iter().map(|gateway| (*segment, gateway))
        });
        for (segment, gateway) in owned.collect::<Vec<_>>() {
            self.fence_gateway(now, segment, gateway, out);
        }
    }

    /// Puts a fence against a gateway into the log of a segment that this node owns, once.
    pub(crate) fn fence_gateway(
        &mut self,
        now: Time,
        segment: SegmentKey,
        gateway: GatewayId,
        out: &mut Outputs,
    ) {
        let owned = self.copies.owners.get_mut(&segment);
        if owned.is_some_and(|o| o.fenced.insert(gateway)) {
            self.with_owner(now, segment, out, |owner, o| owner.fence(now, gateway, None, 0, o));
        }
    }

    /// The nodes that may be given the segment: others, up, with a link to them and a copy of S that can be reached.
    pub(crate) fn may_own<'a>(&'a self, info: &'a SegmentInfo) -> impl Iterator<Item = NodeId> + 'a {
        let up = |n: &NodeId| self.map.nodes.get(n).is_some_and(|n| n.state == NodeState::Up);
        let is_other = move |n: &NodeId| *n != self.config.node && up(n) && self.links.contains(n);
        info.granted.set.iter().filter(|r| self.map.reachable(r)).map(|r| r.node).filter(is_other)
    }
}

/// Whether a gateway's number is void: its node was declared down under it, or has a later one.
pub(crate) fn gateway_is_dead(map: &ClusterMap, gateway: GatewayId) -> bool {
    map.nodes.get(&gateway.node).is_none_or(|node| gateway.incarnation.0 < node.runs)
}
