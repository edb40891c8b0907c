//! What every [`StateMachine`] must do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "a test suite: it panics where the machine under test is wrong"
)]

use bytes::Bytes;
use quorate_types::env::{Rng, SplitMix};

use crate::consensus::types::StoredMembership;
use crate::consensus::wire::{host_row, host_row_index};
use crate::log::LogPosition;
use crate::machine::{Batch, Entry, SnapshotWriter, StateMachine};

/// Entries of one history: some batches' worth.
const ENTRIES: u64 = 60;
/// One entry in so many is none of the machine's.
const BLANK_ONE_IN: u64 = 7;
/// Ways to cut a history into batches.
const CUTS: u64 = 10;
/// Sizes of a snapshot's chunks.
const CHUNK_BYTES: [usize; 2] = [1 << 10, 512 << 10];

/// A machine under test.
pub struct Subject {
    /// Opens its one storage, again and again: as after the death of its
    /// process, or, better, after a loss of power. Empty at first.
    pub open: Box<dyn Fn() -> Box<dyn StateMachine> + Send + Sync>,
    /// All that its storage holds now, but for the host row: equal for equal
    /// states.
    pub state: Box<dyn Fn() -> Bytes + Send + Sync>,
}

/// Runs the suite. `fresh` makes an empty machine, or one seeded with
/// [`seeded_host_row`](crate::seeded_host_row); `commands` are some that it
/// takes in any order and any number of times, and that leave traces.
///
/// ```text
/// state_machine_suite(my_subject, &[put("a", 1), add("a", 2), delete("a")]).await;
/// ```
///
/// # Panics
/// When the machine does not conform; the message says which sentence of the
/// port it breaks.
pub async fn state_machine_suite(fresh: impl Fn() -> Subject, commands: &[Bytes]) {
    let history = History::record(&fresh(), commands).await;
    history.every_cut_gives_the_same(&fresh).await;
    history.what_was_flushed_is_found_again(&fresh()).await;
    history.what_was_not_flushed_is_found_as_a_whole_or_not(&fresh).await;
    history.a_snapshot_stands_still_and_installs_elsewhere(&fresh).await;
    history.an_installed_snapshot_replaces_everything(&fresh).await;
    history.a_staging_that_is_dropped_leaves_nothing(&fresh).await;
}

/// What a sound machine does with some entries, one at a time.
struct History {
    first: u64,
    entries: Vec<Entry>,
    outcomes: Vec<Bytes>,
    /// The state before the first entry, and after each.
    states: Vec<Bytes>,
}

/// What a host stores with the effects of the entry at `index`.
fn row(index: u64) -> Bytes {
    host_row(LogPosition { term: 1, index }, &StoredMembership::default())
}

fn index_of(row: Option<&Bytes>) -> Option<u64> {
    row.map(|row| {
        host_row_index(row).expect("`StateMachine::recovered` is the host row that was stored last")
    })
}

fn open(subject: &Subject) -> (Box<dyn StateMachine>, Option<u64>) {
    let mut machine = (subject.open)();
    let recovered = machine.recovered().expect("`StateMachine::recovered`");
    let applied = index_of(recovered.as_ref());
    (machine, applied)
}

async fn apply(machine: &mut dyn StateMachine, entries: &[Entry]) -> Vec<Bytes> {
    let host_row = row(entries.last().unwrap().index);
    let batch = Batch { entries: entries.to_vec(), host_row };
    let outcomes = machine.apply(batch).await.expect("`StateMachine::apply`");
    assert_eq!(
        outcomes.len(),
        entries.len(),
        "`StateMachine::apply` returns one outcome per entry, those without a command included"
    );
    for (entry, outcome) in entries.iter().zip(&outcomes) {
        assert!(
            entry.command.is_some() || outcome.is_empty(),
            "`StateMachine::apply`: outcomes are empty for entries without a command"
        );
    }
    outcomes
}

async fn flush(machine: &mut dyn StateMachine) -> u64 {
    machine.flush().await.expect("`StateMachine::flush`")
}

