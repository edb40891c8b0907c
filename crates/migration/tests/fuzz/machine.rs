//! A machine that is shown groups which cannot be, and told what cannot have
//! happened: it goes forward, and what it asks for belongs to its phase.

use std::collections::BTreeSet;
use std::time::Duration;

use quorate_migration::{
    Change, ControlError, Done, Effect, Fence, Machine, MigrationRow, Phase, Policy, Progress,
    Refusal, Removal, ReplicaProgress, Step, VoterChange,
};
use quorate_testkit::fuzz::{Choices, Corpus};
use quorate_types::ReplicaId;

use crate::model::{SOURCE, TARGET, planned};

/// Who may be in a group: source, target and others.
const REPLICAS: [ReplicaId; 5] = [SOURCE, TARGET, ReplicaId(2), ReplicaId(3), ReplicaId(77)];

const POLICY: Policy = Policy {
    lag_entries_max: 64,
    transfer_lag_entries_max: 16,
    failures_max: 3,
    stalled_observations_max: 5,
    catch_up_observations_max: 20,
    destroy_attempts_max: 2,
    attempts_max: 5,
    pause_budget: Duration::from_millis(50),
};

fn replicas(choices: &mut Choices<'_>) -> BTreeSet<ReplicaId> {
    let chosen = choices.byte();
    (0..5).filter(|at| chosen & (1 << at) != 0).map(|at| REPLICAS[at]).collect()
}

fn progress(choices: &mut Choices<'_>) -> Progress {
    let last_log = choices.edge();
    let seen = replicas(choices).into_iter().map(|replica| {
        let matched = if choices.flag() { last_log } else { choices.edge() };
        (replica, ReplicaProgress { matched, is_fresh: choices.flag() })
    });
    Progress {
        replicas: seen.collect(),
        leader: (!choices.byte().is_multiple_of(8)).then(|| *choices.pick(&REPLICAS).unwrap()),
        last_log,
        voters: replicas(choices),
        outgoing: (choices.byte().is_multiple_of(4)).then(|| replicas(choices)),
        learners: replicas(choices),
    }
}

fn error(choices: &mut Choices<'_>) -> ControlError {
    match choices.below(12) {
        0 => ControlError::Refused(Refusal::GroupGone),
        1 => ControlError::Refused(Refusal::Tombstoned),
        2 => ControlError::Refused(Refusal::Invalid),
        3 => ControlError::Refused(Refusal::Fenced),
        _ => ControlError::Unavailable,
    }
}

fn done(choices: &mut Choices<'_>) -> Done {
    match choices.below(4) {
        0 => Done::Transferred(Duration::from_micros(choices.edge())),
        1 => Done::Removed(Removal::Destroyed),
        2 => Done::Removed(Removal::NodeUnreachable),
        _ => Done::Plain,
    }
}

/// The way out never takes the target back, the way back never takes the
/// source out, and nobody leaves before the phase that says so.
fn assert_belongs(effect: Effect, phase: Phase) {
    let allowed = match effect {
        Effect::AddLearner { replica, .. } => {
            replica == TARGET && matches!(phase, Phase::AddLearner | Phase::Cutover)
        }
        Effect::ChangeVoters(VoterChange { add, remove }) => match phase {
            Phase::PromoteLearner => (add, remove) == (Some(TARGET), None),
            Phase::Cutover => (add, remove) == (Some(TARGET), Some(SOURCE)),
            Phase::Aborting => (add, remove) == (None, Some(TARGET)),
            _ => false,
        },
        Effect::TransferLeader { to } => match phase {
            Phase::LeadershipTransfer | Phase::Cutover => to != SOURCE,
            Phase::Aborting => to != TARGET,
            _ => false,
        },
        Effect::Remove { replica } => {
            (replica, phase) == (SOURCE, Phase::Cutover)
                || (replica, phase) == (TARGET, Phase::Aborting)
        }
    };
    assert!(allowed, "{effect:?} in {phase:?}");
}

fn assert_forward(row: &MigrationRow, before: &MigrationRow) {
    assert_eq!(row.follows(Some(before)), Ok(Change::Advanced), "{row:?} after {before:?}");
    let is_beyond = |row: &MigrationRow| matches!(row.phase(), Phase::Cutover | Phase::Complete);
    assert!(!is_beyond(before) || is_beyond(row), "after the cutover only forward");
    let is_back = |row: &MigrationRow| matches!(row.phase(), Phase::Aborting | Phase::Aborted);
    assert!(!is_back(before) || is_back(row), "who turned back does not turn again");
}

#[test]
fn whatever_it_is_shown_the_machine_goes_forward() {
    quorate_testkit::fuzz!(Corpus::random(1_500), |input| {
        let mut choices = Choices::new(input);
        let (mut row, mut term) = (planned(), 1);
        let mut machine = Machine::new(row.clone(), term, POLICY);
        while !choices.is_spent() {
            match choices.below(24) {
                0 => machine.handle_cancel(),
                1 => {
                    term += u64::from(choices.byte() % 2);
                    machine = Machine::new(row.clone(), term, POLICY);
                }
                _ => {}
            }
            assert_eq!(machine.poll_step(), machine.poll_step());
            match machine.poll_step() {
                Step::Record { row: next, expected } => {
                    assert_eq!(expected, row.position());
                    assert_eq!(next.term, term);
                    assert_forward(&next, &row);
                    row = *next;
                    machine.handle_recorded(row.clone());
                }
                Step::Observe(_) if choices.byte().is_multiple_of(8) => {
                    machine.handle_control_error(error(&mut choices));
                }
                Step::Observe(_) => machine.handle_progress(&progress(&mut choices)),
                Step::Perform(effect, fence) => {
                    assert_belongs(effect, row.phase());
                    let expected = Fence { migration: row.id, term, attempt: row.attempt };
                    assert_eq!(fence, expected);
                    if choices.byte().is_multiple_of(4) {
                        machine.handle_control_error(error(&mut choices));
                    } else {
                        machine.handle_effect(done(&mut choices));
                    }
                }
                Step::Finished(outcome) => {
                    assert_eq!(row.outcome(), Some(outcome));
                    return;
                }
                Step::Superseded => {
                    term += 1;
                    machine = Machine::new(row.clone(), term, POLICY);
                }
            }
        }
    });
}
