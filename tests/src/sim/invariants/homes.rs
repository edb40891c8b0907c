//! Who has which replica, as the metadata's log says.

use std::collections::{BTreeMap, BTreeSet};

use quorate::types::{MigrationId, NodeId, ReplicaId};
use quorate_meta::{ClusterView, Move, Operator, OperatorState, Role, Task};
use quorate_migration::MigrationRow;

use super::raft::RaftBook;
use crate::sim::ledger::Report;

/// Operators and migrations.
#[derive(Debug, Default)]
pub(crate) struct HomesBook {
    /// Operators whose end was looked at.
    ended: BTreeSet<MigrationId>,
    /// Every row that was committed to the journal, in order.
    journal: BTreeMap<MigrationId, Vec<MigrationRow>>,
    /// How far into it a life of a node has shown.
    shown: BTreeMap<(NodeId, u64, MigrationId), usize>,
}

impl HomesBook {
    /// What follows it in a run with lives of its own.
    pub(crate) fn continued(&self) -> Self {
        let (ended, journal) = (self.ended.clone(), self.journal.clone());
        Self { ended, journal, shown: BTreeMap::new() }
    }

    /// The metadata after a command.
    pub(crate) fn commanded(&mut self, view: &ClusterView, report: &mut Report) {
        for operator in view.ended_operators() {
            if self.ended.insert(operator.id)
                && let Task::Move(change) = &operator.task
            {
                check_end(view, operator, change, report);
            }
        }
        for (id, stored) in view.journal() {
            let rows = self.journal.entry(id).or_default();
            let Ok(row) = MigrationRow::open(&id.0.to_be_bytes(), &stored.row) else {
                report.check("M3", false, || format!("the journal's row of {id} is damaged"));
                continue;
            };
            if rows.last() != Some(&row) {
                let follows = row.follows(rows.last());
                report.check("M3", follows.is_ok(), || {
                    format!("the journal has {row:?} after {:?}: {follows:?}", rows.last())
                });
                rows.push(row);
            }
        }
    }

    /// M3: what an operator is shown was recorded, and goes forward.
    pub(crate) fn shown(
        &mut self,
        node: NodeId,
        life: u64,
        shown: &BTreeMap<MigrationId, MigrationRow>,
        report: &mut Report,
    ) {
        for (id, row) in shown {
            let recorded = self.journal.get(id);
            let place = recorded.and_then(|rows| rows.iter().rposition(|known| known == row));
            report.check("M3", place.is_some(), || {
                format!("{node} shows {row:?}, which was never recorded")
            });
            let Some(place) = place else { continue };
            let before = self.shown.entry((node, life, *id)).or_insert(place);
            report.check("M3", *before <= place, || {
                format!("{node} shows {row:?} after what followed it")
            });
            *before = place;
        }
    }

    /// M2, once operators have ended: Raft's members are the registry's.
    pub(crate) fn settled(
        &self,
        view: Option<&ClusterView>,
        raft: &RaftBook,
    ) -> Result<(), String> {
        let view = view.filter(|view| view.cluster().is_some()).ok_or("there is no metadata")?;
        if let Some(running) = view.running_operators().next() {
            return Err(format!("{} works on {}", running.id, running.group));
        }
        for (id, group) in view.groups() {
            let voters: BTreeSet<ReplicaId> = group.voters().map(|replica| replica.id).collect();
            let members = raft.membership(id).ok_or_else(|| format!("{id} has no members"))?;
            let known: BTreeSet<ReplicaId> = members.nodes.keys().copied().collect();
            if members.configs != [voters.clone()] || known != voters {
                return Err(format!(
                    "{id} is to be {voters:?}, and is {:?} of {known:?}",
                    members.configs
                ));
            }
        }
        Ok(())
    }
}

/// M2: a move that took effect has exchanged its replicas, one that did not
/// has left nothing.
pub(super) fn check_end(
    view: &ClusterView,
    operator: &Operator,
    change: &Move,
    report: &mut Report,
) {
    let role = |replica: Option<ReplicaId>| {
        let group = view.group(operator.group)?;
        group.replica(replica?).map(|replica| replica.role)
    };
    let (added, removed) = (role(change.added), role(change.removed));
    let is_sound = match operator.state {
        OperatorState::Running => false,
        OperatorState::Finished { .. } => {
            removed.is_none() && (change.added.is_none() || added == Some(Role::Voter))
        }
        OperatorState::Aborted { .. } => {
            added.is_none() && (change.removed.is_none() || removed == Some(Role::Voter))
        }
    };
    report.check("M2", is_sound, || {
        format!("{operator:?} leaves the added as {added:?} and the removed as {removed:?}")
    });
}
