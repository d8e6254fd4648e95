//! Links between nodes: each node dials every other one. A link keeps order; while the way is cut, what is sent
//! waits (as in TCP); when it breaks, everything in flight is lost and its sender hears of that some time later.

use crate::event::{Event, Queue};
use bytes::Bytes;
use holdfast_store::testing::Rng;
use holdfast_types::{Duration, NodeId, Time};
use std::collections::{BTreeMap, BTreeSet};

/// What one node dialled.
#[derive(Debug, Default)]
struct Link {
    up: bool,
    generation: u64,
    /// The last frame arrives then.
    last: Time,
    /// Frames that came to the cut.
    stalled: Vec<(Bytes, Bytes)>,
}

/// All links, and where the ways between nodes are cut.
#[derive(Debug, Default)]
pub struct Net {
    links: BTreeMap<(NodeId, NodeId), Link>,
    cuts: BTreeSet<(NodeId, NodeId)>,
}

fn pair(a: NodeId, b: NodeId) -> (NodeId, NodeId) {
    (a.min(b), a.max(b))
}

impl Net {
    /// Whether two nodes reach each other, were both up.
    pub fn open(&self, a: NodeId, b: NodeId) -> bool {
        a == b || !self.cuts.contains(&pair(a, b))
    }

    /// A dial succeeded. The link's generation.
    pub fn connect(&mut self, from: NodeId, to: NodeId) {
        let link = self.links.entry((from, to)).or_default();
        link.generation += 1;
        link.up = true;
    }

    /// Whether the link is up as far as its sender knows.
    pub fn is_up(&self, from: NodeId, to: NodeId) -> bool {
        self.links.get(&(from, to)).is_some_and(|l| l.up)
    }

    /// The sender noticed that this generation is broken. Whether that is news.
    pub fn lost(&mut self, from: NodeId, to: NodeId, generation: u64) -> bool {
        let Some(link) = self.links.get_mut(&(from, to)).filter(|l| l.up && l.generation == generation)
        else {
            return false;
        };
        link.up = false;
        link.stalled.clear();
        true
    }

    /// Sends a frame.
    pub fn send(
        &mut self,
        queue: &mut Queue,
        rng: &mut Rng,
        from: NodeId,
        to: NodeId,
        header: Bytes,
        payload: Bytes,
    ) {
        let Some(link) = self.links.get_mut(&(from, to)).filter(|l| l.up) else { return };
        let slow = if rng.one_in(50) { 20_000 } else { 0 };
        let arrives = queue.now() + Duration::from_micros(20 + rng.below(200) + rng.below(slow + 1));
        link.last = link.last.max(arrives);
        queue.at(link.last, Event::Frame { from, to, generation: link.generation, header, payload });
    }

    /// A frame comes to its peer, or to the cut on the way. What arrives.
    pub fn arrive(
        &mut self,
        from: NodeId,
        to: NodeId,
        generation: u64,
        frame: (Bytes, Bytes),
    ) -> Option<(Bytes, Bytes)> {
        let cut = !self.open(from, to);
        let link = self.links.get_mut(&(from, to)).filter(|l| l.up && l.generation == generation)?;
        // What waits stays before what comes.
        if cut || !link.stalled.is_empty() {
            link.stalled.push(frame);
            return None;
        }
        Some(frame)
    }

    /// Cuts the way between two nodes. Links that are not used again before their time is out break.
    pub fn cut(&mut self, queue: &mut Queue, rng: &mut Rng, a: NodeId, b: NodeId) {
        if a == b || !self.cuts.insert(pair(a, b)) {
            return;
        }
        for (from, to) in [(a, b), (b, a)] {
            if let Some(link) = self.links.get(&(from, to)).filter(|l| l.up) {
                let generation = link.generation;
                let noticed = Duration::from_millis(200 + rng.below(2500));
                queue.after(noticed, Event::LinkLost { from, to, generation });
            }
        }
    }

    /// The way is open again: what waited goes on. What is planned to break still does, later than what waited
    /// arrives, which real links do as well.
    pub fn mend(&mut self, queue: &mut Queue, a: NodeId, b: NodeId) {
        self.cuts.remove(&pair(a, b));
        for (from, to) in [(a, b), (b, a)] {
            let Some(link) = self.links.get_mut(&(from, to)) else { continue };
            let generation = link.generation;
            for (header, payload) in std::mem::take(&mut link.stalled) {
                link.last = link.last.max(queue.now());
                queue.at(link.last, Event::Frame { from, to, generation, header, payload });
            }
        }
    }

    /// All ways are open again.
    pub fn mend_all(&mut self, queue: &mut Queue) {
        for (a, b) in self.cuts.clone() {
            self.mend(queue, a, b);
        }
    }

    /// A node's daemon died: what it dialled is gone; those who dialled it notice some time later.
    pub fn died(&mut self, queue: &mut Queue, rng: &mut Rng, node: NodeId, silently: bool) {
        for ((from, to), link) in &mut self.links {
            if *from == node {
                link.up = false;
                link.stalled.clear();
            } else if *to == node && link.up {
                // Frames that are under way find nobody.
                link.stalled.clear();
                let generation = link.generation;
                let late = if silently { 500 + rng.below(2500) } else { rng.below(5) };
                queue
                    .after(Duration::from_millis(late), Event::LinkLost { from: *from, to: *to, generation });
            }
        }
    }
}
