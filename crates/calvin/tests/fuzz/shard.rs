//! The shard machine under any log at all.

use quorate_calvin::ShardCommand;
use quorate_calvin::shard::Event;
use quorate_testkit::fuzz;
use quorate_testkit::fuzz::{Choices, Corpus};
use quorate_types::{Epoch, KeyRange, ShardId};

use super::story::{Replica, call, shard_command};

const A: ShardId = ShardId(1);

/// A replica that runs on and one that is opened anew now and then, fed with
/// the same log.
struct Twins {
    steady: Replica,
    restarted: Replica,
    index: u64,
}

impl Twins {
    fn new() -> Self {
        let new = || Replica::seeded(A, KeyRange::new("", "x"));
        Self { steady: new(), restarted: new(), index: 0 }
    }

    /// What the entries brought about; `None` when they halted both alike.
    fn apply(&mut self, entries: &[Vec<u8>]) -> Option<Vec<Event>> {
        let first = self.index + 1;
        self.index += entries.len() as u64;
        let before = self.steady.machine.cursor();
        let events = self.steady.apply(first, entries);
        assert_eq!(self.restarted.apply(first, entries), events, "replicas agree");
        let events = events.ok()?;
        assert_eq!(self.steady.store.rows(), self.restarted.store.rows(), "rows agree");
        let forked = |replica: &Replica| {
            let forks = replica.store.take_forked();
            forks.into_iter().map(|forked| (forked.fork, forked.rows)).collect::<Vec<_>>()
        };
        assert_eq!(forked(&self.steady), forked(&self.restarted), "children agree");
        self.check(before, &events);
        Some(events)
    }

    /// The order is followed forward, and what is granted waits for inputs.
    fn check(&self, mut cursor: Epoch, events: &[Event]) {
        for event in events {
            match event {
                Event::Accepted(epoch) => {
                    assert!(*epoch > cursor, "(i): every epoch once, in order");
                    cursor = *epoch;
                }
                Event::Decided { position, .. }
                | Event::Refused { position, .. }
                | Event::Fenced { position, .. } => {
                    assert!(*position <= cursor, "a position is an epoch that was accepted");
                }
                Event::Granted { .. } | Event::Finished(_) | Event::Forked { .. } => {}
            }
        }
        let machine = &self.steady.machine;
        assert_eq!(machine.cursor(), cursor);
        assert!(machine.done() <= cursor, "nothing is done that was not accepted");
        // (iii): waits point to lower places, so the first one never waits for
        // locks, only for inputs.
        let waits_for_inputs = machine.awaiting_inputs().next().is_some();
        assert!(machine.pending_count() == 0 || waits_for_inputs, "somebody can go on");
    }
}

#[test]
fn any_log_leaves_replicas_alike() {
    fuzz!(Corpus::random(3_000), |input| {
        let mut choices = Choices::new(input);
        let mut twins = Twins::new();
        while !choices.is_spent() {
            let mut entries = Vec::new();
            for _ in 0..=choices.below(3) {
                entries
                    .push(shard_command(&mut choices, &twins.steady.machine).to_bytes().to_vec());
            }
            if choices.below(16) == 0 {
                mutate(&mut entries[0], &mut choices);
            }
            if twins.apply(&entries).is_none() {
                return;
            }
            if choices.below(3) == 0 {
                twins.restarted.reopen();
            }
        }
    });
}

fn mutate(entry: &mut [u8], choices: &mut Choices<'_>) {
    for _ in 0..=choices.below(3) {
        let at = choices.below(entry.len());
        entry[at] = choices.byte();
    }
}

/// How entries are grouped into commits is nobody's business: state at an
/// index is a function of the log up to it.
#[test]
fn any_grouping_of_a_clients_commands_leaves_the_same_rows() {
    fuzz!(Corpus::random(2_000), |input| {
        let mut choices = Choices::new(input);
        let new = || Replica::seeded(A, KeyRange::all());
        let (mut grouped, mut single) = (new(), new());
        let mut index = 1;
        while !choices.is_spent() {
            let mut entries = Vec::new();
            for _ in 0..=choices.below(5) {
                let direct = quorate_calvin::Direct {
                    request: super::story::request(&mut choices),
                    epoch: single.machine.epoch(),
                    time_millis: index,
                    seed: choices.number(),
                    call: call(&mut choices),
                };
                entries.push(ShardCommand::Direct(direct).to_bytes().to_vec());
            }
            let together = grouped.apply(index, &entries).unwrap();
            let mut apart = Vec::new();
            for (at, entry) in (index..).zip(&entries) {
                apart.extend(single.apply(at, std::slice::from_ref(entry)).unwrap());
            }
            assert_eq!(together, apart);
            assert_eq!(grouped.store.rows(), single.store.rows());
            index += entries.len() as u64;
        }
    });
}
