//! The one writer of the file: it merges what all shards have applied, and
//! what was asked of it, into one transaction after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use quorate_types::codec::ROW_HEADER_BYTES;
use quorate_types::{Blob, KeyRange, ShardId, buggify, runtime, sometimes};
use redb::{Database, Table, WriteTransaction};
use tokio::time::Instant;

use super::backend::contain;
use super::format::{
    ENGINE, GARBAGE, Garbage, NEXT_SPACE_KEY, ROWS, Record, SHARDS, SPACE_BYTES, SpaceId, row_key,
    row_keys, seal_next_space, seal_row,
};
use super::shared::{Command, Install, Shared, StagedSpaces};
use super::state::ShardState;
use super::view::View;
use crate::error::EngineError;
use crate::layer::Layer;
use crate::port::Space;

pub(super) struct Committer {
    shared: Arc<Shared>,
    /// Gone when the file is closed.
    db: Option<Database>,
    bin: Bin,
}

/// What the committer alone knows.
struct Bin {
    garbage: BTreeMap<u64, Garbage>,
    /// Garbage that a live staging may yet redeem.
    staged: BTreeSet<SpaceId>,
    /// The next free space as the file has it.
    next_space: SpaceId,
    collected_rows_max: usize,
}

impl Bin {
    fn collectable(&self) -> Option<(u64, Garbage)> {
        let mut free = self.garbage.iter().filter(|(_, item)| !self.staged.contains(&item.space));
        free.next().map(|(number, item)| (*number, item.clone()))
    }
}

/// Everything that one transaction is to write.
struct Work {
    generation: u64,
    shards: Vec<ShardWork>,
    commands: Vec<Command>,
    garbage: Vec<Garbage>,
    /// Bytes in memory that this commit makes superfluous.
    bytes: u64,
}

/// A shard's part of it.
struct ShardWork {
    shard: ShardId,
    record: Record,
    /// Oldest first.
    data: Vec<Arc<Layer>>,
    system: Vec<Arc<Layer>>,
    growth: Growth,
}

/// How much larger a shard has become.
#[derive(Debug, Clone, Copy, Default)]
struct Growth {
    rows: i64,
    bytes: i64,
}

impl Growth {
    fn add_to(self, record: &mut Record) {
        record.rows_estimate = record.rows_estimate.saturating_add_signed(self.rows);
        record.bytes_estimate = record.bytes_estimate.saturating_add_signed(self.bytes);
    }

    /// Counts a stored row in or out, without what storing adds to it.
    fn count(&mut self, sign: i64, stored: &[u8], row_bytes: usize) {
        const ADDED_BYTES: usize = SPACE_BYTES + ROW_HEADER_BYTES;
        self.rows += sign;
        self.bytes += sign * (stored.len() + row_bytes).saturating_sub(ADDED_BYTES) as i64;
    }
}

impl Committer {
    pub(super) fn new(
        shared: Arc<Shared>,
        db: Database,
        garbage: BTreeMap<u64, Garbage>,
        next_space: SpaceId,
    ) -> Self {
        let collected_rows_max = shared.config.collected_rows_max.max(1);
        let bin = Bin { garbage, staged: BTreeSet::new(), next_space, collected_rows_max };
        Self { shared, db: Some(db), bin }
    }

    /// Commits until the engine is closed or storage fails.
    pub(super) async fn run(mut self) {
        loop {
            self.wait().await;
            let is_closing = self.shared.is_closing();
            runtime::sync_delay().await;
            if buggify!("engine commit is slow") {
                runtime::sync_delay().await;
            }
            if self.shared.check().is_err() || !self.commit() || is_closing {
                return;
            }
        }
    }

