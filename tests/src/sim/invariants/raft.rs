//! What Raft promises, checked against what each log was told and what it
//! found when it was opened again.
//!
//! The keys are replicas and not nodes: an id is never used again, so what one
//! has ever made durable can be asked however its node fared.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hasher};

use bytes::Bytes;
use quorate::types::{GroupId, NodeId, ReplicaId};
use quorate_raft::{LogEntry, LogPosition, LogState, Vote};

use crate::sim::ledger::Report;
use crate::sim::tap::payload::{Entry, HostRow, Membership, read_entry};

/// What a log was found to hold for a group.
#[derive(Debug)]
pub(crate) struct FoundGroup {
    pub(crate) group: GroupId,
    pub(crate) replica: ReplicaId,
    pub(crate) state: LogState,
    pub(crate) entries: Vec<LogEntry>,
}

/// An entry that was appended.
#[derive(Clone, Debug)]
struct Slot {
    term: u64,
    hash: u64,
    /// Kept until it is applied here.
    payload: Bytes,
    /// The append that brought it.
    ticket: u64,
    is_durable: bool,
}

/// What a replica's log was told to hold.
#[derive(Clone, Debug, Default)]
struct Mirror {
    first: u64,
    slots: VecDeque<Slot>,
    purged: Option<LogPosition>,
    /// A truncation that is not known to be durable: what it removed may be
    /// found again.
    is_truncating: bool,
}