impl History {
    async fn record(subject: &Subject, commands: &[Bytes]) -> Self {
        let (mut machine, applied) = open(subject);
        let first = applied.map_or(0, |applied| applied + 1);
        let mut chance = SplitMix::new(7);
        let mut entry = |index| {
            let place = usize::try_from(chance.below(commands.len() as u64)).unwrap();
            // A log that begins anew begins with its first membership.
            let is_blank = chance.below(BLANK_ONE_IN) == 0 || index == 0;
            Entry { index, term: 1, command: (!is_blank).then(|| commands[place].clone()) }
        };
        let entries: Vec<Entry> = (first..first + ENTRIES).map(&mut entry).collect();
        let (mut outcomes, mut states) = (Vec::new(), vec![(subject.state)()]);
        for entry in &entries {
            outcomes.extend(apply(&mut *machine, std::slice::from_ref(entry)).await);
            states.push((subject.state)());
        }
        assert!(states.iter().any(|state| *state != states[0]), "the commands leave traces");
        Self { first, entries, outcomes, states }
    }

    fn last(&self) -> u64 {
        self.first + ENTRIES - 1
    }

    /// The state once `index` is applied.
    fn state_at(&self, index: Option<u64>) -> &Bytes {
        let applied = index.map_or(0, |index| index + 1 - self.first.min(index + 1));
        &self.states[usize::try_from(applied).unwrap()]
    }

    /// Applies from `from` to below `to`, in batches as `chance` cuts them.
    async fn apply(
        &self,
        machine: &mut dyn StateMachine,
        from: u64,
        to: u64,
        chance: &mut SplitMix,
    ) {
        let at = |index: u64| usize::try_from(index - self.first).unwrap();
        let mut next = from;
        while next < to {
            let end = (next + 1 + chance.below(9)).min(to);
            let outcomes = apply(machine, &self.entries[at(next)..at(end)]).await;
            assert!(
                outcomes == self.outcomes[at(next)..at(end)],
                "`StateMachine::apply`: outcomes are a function of the entries alone, however they \
                 are cut into batches"
            );
            next = end;
        }
    }

    /// That the rest of the history does to this machine what it does to any.
    async fn goes_on(&self, machine: &mut dyn StateMachine, subject: &Subject, from: u64) {
        self.apply(machine, from, self.last() + 1, &mut SplitMix::new(from)).await;
        assert!(
            (subject.state)() == *self.state_at(Some(self.last())),
            "state after a batch is a function of the entries alone (from entry {from} on)"
        );
    }

    async fn every_cut_gives_the_same(&self, fresh: &impl Fn() -> Subject) {
        for seed in 0..CUTS {
            let subject = fresh();
            let (mut machine, _) = open(&subject);
            let mut chance = SplitMix::new(seed);
            self.apply(&mut *machine, self.first, self.last() + 1, &mut chance).await;
            assert!(
                (subject.state)() == *self.state_at(Some(self.last())),
                "state after a batch is a function of the entries alone, however they are cut"
            );
        }
        let subject = fresh();
        let (mut machine, _) = open(&subject);
        let outcomes = apply(&mut *machine, &self.entries).await;
        assert!(outcomes == self.outcomes, "`StateMachine::apply`: outcomes come in order");
    }

    async fn what_was_flushed_is_found_again(&self, subject: &Subject) {
        let mut chance = SplitMix::new(1);
        let (mut machine, _) = open(subject);
        let mut next = self.first;
        while next <= self.last() {
            let end = (next + 1 + chance.below(15)).min(self.last() + 1);
            self.apply(&mut *machine, next, end, &mut chance).await;
            assert_eq!(
                flush(&mut *machine).await,
                end - 1,
                "`StateMachine::flush` returns the index of the last applied entry"
            );
            drop(machine);
            let applied;
            (machine, applied) = open(subject);
            assert_eq!(
                applied,
                Some(end - 1),
                "`StateMachine::flush` makes everything applied so far durable, its host row too"
            );
            assert!(
                (subject.state)() == *self.state_at(applied),
                "`StateMachine::flush` makes everything applied so far durable"
            );
            assert_eq!(
                flush(&mut *machine).await,
                end - 1,
                "`StateMachine::flush` after a restart returns what the host row records"
            );
            next = end;
        }
    }