    /// Waits until a commit is due.
    async fn wait(&self) {
        let mut deadline = None;
        loop {
            let is_failed = self.shared.check().is_err();
            if is_failed || self.shared.is_asked() || self.shared.wants_commit() {
                return;
            }
            // Idle hours are for collecting, one bounded commit at a time.
            if self.bin.collectable().is_some() {
                return;
            }
            if self.shared.is_dirty() && deadline.is_none() {
                deadline = Some(Instant::now() + self.shared.config.commit_age_max);
                if buggify!("engine commits at once") {
                    return;
                }
            }
            let Some(due) = deadline else {
                self.shared.work().await;
                continue;
            };
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(due) => return,
                () = self.shared.work() => {}
            }
        }
    }

    /// One transaction; false when storage failed.
    fn commit(&mut self) -> bool {
        let Some(db) = &self.db else { return false };
        let mut work = freeze(&self.shared);
        let bin = &mut self.bin;
        if work.is_empty() && bin.collectable().is_none() {
            return true;
        }
        let next_space = self.shared.next_space();
        let written = contain(|| {
            let transaction = db.begin_write()?;
            Transaction::open(&transaction, bin)?.write(&mut work, next_space)?;
            transaction.commit()?;
            View::open(db)
        });
        match written {
            Ok(view) => {
                bin.next_space = next_space;
                let replies = publish(&self.shared, work, view);
                replies.into_iter().for_each(|reply| reply());
                true
            }
            Err(cause) => {
                let failure = self.shared.fail_storage(cause);
                work.commands.into_iter().for_each(|command| command.refuse(&failure));
                false
            }
        }
    }
}

/// Closing is the last thing said, whatever ends the committer: even a node
/// that crashes in a simulation drops it and so releases the file.
impl Drop for Committer {
    fn drop(&mut self) {
        self.shared.fail(EngineError::Closed);
        let db = self.db.take();
        // What redb wants to write when it closes is only for convenience.
        let _ = contain(|| {
            drop(db);
            Ok(())
        });
        self.shared.closed();
    }
}

impl Work {
    fn is_empty(&self) -> bool {
        self.shards.is_empty() && self.commands.is_empty()
    }
}

/// Takes everything applied and everything asked so far. For every shard that
/// is a batch boundary, and no fork is half inside.
fn freeze(shared: &Shared) -> Work {
    let directory = &mut *shared.directory.write();
    directory.generation += 1;
    let generation = directory.generation;
    let commands = shared.take_commands();
    let leaving: BTreeSet<ShardId> = commands.iter().filter_map(Command::replaces).collect();
    let mut work = Work { generation, shards: Vec::new(), commands, garbage: Vec::new(), bytes: 0 };
    for shard in shared.take_dirty() {
        let Some(state) = directory.shards.get_mut(&shard) else { continue };
        let state = state.get_mut();
        state.is_dirty = false;
        work.bytes += state.unwritten_bytes(generation - 1);
        work.garbage.append(&mut state.garbage);
        let (mut data, system) = (state.data.freeze(generation), state.system.freeze(generation));
        if leaving.contains(&shard) {
            continue;
        }
        // Emptying the whole range costs the same at any size: the shard moves
        // to a fresh space, and the collector takes its time with the old one.
        let emptied = data.iter().rposition(|layer| layer.clears().covers(&state.record.range));
        let is_large = state.record.rows_estimate > shared.config.collected_rows_max as u64;
        let abandoned = emptied.filter(|_| is_large).map(|from| {
            data.drain(..from);
            (state.record.rows_estimate, state.record.bytes_estimate) = (0, 0);
            let fresh = shared.allocate_space();
            (std::mem::replace(&mut state.record.data, fresh), state.record.range.clone())
        });
        let growth = Growth::default();
        let record = state.record.clone();
        work.shards.push(ShardWork { shard, record, data, system, growth });
        if let Some((space, range)) = abandoned {
            work.garbage.extend(directory.unowned(space, range, shard));
        }
    }
    for shard in leaving {
        let Some(state) = directory.shards.get_mut(&shard) else { continue };
        let Record { data, system, range, .. } = state.get_mut().record.clone();
        work.garbage.push(Garbage { space: system, range: KeyRange::all() });
        work.garbage.extend(directory.unowned(data, range, shard));
    }
    work
}

impl Command {
    /// The shard whose old state it ends.
    fn replaces(&self) -> Option<ShardId> {
        match self {
            Self::Install(Install { shard, .. }) | Self::Remove { shard, .. } => Some(*shard),
            Self::Flush { .. } | Self::Stage { .. } | Self::Abandon { .. } => None,
        }
    }
}

