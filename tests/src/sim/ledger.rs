//! What a run's taps tell, and what of it must not be.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate::types::{ClientId, GroupId, KeyRange, MigrationId, NodeId, ReplicaId, ShardId};
use quorate_calvin::{Call, Procedures};
use quorate_engine::{EngineError, Mutation, Space};
use quorate_migration::MigrationRow;
use quorate_raft::{LogEntry, LogPosition, LogState, Vote};
use tokio::time::Instant;

use super::finding::Findings;
use super::invariants::{
    Change, FoundGroup, HomesBook, OrderBook, Print, RaftBook, RowsBook, Touched,
};
use super::model::Model;
use super::shadow::Shadow;
use super::tap::payload::{HostRow, group_of, host_row_in, space_of};
use super::tap::wire;

/// Where checks leave what they found.
pub(crate) struct Report {
    begun: Instant,
    findings: Findings,
    counts: BTreeMap<&'static str, u64>,
}

impl Report {
    pub(crate) fn new(begun: Instant, findings: Findings) -> Self {
        Self { begun, findings, counts: BTreeMap::new() }
    }

    /// Makes one check of an invariant.
    pub(crate) fn check(&mut self, id: &'static str, holds: bool, what: impl FnOnce() -> String) {
        *self.counts.entry(id).or_default() += 1;
        if !holds {
            let at_millis = u64::try_from(self.begun.elapsed().as_millis()).unwrap();
            self.findings.add(id, at_millis, what());
        }
    }
}

struct Books {
    report: Report,
    lives: BTreeMap<NodeId, u64>,
    raft: RaftBook,
    rows: RowsBook,
    order: OrderBook,
    homes: HomesBook,
    shadow: Shadow,
}

/// What a run was seen to do; clones are the same one.
///
/// It draws no chance, asks no clock but that of the simulation, and the
/// system under test never learns of it.
#[derive(Clone)]
pub struct Ledger {
    books: Arc<Mutex<Books>>,
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

impl Ledger {
    /// An empty one, for a run that began then and whose nodes execute these
    /// procedures; what must not be is added to the findings. Without a model
    /// nobody asks whether nodes execute procedures right.
    #[must_use]
    pub fn new(
        begun: Instant,
        findings: Findings,
        procedures: Arc<dyn Procedures>,
        model: Option<Box<dyn Model>>,
    ) -> Self {
        let books = Books {
            report: Report::new(begun, findings),
            lives: BTreeMap::new(),
            raft: RaftBook::default(),
            rows: RowsBook::default(),
            order: OrderBook::new(model),
            homes: HomesBook::default(),
            shadow: Shadow::new(procedures),
        };
        Self { books: Arc::new(Mutex::new(books)) }
    }

    /// What follows it in a further run: on the disks that its own run left,
    /// with lives that are counted anew. Nothing may be under way.
    #[must_use]
    pub fn continued(
        &self,
        begun: Instant,
        findings: Findings,
        model: Option<Box<dyn Model>>,
    ) -> Self {
        let books = self.with(|books| Books {
            report: Report::new(begun, findings),
            lives: BTreeMap::new(),
            raft: books.raft.clone(),
            rows: books.rows.clone(),
            order: books.order.continued(model),
            homes: books.homes.continued(),
            shadow: books.shadow.continued(),
        });
        Self { books: Arc::new(Mutex::new(books)) }
    }

    /// What one life of a node reports to.
    #[must_use]
    pub fn tap(&self, node: NodeId, life: u64) -> Tap {
        Tap { ledger: self.clone(), node, life }
    }

    /// How often each invariant was checked.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.books.lock().report.counts.clone()
    }

    /// Whether every group's members are those that the metadata names, which
    /// must be so once no operator works (M2).
    ///
    /// # Errors
    /// Which group differs, and how.
    pub fn homes(&self) -> Result<(), String> {
        self.with(|books| books.homes.settled(books.shadow.view(), &books.raft))
    }

    /// A client has got the answer to a call whose arguments nobody else uses
    /// (O5). What writes nothing is in no log.
    pub fn answered(&self, call: &Call) {
        if !call.footprint.is_read_only() {
            self.with(|books| books.order.answered(&call.args, &mut books.report));
        }
    }

    /// Every logged call that the model has executed, with the client and the
    /// sequence of its request, in an order that the logs allow and that
    /// respects real time if no answer came too early: for a replay that knows
    /// when clients asked and were answered, which counts as a check of O9.
    #[must_use]
    pub fn order(&self) -> Vec<((ClientId, u64), Call)> {
        self.with(|books| {
            books.report.check("O9", true, String::new);
            books.order.oracle().order()
        })
    }

    /// Whether the shards hold what the model does, which must be so once
    /// nothing is under way.
    ///
    /// # Errors
    /// What is still under way, or a key that differs.
    pub fn content(&self) -> Result<(), String> {
        self.with(|books| books.order.oracle().compare(&books.shadow.content()))
    }