    async fn what_was_not_flushed_is_found_as_a_whole_or_not(&self, fresh: &impl Fn() -> Subject) {
        for seed in 0..CUTS {
            let mut chance = SplitMix::new(seed);
            let subject = fresh();
            let (mut machine, _) = open(&subject);
            let flushed = self.first + chance.below(ENTRIES / 2);
            self.apply(&mut *machine, self.first, flushed + 1, &mut chance).await;
            flush(&mut *machine).await;
            let unflushed = flushed + chance.below(self.last() - flushed + 1);
            self.apply(&mut *machine, flushed + 1, unflushed + 1, &mut chance).await;
            drop(machine);
            let (mut machine, applied) = open(&subject);
            let applied = applied.expect("`StateMachine::recovered`: as far as it is durable");
            assert!(
                (flushed..=unflushed).contains(&applied),
                "`StateMachine::recovered` is at {applied}: {flushed} was flushed, {unflushed} \
                 applied"
            );
            assert!(
                (subject.state)() == *self.state_at(Some(applied)),
                "`Batch::host_row` must be stored atomically with the effects of the entries"
            );
            self.goes_on(&mut *machine, &subject, applied + 1).await;
        }
    }

    async fn a_snapshot_stands_still_and_installs_elsewhere(&self, fresh: &impl Fn() -> Subject) {
        let middle = self.first + ENTRIES / 2;
        for bytes_max in CHUNK_BYTES {
            let (from, to) = (fresh(), fresh());
            let (mut source, _) = open(&from);
            let (mut target, _) = open(&to);
            let mut chance = SplitMix::new(3);
            self.apply(&mut *source, self.first, middle + 1, &mut chance).await;
            let mut reader = source.snapshot().expect("`StateMachine::snapshot`");
            let mut staged = target.install().expect("`StateMachine::install`");
            let before = (to.state)();
            if let Some(chunk) = next_chunk(&mut *reader, bytes_max, &self.entries).await {
                staged.write(chunk).await.expect("`SnapshotWriter::write`");
            }
            self.goes_on(&mut *source, &from, middle + 1).await;
            flush(&mut *source).await;
            assert_eq!(
                index_of(Some(&reader.host_row())),
                Some(middle),
                "`SnapshotReader::host_row` belongs to exactly this view"
            );
            while let Some(chunk) = next_chunk(&mut *reader, bytes_max, &self.entries).await {
                staged.write(chunk).await.expect("`SnapshotWriter::write`");
            }
            assert!(
                (to.state)() == before,
                "`StateMachine::install` receives a snapshot beside the current state"
            );
            let installed = target.installed(staged, reader.host_row()).await;
            installed.expect("`StateMachine::installed`");
            self.shows(middle, &to);
            drop(target);
            let (mut target, applied) = open(&to);
            assert_eq!(applied, Some(middle), "`StateMachine::installed`: durable on return");
            self.is_at(middle, &mut *target, &to).await;
            self.goes_on(&mut *target, &to, middle + 1).await;
        }
    }

    /// After an installation, at once or after a restart.
    fn shows(&self, index: u64, subject: &Subject) {
        assert!(
            (subject.state)() == *self.state_at(Some(index)),
            "`StateMachine::snapshot` is a consistent view of the state as of its call, and on \
             return from `StateMachine::installed` it is visible, and durable"
        );
    }

    /// After a restart after an installation.
    async fn is_at(&self, index: u64, machine: &mut dyn StateMachine, subject: &Subject) {
        self.shows(index, subject);
        assert_eq!(
            flush(machine).await,
            index,
            "`StateMachine::flush` after an installation returns what the host row records"
        );
    }

