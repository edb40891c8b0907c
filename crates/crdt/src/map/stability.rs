//! Forgetting: tombstones that everybody has seen, and origins of which
//! nothing is left.
//!
//! A tombstone may go when it is causally stable. That takes two things. Every
//! member has acknowledged it: whatever a member writes from then on exceeds
//! it, because local writes exceed the removals seen. And this replica has
//! seen all that the members had seen when they acknowledged: nothing older is
//! still to come from them. A minimum age covers what members that are gone
//! may have left in flight. What arrives below the floor nevertheless comes
//! from a replica that was away, and was removed.

use std::collections::BTreeMap;

use quorate_types::{Blob, NodeId, planted, sometimes};

use super::entry::Keyspace;
use super::store::DeltaMap;
use crate::{Origin, VersionVector};

/// How much a round of collection forgot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Tombstones.
    pub tombstones: usize,
    /// Origins of earlier lives.
    pub origins: usize,
}

/// What each member is known to have seen.
pub(super) type Members = BTreeMap<NodeId, Acknowledged>;

#[derive(Clone, Debug, Default)]
pub(super) struct Acknowledged {
    /// What the member had seen at a moment all of which we have seen too.
    vector: VersionVector,
    /// A later moment of which we have not seen everything yet. One at a time:
    /// under steady writes the newest would never be caught up with.
    waiting: Option<VersionVector>,
}

/// Origins on their way out of the vector.
#[derive(Clone, Debug, Default)]
pub(super) struct Faded {
    /// Since when nothing of the origin was left, by the caller's clock.
    idle_since: BTreeMap<Origin, u64>,
    /// Origins that have left, with what was seen of them and when they left.
    /// Kept for a while so that a peer that still has them does not bring
    /// them back.
    gone: BTreeMap<Origin, (u64, u64)>,
}

impl Faded {
    pub(super) fn get(&self, origin: Origin) -> u64 {
        self.gone.get(&origin).map_or(0, |&(sequence, _)| sequence)
    }

    pub(super) fn origins(&self) -> VersionVector {
        self.gone.iter().map(|(&origin, &(sequence, _))| (origin, sequence)).collect()
    }

    pub(super) fn revive(&mut self, origin: Origin) {
        self.gone.remove(&origin);
    }
}

impl DeltaMap {
    /// Tells who the members are, whose acknowledgement a collection waits
    /// for. Before this is told, nothing is ever collected. This node need not
    /// be named. Membership decides what is forgotten, never what is stored.
    pub fn retain_members(&mut self, nodes: impl IntoIterator<Item = NodeId>) {
        let mut before = self.members.take().unwrap_or_default();
        let own = self.origin.node;
        let members = nodes.into_iter().filter(|&node| node != own);
        self.members =
            Some(members.map(|node| (node, before.remove(&node).unwrap_or_default())).collect());
    }

    /// Notes what a member has seen ([`crate::Summary::acknowledgement`]). Replaces what was noted before: a member
    /// that restarted has seen less. Says nothing about nodes that are not
    /// members.
    pub fn acknowledge(&mut self, node: NodeId, vector: VersionVector) {
        let caught_up = self.has_seen(&vector);
        let Some(member) = self.members.as_mut().and_then(|members| members.get_mut(&node)) else {
            return;
        };
        if caught_up {
            *member = Acknowledged { vector, waiting: None };
        } else if member.waiting.is_none() {
            member.waiting = Some(vector);
        }
    }

    /// Notes that a member's root is ours, and so its vector: in a cluster at
    /// rest nothing more than roots is exchanged. Says whether it is.
    pub fn acknowledge_root(&mut self, node: NodeId, root: u128) -> bool {
        let equal = root == self.root();
        if equal {
            self.acknowledge(node, self.vector().clone());
        }
        equal
    }

    /// Stops waiting for a node, which has left or has been dead for long.
    pub fn forget_member(&mut self, node: NodeId) {
        if let Some(members) = &mut self.members {
            members.remove(&node);
        }
        if self.resync.as_ref().is_some_and(|resync| resync.cursor.sender.node == node) {
            self.resync = None;
        }
    }