    /// How many groups' logs the shadow follows, and how far: for reports.
    #[must_use]
    pub fn applied(&self) -> BTreeMap<GroupId, u64> {
        self.books.lock().shadow.applied()
    }

    /// How many system rows each shard and the sequencer
    /// (`ShardId(u64::MAX - 1)`) have, by the tag that their keys begin with:
    /// what waits, what is kept for others and what is remembered.
    #[must_use]
    pub fn system_rows(&self) -> BTreeMap<(ShardId, u8), usize> {
        self.books.lock().shadow.system_rows()
    }

    /// How many entries the log of each running replica holds.
    #[must_use]
    pub fn log_lengths(&self) -> BTreeMap<(NodeId, GroupId), usize> {
        self.books.lock().raft.lengths()
    }

    /// The oldest transaction that waits in a shard's gate, and for how many
    /// milliseconds it has (O3: none for long once everything is healed).
    #[must_use]
    pub fn longest_open(&self) -> Option<(ShardId, u64)> {
        self.books.lock().shadow.longest_open()
    }

    fn with<T>(&self, look: impl FnOnce(&mut Books) -> T) -> T {
        look(&mut self.books.lock())
    }
}

/// Where one life of a node tells what its log and its engine do. What a life
/// tells after the next has begun is ignored.
#[derive(Clone, Debug)]
pub struct Tap {
    ledger: Ledger,
    node: NodeId,
    life: u64,
}

/// What a space of an engine was found to hold.
#[derive(Debug)]
pub struct FoundSpace {
    /// The space.
    pub space: ShardId,
    /// The index that it reflects.
    pub applied: u64,
    /// All rows.
    pub rows: Vec<(Space, quorate::types::Blob, quorate::types::Blob)>,
}

impl FoundSpace {
    fn print(&self) -> Print {
        let mut print = Print::default();
        for (space, key, value) in &self.rows {
            let row = Mutation::put(key.clone(), value.clone());
            if let Some(Touched { space, key, hash }) = Touched::of(*space, &row) {
                print.set(space, &key, hash);
            }
        }
        print
    }
}

impl Tap {
    fn with<T: Default>(&self, tell: impl FnOnce(&mut Books, NodeId) -> T) -> T {
        self.ledger.with(|books| {
            let newest = books.lives.entry(self.node).or_insert(self.life);
            if *newest > self.life {
                return T::default();
            }
            *newest = self.life;
            tell(books, self.node)
        })
    }

    /// The log was opened, and holds this.
    pub fn log_opened(
        &self,
        found: Vec<(GroupId, ReplicaId, LogState, Vec<LogEntry>)>,
        is_tombstoned: &dyn Fn(GroupId, ReplicaId) -> bool,
    ) {
        let found = found.into_iter().map(|(group, replica, state, entries)| FoundGroup {
            group,
            replica,
            state,
            entries,
        });
        let found = found.collect();
        self.with(|books, node| books.raft.opened(node, found, is_tombstoned, &mut books.report));
    }

    /// The log admitted a replica and said what it holds for it.
    pub fn admitted(&self, group: GroupId, replica: ReplicaId, state: LogState) {
        self.with(|books, node| {
            books.raft.admitted(node, group, replica, state, &mut books.report);
        });
    }

    /// Entries are on their way into the log; the number names them.
    #[must_use]
    pub fn appending(&self, group: GroupId, entries: &[LogEntry]) -> u64 {
        self.with(|books, node| books.raft.appending(node, group, entries, &mut books.report))
    }

    /// The log did not take them.
    pub fn refused(&self, group: GroupId, ticket: u64) {
        self.with(|books, node| books.raft.refused(node, group, ticket));
    }

    /// The log said that they are durable.
    pub fn appended(&self, group: GroupId, ticket: u64) {
        self.with(|books, node| books.raft.appended(node, group, ticket));
    }

    /// The log is told to remove its tail.
    pub fn truncating(&self, group: GroupId, from: u64) {
        self.with(|books, node| books.raft.truncating(node, group, from, &mut books.report));
    }

    /// It has, durably.
    pub fn truncated(&self, group: GroupId) {
        self.with(|books, node| books.raft.truncated(node, group));
    }

    /// The log is told to purge, while the engine says to be durable up to an
    /// index. Of one that has failed, what it said before stands.
    pub fn purging(
        &self,
        group: GroupId,
        upto: LogPosition,
        durable: Result<Option<u64>, EngineError>,
    ) {
        self.with(|books, node| {
            let durable = durable.unwrap_or_else(|_| books.rows.durable(node, space_of(group)));
            books.raft.purging(node, group, upto, durable, &mut books.report);
        });
    }

    /// The log is told a vote.
    pub fn voting(&self, group: GroupId, vote: Vote) {
        self.with(|books, node| books.raft.voting(node, group, vote, &mut books.report));
    }

    /// The vote is durable.
    pub fn voted(&self, group: GroupId, vote: Vote) {
        self.with(|books, node| books.raft.voted(node, group, vote));
    }