    async fn an_installed_snapshot_replaces_everything(&self, fresh: &impl Fn() -> Subject) {
        let (early, late) = (self.first + ENTRIES / 4, self.first + ENTRIES / 2);
        let mut chance = SplitMix::new(4);
        // Back as well as forward: what the host installs is the state.
        for (source_at, target_at) in [(late, early), (early, late)] {
            let (from, to) = (fresh(), fresh());
            let (mut source, _) = open(&from);
            let (mut target, _) = open(&to);
            self.apply(&mut *source, self.first, source_at + 1, &mut chance).await;
            self.apply(&mut *target, self.first, target_at + 1, &mut chance).await;
            let mut reader = source.snapshot().expect("`StateMachine::snapshot`");
            let staged = self.stage(&mut *reader, &mut *target).await;
            // The host's own, and not the reader's: they say the same.
            let host_row = row(source_at);
            target.installed(staged, host_row.clone()).await.expect("`StateMachine::installed`");
            self.shows(source_at, &to);
            drop(target);
            let mut target = (to.open)();
            assert_eq!(
                target.recovered().expect("`StateMachine::recovered`"),
                Some(host_row),
                "`StateMachine::installed` replaces the whole state, together with `host_row`"
            );
            self.is_at(source_at, &mut *target, &to).await;
            self.goes_on(&mut *target, &to, source_at + 1).await;
        }
    }

    async fn stage(
        &self,
        reader: &mut dyn crate::SnapshotReader,
        target: &mut dyn StateMachine,
    ) -> Box<dyn SnapshotWriter> {
        let mut staged = target.install().expect("`StateMachine::install`");
        while let Some(chunk) = next_chunk(reader, CHUNK_BYTES[0], &self.entries).await {
            staged.write(chunk).await.expect("`SnapshotWriter::write`");
        }
        staged
    }

    async fn a_staging_that_is_dropped_leaves_nothing(&self, fresh: &impl Fn() -> Subject) {
        let middle = self.first + ENTRIES / 2;
        let (from, to) = (fresh(), fresh());
        let (mut source, _) = open(&from);
        let (mut target, before) = open(&to);
        let mut chance = SplitMix::new(5);
        self.apply(&mut *source, self.first, self.last() + 1, &mut chance).await;
        if before.is_some() {
            self.apply(&mut *target, self.first, middle + 1, &mut chance).await;
        }
        let mut readers = [source.snapshot().unwrap(), source.snapshot().unwrap()];
        let complete = self.stage(&mut *readers[0], &mut *target).await;
        let mut partial = target.install().expect("`StateMachine::install`: several may exist");
        if let Some(chunk) = next_chunk(&mut *readers[1], CHUNK_BYTES[0], &self.entries).await {
            partial.write(chunk).await.expect("`SnapshotWriter::write`");
        }
        drop((complete, partial));
        let at = before.map(|_| middle);
        let next = if before.is_some() { middle + 1 } else { self.first };
        assert!((to.state)() == *self.state_at(at), "stagings that are dropped leave nothing");
        self.apply(&mut *target, next, next + 1, &mut chance).await;
        flush(&mut *target).await;
        drop(target);
        let (mut target, _) = open(&to);
        assert!(
            (to.state)() == *self.state_at(Some(next)),
            "stagings that are dropped leave nothing behind, at the latest after a restart"
        );
        self.goes_on(&mut *target, &to, next + 1).await;
    }
}

async fn next_chunk(
    reader: &mut dyn crate::SnapshotReader,
    bytes_max: usize,
    entries: &[Entry],
) -> Option<Bytes> {
    let chunk = reader.next_chunk(bytes_max).await.expect("`SnapshotReader::next_chunk`")?;
    let command = |entry: &Entry| entry.command.as_ref().map_or(0, Bytes::len);
    let longest = entries.iter().map(command).max().unwrap_or(0);
    assert!(!chunk.is_empty(), "`SnapshotReader::next_chunk`: a chunk is not empty");
    assert!(
        chunk.len() <= 2 * (bytes_max + longest),
        "`SnapshotReader::next_chunk`: about `bytes_max` bytes, and it was {} of {bytes_max}",
        chunk.len()
    );
    Some(chunk)
}