/// The open tables of a transaction.
struct Transaction<'t> {
    rows: Table<'t, &'static [u8], &'static [u8]>,
    shards: Table<'t, u64, &'static [u8]>,
    garbage: Table<'t, u64, &'static [u8]>,
    engine: Table<'t, &'static str, &'static [u8]>,
    bin: &'t mut Bin,
}

type Written<T = ()> = Result<T, redb::Error>;

impl<'t> Transaction<'t> {
    fn open(transaction: &'t WriteTransaction, bin: &'t mut Bin) -> Written<Self> {
        Ok(Self {
            rows: transaction.open_table(ROWS)?,
            shards: transaction.open_table(SHARDS)?,
            garbage: transaction.open_table(GARBAGE)?,
            engine: transaction.open_table(ENGINE)?,
            bin,
        })
    }

    fn write(mut self, work: &mut Work, next_space: SpaceId) -> Written {
        if self.bin.next_space != next_space {
            self.engine.insert(NEXT_SPACE_KEY, &*seal_next_space(next_space))?;
        }
        work.shards.iter_mut().try_for_each(|shard| self.shard(shard))?;
        work.garbage.drain(..).try_for_each(|garbage| self.discard(garbage))?;
        work.commands.iter_mut().try_for_each(|command| self.command(command))?;
        self.collect()
    }

    fn shard(&mut self, work: &mut ShardWork) -> Written {
        for layer in &work.data {
            self.layer(work.record.data, layer, &mut work.growth)?;
        }
        for layer in &work.system {
            self.layer(work.record.system, layer, &mut work.growth)?;
        }
        work.growth.add_to(&mut work.record);
        self.shards.insert(work.shard.0, &*work.record.seal(work.shard))?;
        Ok(())
    }

    fn layer(&mut self, space: SpaceId, layer: &Layer, growth: &mut Growth) -> Written {
        for range in layer.clears().ranges() {
            self.clear(space, &range, growth)?;
        }
        for (key, value) in layer.rows() {
            self.put(space, key, value.as_ref(), growth)?;
        }
        Ok(())
    }

    fn clear(&mut self, space: SpaceId, range: &KeyRange, growth: &mut Growth) -> Written {
        let (start, end) = row_keys(space, range);
        self.rows.retain_in::<&[u8], _>(start.as_slice()..end.as_slice(), |stored, row| {
            growth.count(-1, stored, row.len());
            false
        })?;
        Ok(())
    }

    fn put(
        &mut self,
        space: SpaceId,
        key: &[u8],
        value: Option<&Blob>,
        growth: &mut Growth,
    ) -> Written {
        let stored = row_key(space, key);
        let old = match value {
            Some(value) => {
                let row = seal_row(&stored, value);
                growth.count(1, &stored, row.len());
                self.rows.insert(stored.as_slice(), &*row)?
            }
            None => self.rows.remove(stored.as_slice())?,
        };
        if let Some(old) = old {
            growth.count(-1, &stored, old.value().len());
        }
        Ok(())
    }

    fn command(&mut self, command: &mut Command) -> Written {
        match command {
            Command::Flush { .. } => Ok(()),
            Command::Stage { staging, space, rows, .. } => self.stage(*staging, *space, rows),
            Command::Abandon { staging } => {
                self.bin.staged.remove(&staging.data);
                self.bin.staged.remove(&staging.system);
                Ok(())
            }
            Command::Install(install) => self.install(install),
            Command::Remove { shard, .. } => {
                self.shards.remove(shard.0)?;
                Ok(())
            }
        }
    }

    fn stage(&mut self, staging: StagedSpaces, space: Space, rows: &[(Blob, Blob)]) -> Written {
        for space in [staging.data, staging.system] {
            if self.bin.staged.insert(space) {
                self.discard(Garbage { space, range: KeyRange::all() })?;
            }
        }
        let space = match space {
            Space::Data => staging.data,
            Space::System => staging.system,
        };
        let mut growth = Growth::default();
        rows.iter().try_for_each(|(key, value)| self.put(space, key, Some(value), &mut growth))
    }

    fn install(&mut self, install: &mut Install) -> Written {
        let StagedSpaces { data, system } = install.staging;
        sometimes!("a staged shard is put in place of another");
        for space in [data, system] {
            self.redeem(space)?;
        }
        let mut growth = Growth::default();
        for mutation in &install.system {
            self.put(system, &mutation.key, mutation.value.as_ref(), &mut growth)?;
        }
        let record = install.record();
        self.shards.insert(install.shard.0, &*record.seal(install.shard))?;
        Ok(())
    }