    /// The log is told to forget a replica.
    pub fn forgetting(&self, group: GroupId, replica: ReplicaId) {
        self.with(|books, node| books.raft.forgetting(node, group, replica));
    }

    /// It has, and keeps a tombstone.
    pub fn forgot(&self, group: GroupId, replica: ReplicaId) {
        self.with(|books, node| books.raft.forgot(node, group, replica));
    }

    /// The engine was opened, and holds this.
    pub fn engine_opened(&self, found: &[FoundSpace]) {
        self.with(|books, node| {
            let prints = found.iter().map(|found| (found.space, found.applied, found.print()));
            books.rows.opened(node, prints.collect(), &mut books.report);
            for found in found {
                books.check_digest(node, found.space, found.applied, "opens");
            }
        });
    }

    /// The engine made a new space.
    pub fn created(&self, space: ShardId, range: &KeyRange, index: u64, system: &[Mutation]) {
        self.with(|books, node| {
            let mut print = Print::default();
            let rows = system.iter().filter_map(|row| Touched::of(Space::System, row));
            for Touched { space, key, hash } in rows {
                print.set(space, &key, hash);
            }
            books.rows.created(node, space, index, print);
            if let Some(row) = host_row_in(system) {
                books.raft.seeded(group_of(space), &row);
            }
            books.shadow.created(space, range, index, system, &mut books.report);
            books.check_digest(node, space, index, "begins");
        });
    }

    /// Whether the ledger follows a space; one that it does not has to be
    /// shown by [`Self::found`].
    #[must_use]
    pub fn knows(&self, space: ShardId) -> bool {
        self.with(|books, node| Some(books.rows.knows(node, space))).unwrap_or(true)
    }

    /// The engine holds this for a space, by a snapshot that was installed.
    pub fn installed(&self, found: &FoundSpace) {
        self.with(|books, node| {
            books.rows.installed(node, found.space, found.applied, found.print());
            books.check_digest(node, found.space, found.applied, "installs");
        });
    }

    /// The engine was seen to hold this for a space.
    pub fn found(&self, found: &FoundSpace) {
        self.with(|books, node| {
            books.rows.created(node, found.space, found.applied, found.print());
            books.check_digest(node, found.space, found.applied, "shows");
        });
    }

    /// The engine is told to remove or to replace a space.
    pub fn leaving(&self, space: ShardId) {
        self.with(|books, node| books.rows.leaving(node, space));
    }

    /// The engine said that a space is durable up to an index.
    pub fn flushed(&self, space: ShardId, index: u64) {
        self.with(|books, node| books.rows.flushed(node, space, index));
    }

    /// The engine took a batch.
    pub fn applied(&self, space: ShardId, batch: &quorate_engine::Batch) {
        self.took(space, Change::of(batch), host_row_in(&batch.system).as_ref());
    }

    pub(crate) fn took(&self, space: ShardId, change: Change, row: Option<&HostRow>) {
        self.with(|books, node| {
            let index = change.index;
            books.follow(node, space, index, row);
            let born = books.rows.applied(node, space, change, &mut books.report);
            books.check_digest(node, space, index, "applies");
            for (child, index) in born {
                books.check_digest(node, child, index, "forks");
            }
        });
    }

    /// The node sends a message to the services of another one.
    pub fn sent(&self, payload: &Bytes) {
        let Some(marks) = wire::watermarks(payload) else { return };
        self.with(|books, node| books.order.watermarks(node, marks, &mut books.report));
    }

    /// The node shows these migrations to its operator.
    pub fn migrations(&self, shown: &BTreeMap<MigrationId, MigrationRow>) {
        let life = self.life;
        self.with(|books, node| books.homes.shown(node, life, shown, &mut books.report));
    }
}

impl Books {
    /// Lets the shadow take the steps that nobody had taken before.
    fn follow(&mut self, node: NodeId, space: ShardId, index: u64, row: Option<&HostRow>) {
        let group = group_of(space);
        let fresh = self.raft.applied(node, group, index, row, &mut self.report);
        for (index, payload) in fresh {
            let (order, homes) = (&mut self.order, &mut self.homes);
            let born = self.shadow.apply(space, index, &payload, order, homes, &mut self.report);
            for (child, row) in born {
                self.raft.seeded(group_of(child), &row);
            }
        }
    }

    /// O2: the state at an index is a function of the log up to there.
    fn check_digest(&mut self, node: NodeId, space: ShardId, index: u64, doing: &str) {
        let Some(print) = self.rows.print(node, space) else { return };
        let Some(expected) = self.shadow.digest(space, index) else { return };
        let shadow = &self.shadow;
        self.report.check("O2", expected == print.digest(), || {
            let differing = shadow.print(space).map(|(at, shadow)| (at, print.difference(shadow)));
            format!(
                "{node} {doing} {space} at {index} in another state; what differs from that at an \
                 index: {differing:?}"
            )
        });
    }
}