impl Mirror {
    fn next(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    fn slot(&self, index: u64) -> Option<&Slot> {
        self.slots.get(usize::try_from(index.checked_sub(self.first)?).ok()?)
    }

    fn slot_mut(&mut self, index: u64) -> Option<&mut Slot> {
        self.slots.get_mut(usize::try_from(index.checked_sub(self.first)?).ok()?)
    }

    /// Adds an entry; false if it does not continue the log.
    fn push(&mut self, index: u64, slot: Slot) -> bool {
        if self.slots.is_empty() && self.purged.is_none() {
            self.first = index;
        }
        let continues = index == self.next();
        if continues {
            self.slots.push_back(slot);
        }
        continues
    }

    /// The term of the entry before an index, if it is known.
    fn term_before(&self, index: u64) -> Option<u64> {
        let before = index.checked_sub(1)?;
        let purged = self.purged.filter(|purged| purged.index == before);
        self.slot(before).map(|slot| slot.term).or(purged.map(|purged| purged.term))
    }

    fn truncate(&mut self, from: u64) {
        let keep = from.clamp(self.first, self.next()) - self.first;
        self.slots.truncate(usize::try_from(keep).unwrap());
    }

    fn purge(&mut self, upto: LogPosition) {
        if self.purged.is_some_and(|purged| purged.index >= upto.index) {
            return;
        }
        let gone = (upto.index + 1).clamp(self.first, self.next()) - self.first;
        self.slots.drain(..usize::try_from(gone).unwrap());
        self.first = upto.index + 1;
        self.purged = Some(upto);
    }

    fn last(&self) -> Option<LogPosition> {
        let last = self.slots.back();
        last.map(|slot| LogPosition { term: slot.term, index: self.next() - 1 }).or(self.purged)
    }

    /// Whether the entry is here, or was and is not needed any more.
    fn holds(&self, LogPosition { term, index }: LogPosition, durably: bool) -> bool {
        self.purged.is_some_and(|purged| purged.index >= index)
            || self
                .slot(index)
                .is_some_and(|slot| slot.term == term && (slot.is_durable || !durably))
    }
}

#[derive(Clone, Debug)]
struct Replica {
    node: NodeId,
    log: Mirror,
    /// Appends that are not durable yet: where they begin and how many they are.
    appending: BTreeMap<u64, (u64, u64)>,
    vote_asked: Option<Vote>,
    vote_durable: Option<Vote>,
    is_admitted: bool,
    is_leaving: bool,
    is_gone: bool,
}

impl Replica {
    fn on(node: NodeId) -> Self {
        Self {
            node,
            log: Mirror::default(),
            appending: BTreeMap::new(),
            vote_asked: None,
            vote_durable: None,
            is_admitted: false,
            is_leaving: false,
            is_gone: false,
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Group {
    replicas: BTreeMap<ReplicaId, Replica>,
    /// Every entry that anybody appended: its term and its payload's hash.
    said: BTreeMap<u64, Vec<(u64, u64)>>,
    /// The term of the entry before one, for each that anybody appended. That
    /// all agree on it is log matching, by induction.
    before: BTreeMap<LogPosition, u64>,
    leaders: BTreeMap<u64, ReplicaId>,
    /// The highest term of which a leader is known.
    newest_term: u64,
    /// Every membership that anybody appended.
    memberships: BTreeMap<LogPosition, Membership>,
    /// Those that are in force, or were: the latest at or below an index is.
    in_force: BTreeMap<u64, Membership>,
    /// The last entry that anybody applied.
    committed: Option<LogPosition>,
    committed_terms: BTreeMap<u64, u64>,
    /// The last entry that was applied while a term was the newest.
    committed_by_term: BTreeMap<u64, LogPosition>,
}

/// The logs of all replicas of all groups.
#[derive(Clone, Debug, Default)]
pub(crate) struct RaftBook {
    groups: BTreeMap<GroupId, Group>,
    bound: BTreeMap<(NodeId, GroupId), ReplicaId>,
    next_ticket: u64,
}

fn payload_hash(payload: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(payload);
    hasher.finish()
}

/// Whether the later vote may be found where the earlier one was kept.
fn is_no_older(found: Option<Vote>, kept: Vote) -> bool {
    found.is_some_and(|found| {
        let is_same = found.candidate == kept.candidate && (found.committed || !kept.committed);
        found.term > kept.term || (found.term == kept.term && (is_same || found.committed))
    })
}

impl RaftBook {
    fn replica(&mut self, node: NodeId, group: GroupId) -> Option<(ReplicaId, &mut Group)> {
        let replica = *self.bound.get(&(node, group))?;
        Some((replica, self.groups.get_mut(&group)?))
    }

    /// A node opened its log: all that was durable must be there, and nothing
    /// that was never written.
    pub(crate) fn opened(
        &mut self,
        node: NodeId,
        found: Vec<FoundGroup>,
        is_tombstoned: &dyn Fn(GroupId, ReplicaId) -> bool,
        report: &mut Report,
    ) {
        let mut there: BTreeMap<(GroupId, ReplicaId), FoundGroup> =
            found.into_iter().map(|found| ((found.group, found.replica), found)).collect();
        for (&id, group) in &mut self.groups {
            for (&replica, known) in group.replicas.iter_mut().filter(|(_, at)| at.node == node) {
                if known.is_gone {
                    report.check("R5", is_tombstoned(id, replica), || {
                        format!("{node} finds no tombstone of {replica} of {id}")
                    });
                    continue;
                }
                let Some(found) = there.remove(&(id, replica)) else {
                    let is_lost = known.is_admitted && !known.is_leaving;
                    report.check("R5", !is_lost, || {
                        format!("{node} finds no log of {replica} of {id}")
                    });
                    continue;
                };
                compare_vote(node, id, known, &found, report);
                compare_log(node, id, known, &found, report);
                known.take_in(found, &mut group.said);
            }
        }
        self.bound.retain(|(at, _), _| *at != node);
        for ((group, replica), found) in there {
            // On a disk that came with them, in a test of its own.
            let known = self.groups.entry(group).or_default();
            let replica = known.replicas.entry(replica).or_insert_with(|| Replica::on(node));
            replica.is_admitted = true;
            replica.take_in(found, &mut known.said);
        }
        for (&id, group) in &self.groups {
            let mut owners =
                group.replicas.iter().filter(|(_, at)| at.node == node && at.is_admitted);
            if let Some((replica, _)) = owners.rfind(|(_, at)| !at.is_gone) {
                self.bound.insert((node, id), *replica);
            }
        }
    }

    /// M1: an id is admitted on one node, and never after its tombstone.
    pub(crate) fn admitted(
        &mut self,
        node: NodeId,
        group: GroupId,
        replica: ReplicaId,
        state: LogState,
        report: &mut Report,
    ) {
        let known = self.groups.entry(group).or_default();
        let at = known.replicas.entry(replica).or_insert_with(|| Replica::on(node));
        report.check("M1", at.node == node, || {
            format!("{replica} of {group} is admitted on {node} and was on {}", at.node)
        });
        report.check("M1", !at.is_gone, || {
            format!("{replica} of {group} is admitted on {node} after its tombstone")
        });
        if at.node != node || at.is_gone {
            return;
        }
        let last = at.log.last();
        report.check("R5", !at.is_admitted || state.last == last, || {
            format!("the log of {group} on {node} ends at {:?}, and {last:?} was put", state.last)
        });
        at.is_admitted = true;
        self.bound.insert((node, group), replica);
    }

    /// A replica's log is about to take entries; returns what
    /// [`Self::appended`] is to be told.
    pub(crate) fn appending(
        &mut self,
        node: NodeId,
        group: GroupId,
        entries: &[LogEntry],
        report: &mut Report,
    ) -> u64 {
        self.next_ticket += 1;
        let ticket = self.next_ticket;
        let Some((replica, known)) = self.replica(node, group) else { return ticket };
        for entry in entries {
            let LogPosition { term, index } = entry.position;
            let hash = payload_hash(&entry.payload);
            let said = known.said.entry(index).or_default();
            let before = said.iter().find(|(of, _)| *of == term);
            report.check("R2", before.is_none_or(|(_, before)| *before == hash), || {
                format!("{replica} of {group} gets another entry at {}", entry.position)
            });
            if before.is_none() {
                said.push((term, hash));
                if let Some(Entry::Membership(membership)) = read_entry(&entry.payload) {
                    known.memberships.insert(entry.position, membership);
                }
            }
            let Some(at) = known.replicas.get_mut(&replica) else { continue };
            if let Some(term_before) = at.log.term_before(index) {
                let agreed = *known.before.entry(entry.position).or_insert(term_before);
                report.check("R2", agreed == term_before, || {
                    format!(
                        "{replica} of {group} has an entry of term {term_before} before {}, and \
                         another has one of {agreed}",
                        entry.position
                    )
                });
            }
            let (payload, next) = (entry.payload.clone(), at.log.next());
            let slot = Slot { term, hash, payload, ticket, is_durable: false };
            let continues = at.log.push(index, slot);
            report.check("R2", continues, || {
                format!("{replica} of {group} gets {index} where {next} is next")
            });
        }
        let first = entries.first().map_or(0, |entry| entry.position.index);
        if let Some(at) = known.replicas.get_mut(&replica) {
            at.appending.insert(ticket, (first, entries.len() as u64));
        }
        ticket
    }

    /// The log did not take what it was about to.
    pub(crate) fn refused(&mut self, node: NodeId, group: GroupId, ticket: u64) {
        let Some((replica, known)) = self.replica(node, group) else { return };
        let Some(at) = known.replicas.get_mut(&replica) else { return };
        at.appending.remove(&ticket);
        while at.log.slots.back().is_some_and(|slot| slot.ticket == ticket) {
            at.log.slots.pop_back();
        }
    }

    /// The log said that an append is durable.
    pub(crate) fn appended(&mut self, node: NodeId, group: GroupId, ticket: u64) {
        let Some((replica, known)) = self.replica(node, group) else { return };
        let Some(at) = known.replicas.get_mut(&replica) else { return };
        let Some((first, count)) = at.appending.remove(&ticket) else { return };
        for index in first..first + count {
            // What was truncated since has another ticket or is gone.
            if let Some(slot) = at.log.slot_mut(index).filter(|slot| slot.ticket == ticket) {
                slot.is_durable = true;
            }
        }
    }

    /// A tail is about to be removed: nobody may remove what is committed.
    pub(crate) fn truncating(
        &mut self,
        node: NodeId,
        group: GroupId,
        from: u64,
        report: &mut Report,
    ) {
        let Some((replica, known)) = self.replica(node, group) else { return };
        let Some(at) = known.replicas.get_mut(&replica) else { return };
        let lost = (from..at.log.next()).find(|index| {
            let slot = at.log.slot(*index).map(|slot| slot.term);
            slot.is_some() && slot == known.committed_terms.get(index).copied()
        });
        // Where its log conflicts with what is committed, a snapshot replaces
        // all of it from its own commit index on. No majority counts on it: that
        // which has the entry at the conflicting index has all before it, too.
        let conflicts = (from..at.log.next()).any(|index| {
            let slot = at.log.slot(index).map(|slot| slot.term);
            let committed = known.committed_terms.get(&index).copied();
            slot.is_some() && committed.is_some() && slot != committed
        });
        report.check("R3", lost.is_none() || conflicts, || {
            format!("{replica} of {group} removes its log from {from}, and {lost:?} is committed")
        });
        at.log.truncate(from);
        at.log.is_truncating = true;
    }

    pub(crate) fn truncated(&mut self, node: NodeId, group: GroupId) {
        let Some((replica, known)) = self.replica(node, group) else { return };
        if let Some(at) = known.replicas.get_mut(&replica) {
            at.log.is_truncating = false;
        }
    }

    /// R7: what is purged is in a state that is durable.
    pub(crate) fn purging(
        &mut self,
        node: NodeId,
        group: GroupId,
        upto: LogPosition,
        durable: Option<u64>,
        report: &mut Report,
    ) {
        report.check("R7", durable.is_some_and(|durable| durable >= upto.index), || {
            format!(
                "{node} purges {group} up to {upto}, and its state is durable up to {durable:?}"
            )
        });
        let Some((replica, known)) = self.replica(node, group) else { return };
        if let Some(at) = known.replicas.get_mut(&replica) {
            at.log.purge(upto);
        }
    }

    /// R1 and R3: one leader a term, who has everything that was committed in
    /// the terms before.
    pub(crate) fn voting(&mut self, node: NodeId, group: GroupId, vote: Vote, report: &mut Report) {
        let Some((replica, known)) = self.replica(node, group) else { return };
        let Vote { term, candidate, committed } = vote;
        let Some(at) = known.replicas.get_mut(&replica) else { return };
        let before = at.vote_asked.filter(|before| before.term >= term && !committed);
        let is_free =
            before.is_none_or(|before| (before.term, before.candidate) == (term, candidate));
        report.check("R1", is_free, || {
            format!("{replica} of {group} votes {vote:?} after {:?}", at.vote_asked)
        });
        at.vote_asked = Some(vote);
        if !committed {
            return;
        }
        let leader = *known.leaders.entry(term).or_insert(candidate);
        report.check("R1", leader == candidate, || {
            format!("{candidate} leads {group} in term {term}, and {leader} does")
        });
        known.newest_term = known.newest_term.max(term);
        if candidate == replica {
            let due = known.committed_by_term.range(..term).next_back().map(|(_, due)| *due);
            let log = &at.log;
            report.check("R3", due.is_none_or(|due| log.holds(due, false)), || {
                format!(
                    "{replica} leads {group} in term {term} with a log up to {:?}, and {due:?} is \
                     committed",
                    log.last()
                )
            });
        }
    }

    pub(crate) fn voted(&mut self, node: NodeId, group: GroupId, vote: Vote) {
        let Some((replica, known)) = self.replica(node, group) else { return };
        if let Some(at) = known.replicas.get_mut(&replica) {
            at.vote_durable = Some(vote);
        }
    }

    pub(crate) fn forgetting(&mut self, node: NodeId, group: GroupId, replica: ReplicaId) {
        let known = self.groups.entry(group).or_default();
        let at = known.replicas.entry(replica).or_insert_with(|| Replica::on(node));
        at.is_leaving = true;
    }

    pub(crate) fn forgot(&mut self, node: NodeId, group: GroupId, replica: ReplicaId) {
        let known = self.groups.entry(group).or_default();
        if let Some(at) = known.replicas.get_mut(&replica) {
            at.is_gone = true;
        }
        if self.bound.get(&(node, group)) == Some(&replica) {
            self.bound.remove(&(node, group));
        }
    }

    /// A group begins with this host row on a first replica.
    pub(crate) fn seeded(&mut self, group: GroupId, row: &HostRow) {
        let known = self.groups.entry(group).or_default();
        if known.committed.is_none() {
            known.committed = Some(row.applied);
            known.in_force.insert(row.applied.index, row.membership.clone());
        }
    }

    /// A node applied its log up to an index. R4: when it is the first to, a
    /// majority has all of it durable. Returns the entries that nobody had
    /// applied before.
    pub(crate) fn applied(
        &mut self,
        node: NodeId,
        group: GroupId,
        index: u64,
        row: Option<&HostRow>,
        report: &mut Report,
    ) -> Vec<(u64, Bytes)> {
        let Some((replica, known)) = self.replica(node, group) else { return Vec::new() };
        let begin = match known.committed {
            Some(committed) => committed.index + 1,
            None => known.replicas.get(&replica).map_or(0, |at| at.log.first),
        };
        let mut fresh = Vec::new();
        if let Some(at) = known.replicas.get_mut(&replica) {
            let missing = (begin..=index).find(|index| at.log.slot(*index).is_none());
            report.check("R4", missing.is_none(), || {
                format!("{replica} of {group} applies {index}, and {missing:?} is not in its log")
            });
            for at_index in begin..=index {
                let Some(slot) = at.log.slot(at_index) else { continue };
                fresh
                    .push((LogPosition { term: slot.term, index: at_index }, slot.payload.clone()));
            }
            let done = (index + 1).clamp(at.log.first, at.log.next()) - at.log.first;
            let done = usize::try_from(done).unwrap();
            // From the back: what was applied before has none any more.
            for slot in at.log.slots.iter_mut().take(done).rev() {
                if slot.payload.is_empty() {
                    break;
                }
                slot.payload = Bytes::new();
            }
        }
        if !fresh.is_empty() {
            known.commit(&fresh);
        }
        for (position, _) in &fresh {
            known.check_quorum(group, *position, report);
        }
        if let Some(row) = row {
            let in_force = known.in_force.range(..=index).next_back().map(|(_, at)| at);
            report.check("R4", in_force.is_none_or(|at| *at == row.membership), || {
                format!("{replica} of {group} keeps another membership at {index} than its log has")
            });
        }
        fresh.into_iter().map(|(position, payload)| (position.index, payload)).collect()
    }

    /// How many entries each replica's log holds.
    pub(crate) fn lengths(&self) -> BTreeMap<(NodeId, GroupId), usize> {
        let length = |place: &(NodeId, GroupId), replica: &ReplicaId| {
            let at = self.groups.get(&place.1)?.replicas.get(replica)?;
            Some((*place, at.log.slots.len()))
        };
        self.bound.iter().filter_map(|(place, replica)| length(place, replica)).collect()
    }

    /// The members of a group as of the last entry that anybody applied.
    pub(crate) fn membership(&self, group: GroupId) -> Option<&Membership> {
        self.groups.get(&group)?.in_force.values().next_back()
    }
}

impl Group {
    fn commit(&mut self, fresh: &[(LogPosition, Bytes)]) {
        for (position, _) in fresh {
            self.committed_terms.insert(position.index, position.term);
            if let Some(membership) = self.memberships.get(position) {
                self.in_force.insert(position.index, membership.clone());
            }
        }
        let last = fresh.last().map(|(position, _)| *position);
        self.committed = last.or(self.committed);
        if let Some(last) = last {
            self.committed_by_term.insert(self.newest_term, last);
        }
    }

    /// R4. The membership by which a leader counted is the latest of its log
    /// at that moment: the one in force here, or one that it had appended since.
    fn check_quorum(&self, group: GroupId, at: LogPosition, report: &mut Report) {
        let durable = |replica: ReplicaId| {
            self.replicas.get(&replica).is_some_and(|replica| replica.log.holds(at, true))
        };
        let in_force = self.in_force.range(..=at.index).next_back().map(|(_, members)| members);
        let later = self.memberships.iter().filter(|(position, _)| position.index > at.index);
        let mut candidates = in_force.into_iter().chain(later.map(|(_, members)| members));
        let is_known = in_force.is_some();
        report.check(
            "R4",
            !is_known || candidates.any(|members| members.is_quorum(durable)),
            || {
                let have: Vec<ReplicaId> =
                    self.replicas.keys().copied().filter(|replica| durable(*replica)).collect();
                let configs = in_force.map(|members| &members.configs);
                format!("{at} of {group} is applied, and durable on {have:?} of {configs:?}")
            },
        );
    }
}

fn compare_vote(
    node: NodeId,
    group: GroupId,
    known: &Replica,
    found: &FoundGroup,
    report: &mut Report,
) {
    let vote = found.state.vote;
    let kept = known.vote_durable;
    report.check("R6", kept.is_none_or(|kept| is_no_older(vote, kept)), || {
        format!("{node} finds vote {vote:?} in {group}, and {kept:?} was durable")
    });
    let asked = known.vote_asked;
    let is_known =
        vote.is_none_or(|vote| asked.is_some_and(|asked| is_no_older(Some(asked), vote)));
    report.check("R6", !known.is_admitted || is_known, || {
        format!("{node} finds vote {vote:?} in {group}, and {asked:?} was the last")
    });
}

fn compare_log(
    node: NodeId,
    group: GroupId,
    known: &Replica,
    found: &FoundGroup,
    report: &mut Report,
) {
    let log = &known.log;
    let purged = found.state.purged.map_or(0, |purged| purged.index + 1);
    let terms: BTreeMap<u64, (u64, u64)> = found
        .entries
        .iter()
        .map(|entry| (entry.position.index, (entry.position.term, payload_hash(&entry.payload))))
        .collect();
    let slots = (log.first..).zip(&log.slots);
    let lost = slots
        .clone()
        .filter(|(index, slot)| slot.is_durable && *index >= purged)
        .find(|(index, slot)| terms.get(index) != Some(&(slot.term, slot.hash)));
    report.check("R5", lost.is_none(), || {
        let (index, slot) = lost.unwrap();
        format!(
            "{node} finds a log of {group} up to {:?}, and {index} of term {} was durable",
            found.state.last, slot.term
        )
    });
    report.check("R5", found.state.purged.is_none_or(|at| known.log.purged >= Some(at)), || {
        format!(
            "{node} finds {group} purged to {:?}, asked was {:?}",
            found.state.purged, log.purged
        )
    });
    if log.is_truncating || !known.is_admitted {
        return;
    }
    let stray = terms.iter().filter(|(index, _)| **index >= log.first).find(|(index, found)| {
        log.slot(**index).is_none_or(|slot| (slot.term, slot.hash) != **found)
    });
    report.check("R5", stray.is_none(), || {
        format!("{node} finds {stray:?} in {group}, which was removed or never put")
    });
}

impl Replica {
    /// From now on its log is what was found.
    fn take_in(&mut self, found: FoundGroup, said: &mut BTreeMap<u64, Vec<(u64, u64)>>) {
        self.vote_asked = found.state.vote;
        self.vote_durable = found.state.vote;
        self.appending.clear();
        let purged = found.state.purged;
        self.log = Mirror { purged, ..Mirror::default() };
        self.log.first = purged.map_or(0, |purged| purged.index + 1);
        for LogEntry { position, payload } in found.entries {
            let LogPosition { term, index } = position;
            let hash = payload_hash(&payload);
            let known = said.entry(index).or_default();
            if !known.contains(&(term, hash)) {
                known.push((term, hash));
            }
            let slot = Slot { term, hash, payload, ticket: 0, is_durable: true };
            assert!(self.log.push(index, slot), "a log is read in its order");
        }
    }
}