    /// Records rows as garbage.
    fn discard(&mut self, garbage: Garbage) -> Written {
        let number = self.bin.garbage.last_key_value().map_or(0, |(last, _)| last + 1);
        self.garbage.insert(number, &*garbage.seal(number))?;
        self.bin.garbage.insert(number, garbage);
        Ok(())
    }

    /// Takes a staged space out of the garbage.
    fn redeem(&mut self, space: SpaceId) -> Written {
        self.bin.staged.remove(&space);
        let mut entries = self.bin.garbage.iter().filter(|(_, garbage)| garbage.space == space);
        if let Some(number) = entries.next().map(|(number, _)| *number) {
            self.forget(number)?;
        }
        Ok(())
    }

    fn forget(&mut self, number: u64) -> Written {
        self.garbage.remove(number)?;
        self.bin.garbage.remove(&number);
        Ok(())
    }

    /// Deletes some garbage. Views opened before still see the rows.
    fn collect(&mut self) -> Written {
        let Some((number, Garbage { space, range })) = self.bin.collectable() else {
            return Ok(());
        };
        let (start, end) = row_keys(space, &range);
        let (mut collected, collected_max) = (0, self.bin.collected_rows_max);
        let mut rows =
            self.rows.extract_from_if::<&[u8], _>(start.as_slice()..end.as_slice(), |_, _| true)?;
        while collected < collected_max {
            let Some(row) = rows.next() else { break };
            row?;
            collected += 1;
        }
        drop(rows);
        if collected < collected_max {
            self.forget(number)?;
        }
        Ok(())
    }
}

impl Install {
    fn record(&self) -> Record {
        Record {
            data: self.staging.data,
            system: self.staging.system,
            range: self.header.range.clone(),
            applied: self.header.index,
            rows_estimate: self.rows,
            bytes_estimate: self.bytes,
        }
    }
}

/// An answer that is due once no lock is held.
type DueReply = Box<dyn FnOnce()>;

/// Lets reads see the commit instead of the layers it wrote.
fn publish(shared: &Shared, work: Work, view: Arc<View>) -> Vec<DueReply> {
    let directory = &mut *shared.directory.write();
    directory.view = Some(view);
    for done in &work.shards {
        let Some(state) = directory.shards.get_mut(&done.shard) else { continue };
        let state = state.get_mut();
        state.durable = Some(done.record.applied);
        done.growth.add_to(&mut state.record);
    }
    // Besides the shards that were written, children that were forked off
    // meanwhile hold the layers, too; those are dirty.
    let dirty = shared.dirty();
    for shard in work.shards.iter().map(|done| &done.shard).chain(&dirty) {
        if let Some(state) = directory.shards.get_mut(shard) {
            state.get_mut().data.committed(work.generation);
            state.get_mut().system.committed(work.generation);
        }
    }
    for command in &work.commands {
        match command {
            Command::Install(install) => {
                directory.arriving.remove(&install.shard);
                let state = ShardState::committed(install.record());
                directory.shards.insert(install.shard, state.into());
            }
            Command::Remove { shard, .. } => drop(directory.shards.remove(shard)),
            Command::Flush { .. } | Command::Stage { .. } | Command::Abandon { .. } => {}
        }
    }
    shared.committed(work.bytes);
    work.commands.into_iter().map(|command| command.due_reply(&mut directory.shards)).collect()
}

impl Command {
    fn due_reply(
        self,
        shards: &mut BTreeMap<ShardId, parking_lot::RwLock<ShardState>>,
    ) -> DueReply {
        match self {
            Self::Flush { shard, reply } => {
                let durable = shards.get_mut(&shard).and_then(|state| state.get_mut().durable);
                let durable = durable.ok_or(EngineError::UnknownShard(shard));
                Box::new(move || drop(reply.send(durable)))
            }
            Self::Stage { reply, .. }
            | Self::Install(Install { reply, .. })
            | Self::Remove { reply, .. } => Box::new(move || drop(reply.send(Ok(())))),
            Self::Abandon { .. } => Box::new(|| {}),
        }
    }
}