    /// Forgets tombstones and origins that every member has seen and that are
    /// at least `age_millis_min` old. Call it now and then on every node. Also
    /// gives up a reset that has not moved since the last call.
    pub fn collect(&mut self, now_millis: u64, age_millis_min: u64) -> Collected {
        self.resync = self.resync.take().filter(|resync| resync.moved);
        if let Some(resync) = &mut self.resync {
            resync.moved = false;
        }
        self.catch_up();
        Collected {
            tombstones: self.collect_tombstones(now_millis, age_millis_min),
            origins: self.collect_origins(now_millis, age_millis_min),
        }
    }

    /// Takes note of waiting acknowledgements that we have caught up with.
    fn catch_up(&mut self) {
        let mut members = self.members.take();
        for member in members.iter_mut().flat_map(BTreeMap::values_mut) {
            if let Some(vector) = member.waiting.take_if(|waiting| self.has_seen(waiting)) {
                member.vector = vector;
            }
        }
        self.members = members;
    }

    fn has_seen(&self, vector: &VersionVector) -> bool {
        vector.iter().all(|(origin, sequence)| self.seen(origin) >= sequence)
    }

    fn collect_tombstones(&mut self, now_millis: u64, age_millis_min: u64) -> usize {
        let Some(members) = &self.members else { return 0 };
        let have_seen = |dot| {
            if planted!(TombstoneCollectedEarly) {
                return true;
            }
            members.values().all(|member| member.vector.covers(dot))
        };
        let stable: Vec<Blob> = self
            .tombstones
            .iter()
            .filter(|key| {
                self.entries.get(*key).is_some_and(|entry| {
                    now_millis.saturating_sub(entry.stamp.hlc.millis) >= age_millis_min
                        && self.vector.covers(entry.dot)
                        && have_seen(entry.dot)
                })
            })
            .cloned()
            .collect();
        for key in &stable {
            if let Some(entry) = self.entries.get(key)
                && !planted!(TombstoneCollectedEarly)
            {
                self.cut.advance(entry.dot.origin, entry.dot.sequence);
                self.collected.raise(Keyspace::of(key), entry.stamp);
            }
            self.forget(key);
        }
        sometimes!("a tombstone is collected", !stable.is_empty());
        stable.len()
    }

    /// Lets go of origins in steps: idle; out of the cut at half the age, so
    /// that nobody who dropped the origin is taken to be behind; out of the
    /// vector at the full age; forgotten altogether at three times the age.
    fn collect_origins(&mut self, now_millis: u64, age_millis_min: u64) -> usize {
        // Longer than an origin takes to fade, so that a replica that lets go
        // of it has not forgotten it again before the others have let go.
        let memory_millis = age_millis_min.saturating_mul(2);
        self.faded
            .gone
            .retain(|_, &mut (_, since)| now_millis.saturating_sub(since) < memory_millis);
        let idle: Vec<Origin> =
            self.vector.iter().map(|(origin, _)| origin).filter(|&o| self.is_idle(o)).collect();
        let before = std::mem::take(&mut self.faded.idle_since);
        let mut gone = 0;
        for origin in idle {
            let since = before.get(&origin).copied().unwrap_or(now_millis);
            let age_millis = now_millis.saturating_sub(since);
            if age_millis >= age_millis_min / 2 {
                self.cut.remove(origin);
            }
            if age_millis < age_millis_min {
                self.faded.idle_since.insert(origin, since);
                continue;
            }
            self.faded.gone.insert(origin, (self.vector.get(origin), now_millis));
            self.drop_origin(origin);
            gone += 1;
        }
        gone
    }

    /// Whether an origin writes no more, nothing of it is left, and no member
    /// is in the middle of hearing of it.
    fn is_idle(&self, origin: Origin) -> bool {
        let Some(members) = &self.members else { return false };
        let last = self.vector.get(origin);
        let lives_after = Origin::new(origin.node, origin.incarnation.saturating_add(1))
            ..=Origin::new(origin.node, u64::MAX);
        let is_member = origin.node == self.origin.node || members.contains_key(&origin.node);
        let superseded = !is_member || self.vector.has_any(lives_after);
        origin != self.origin
            && superseded
            && !self.index.contains_key(&origin)
            && members.values().all(|member| {
                let acknowledged = member.vector.get(origin);
                acknowledged == 0 || acknowledged == last
            })
    }
}
