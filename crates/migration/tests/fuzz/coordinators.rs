//! Several coordinators at once against the model group: they crash between
//! and in the middle of steps, their calls are late, source and target die
//! and return. In the end the replica has one home.

use std::collections::BTreeMap;

use quorate_migration::{
    Effect, Fence, JournalError, Machine, MigrationRow, Outcome, Phase, Policy, RowError, Step,
    admit,
};
use quorate_testkit::fuzz::{Choices, Corpus};
use quorate_types::MigrationId;

use crate::model::{Group, SOURCE, TARGET, planned};

/// Steps after which, left alone, a migration that has not ended never will.
const STEPS_MAX: usize = 2_000;

/// Coordinators of different terms that believe in themselves.
const COORDINATORS_MAX: usize = 3;

fn policy() -> Policy {
    Policy {
        failures_max: 3,
        stalled_observations_max: 20,
        catch_up_observations_max: 200,
        destroy_attempts_max: 2,
        attempts_max: 5,
        ..Policy::default()
    }
}

struct World {
    group: Group,
    rows: BTreeMap<MigrationId, MigrationRow>,
    /// By rising terms; the last is the authority.
    coordinators: Vec<Machine>,
    term: u64,
    late: Vec<(Effect, Fence)>,
    outcome: Option<Outcome>,
}

impl World {
    fn of(voters: u64) -> Self {
        let row = planned();
        let coordinators = vec![Machine::new(row.clone(), 1, policy())];
        let (group, rows) = (Group::of(voters), BTreeMap::from([(row.id, row)]));
        Self { group, rows, coordinators, term: 1, late: Vec::new(), outcome: None }
    }

    fn disturb(&mut self, choices: &mut Choices<'_>) {
        match choices.below(16) {
            0 => drop(self.group.dead.insert(TARGET)),
            1 => drop(self.group.dead.insert(SOURCE)),
            2 => drop(self.group.dead.remove(&TARGET)),
            3 => drop(self.group.dead.remove(&SOURCE)),
            4 => self.group.give_leadership_to(SOURCE),
            5 => self.take_over(),
            6 => {
                let dying = choices.below(self.coordinators.len());
                self.coordinators.remove(dying);
                if self.coordinators.is_empty() {
                    self.take_over();
                }
            }
            7 => {
                let chosen = choices.below(self.coordinators.len());
                self.coordinators[chosen].handle_cancel();
            }
            8 | 9 if !self.late.is_empty() => {
                let (effect, fence) = self.late.remove(choices.below(self.late.len()));
                let _nobody_waits = self.group.perform(effect, fence, choices.flag());
            }
            _ => {}
        }
    }

    /// A new authority; the others do not know yet.
    fn take_over(&mut self) {
        let Some(row) = self.rows.values().next() else { return };
        self.term += 1;
        self.coordinators.push(Machine::new(row.clone(), self.term, policy()));
        if self.coordinators.len() > COORDINATORS_MAX {
            self.coordinators.remove(0);
        }
    }

    fn step(&mut self, who: usize, choices: &mut Choices<'_>) {
        let is_authority = who + 1 == self.coordinators.len();
        let machine = &mut self.coordinators[who];
        match machine.poll_step() {
            Step::Record { row, expected } => match admit(&self.rows, &row, Some(expected)) {
                Ok(_) => {
                    assert_forward(&self.rows[&row.id], &row);
                    self.rows.insert(row.id, (*row).clone());
                    // Else the answer is lost, and the row is recorded again.
                    if choices.byte() % 8 != 1 {
                        machine.handle_recorded(*row);
                    }
                }
                Err(JournalError::Conflict(_) | JournalError::Row(RowError::StaleTerm { .. })) => {
                    machine.handle_conflict();
                }
                Err(error) if is_authority => panic!("{error} from the authority"),
                Err(_) => machine.handle_conflict(),
            },
            Step::Observe(_) => match self.group.progress() {
                Ok(progress) => machine.handle_progress(&progress),
                Err(error) => machine.handle_control_error(error),
            },
            Step::Perform(effect, fence) => match choices.byte() % 12 {
                // The call goes astray, and arrives when nobody waits for it.
                1 => {
                    self.late.push((effect, fence));
                    machine.handle_control_error(quorate_migration::ControlError::Unavailable);
                }
                how => match self.group.perform(effect, fence, how == 2) {
                    Ok(done) => machine.handle_effect(done),
                    Err(error) => machine.handle_control_error(error),
                },
            },
            Step::Finished(outcome) => {
                self.outcome = Some(outcome);
                self.rows.clear();
            }
            Step::Superseded => {
                if is_authority {
                    self.take_over();
                } else {
                    self.coordinators.remove(who);
                }
            }
        }
    }
}

fn assert_forward(before: &MigrationRow, after: &MigrationRow) {
    let is_beyond = |row: &MigrationRow| matches!(row.phase(), Phase::Cutover | Phase::Complete);
    assert!(!is_beyond(before) || is_beyond(after), "after the cutover only forward");
}

#[test]
fn a_migration_ends_with_one_home_whatever_happens_on_the_way() {
    let (mut completed, mut aborted) = (0, 0);
    quorate_testkit::fuzz!(Corpus::random(600), |input| {
        let mut choices = Choices::new(input);
        let mut world = World::of(1 + choices.below(5) as u64);
        while !choices.is_spent() && world.outcome.is_none() {
            world.disturb(&mut choices);
            let who = choices.below(world.coordinators.len());
            world.step(who, &mut choices);
            check(world.group.check_always());
        }
        // Everybody is back, and the newest coordinator goes on alone.
        world.group.dead.clear();
        let mut steps = 0;
        while world.outcome.is_none() {
            steps += 1;
            assert!(steps < STEPS_MAX, "stuck at {:?}", world.rows);
            world.step(world.coordinators.len() - 1, &mut choices);
            check(world.group.check_always());
        }
        for (effect, fence) in std::mem::take(&mut world.late) {
            let _nobody_waits = world.group.perform(effect, fence, false);
        }
        check(world.group.check_always());
        check(world.group.check_home(world.outcome.unwrap()));
        match world.outcome.unwrap() {
            Outcome::Completed { .. } => completed += 1,
            Outcome::Aborted { .. } => aborted += 1,
        }
    });
    if completed + aborted > 5_000 {
        assert!(completed > 500 && aborted > 500, "{completed} completed, {aborted} aborted");
    }
}

fn check(found: Result<(), String>) {
    if let Err(violation) = found {
        panic!("{violation}");
    }
}
