//! The gate (rules 6 to 9): who may run, and running them to a fixpoint.

use std::collections::{BTreeMap, BTreeSet};

use quorate_types::contain::{Panicked, contain};
use quorate_types::{
    Blob, ClientId, Epoch, KeyRange, RequestId, ShardId, TxnId, planted, sometimes,
};

use super::machine::{Event, Halt, ShardMachine, waiting};
use super::rows::{
    DataRow, DirectWork, OutboxRow, PendingRow, SequencedWork, Verdict, Work, outbox_key,
};
use crate::command::{
    Contribution, Participant, ScanPart, SequencedTxn, ShardContribution, TxnInputs, seal,
};
use crate::limits::{
    DIRECT_READ_BYTES_MAX, INPUTS_BYTES_MAX, KEY_BYTES_MAX, READ_BYTES_MAX, READ_RESULT_BYTES_MAX,
    RESULT_BYTES_MAX, VALUE_BYTES_MAX,
};
use crate::lock::{LockSet, LockTable, Place};
use crate::procedure::{Access, Call, Footprint, Inputs, Outcome, Procedures, Read, Write};
use crate::store::{Store, View, WriteSet};

/// Marks the version of a value that has expired but is still stored, so that
/// a watcher who saw the value notices its expiry.
const EXPIRED_VERSION_BIT: u64 = 1 << 63;

/// Pending work, its locks and its indexes. The indexes are functions of the
/// pending rows, whatever a log holds: were one to depend on how the rows came
/// and went, a replica that restarted would know other requests than one that
/// ran on.
#[derive(Clone, Debug, Default)]
pub(super) struct Gate {
    locks: LockTable,
    pending: BTreeMap<Place, PendingRow>,
    by_txn: BTreeSet<(TxnId, Place)>,
    by_request: BTreeSet<((ClientId, u64), Place)>,
    ready: BTreeSet<Place>,
    dirty: BTreeSet<Place>,
    stored: BTreeSet<Place>,
}

impl Gate {
    /// Rebuilds the gate from its rows: requesting all locks again in log
    /// order grants exactly those that were granted.
    pub(super) fn load(pending: BTreeMap<Place, PendingRow>) -> Self {
        let mut gate = Self { stored: pending.keys().copied().collect(), ..Self::default() };
        for (place, mut row) in pending {
            if planted!(InputsForgotten) {
                row.inputs = None;
            }
            let granted = if planted!(LockReleasedEarly) && row.granted.is_some() {
                true
            } else {
                gate.locks.request(place, lock_set(&row.work))
            };
            debug_assert!(
                granted || row.granted.is_none(),
                "invariant: a granted entry holds its locks after a restart"
            );
            if granted && row.granted.is_none() {
                gate.ready.insert(place);
            }
            gate.index(place, &row.work);
            gate.pending.insert(place, row);
        }
        gate
    }

    fn index(&mut self, place: Place, work: &Work) {
        match work {
            Work::Direct(work) => {
                self.by_request.insert((work.request.key(), place));
            }
            Work::Sequenced(work) => {
                self.by_txn.insert((work.id(), place));
                self.by_request.insert((work.txn.request.key(), place));
            }
            Work::Split(_) => {}
        }
    }

    /// Queues work behind everything that entered before.
    pub(super) fn enter(&mut self, place: Place, work: Work) {
        let granted = self.locks.request(place, lock_set(&work));
        sometimes!("work waits for its locks", !granted);
        if granted {
            self.ready.insert(place);
        }
        self.index(place, &work);
        self.pending.insert(place, waiting(work));
        self.dirty.insert(place);
    }

    fn leave(&mut self, place: Place, work: &Work) {
        match work {
            Work::Direct(work) => {
                self.by_request.remove(&(work.request.key(), place));
            }
            Work::Sequenced(work) => {
                self.by_txn.remove(&(work.id(), place));
                self.by_request.remove(&(work.txn.request.key(), place));
            }
            Work::Split(_) => {}
        }
        self.dirty.insert(place);
        self.ready.extend(self.locks.release(place));
    }

    /// Stores inputs that came for a pending transaction; lets it run if it
    /// only waited for them.
    pub(super) fn supply(&mut self, inputs: TxnInputs) {
        let Some(place) = self.place_of_txn(inputs.txn) else { return };
        let Some(row) = self.pending.get_mut(&place) else { return };
        if row.inputs.is_some() {
            return;
        }
        sometimes!("inputs come before the locks", row.granted.is_none());
        if row.granted.is_some() {
            self.ready.insert(place);
        }
        row.inputs = Some(inputs);
        self.dirty.insert(place);
    }

    /// The rows that changed since the last call: `None` where one must go.
    pub(super) fn take_dirty(&mut self) -> Vec<(Place, Option<&PendingRow>)> {
        let mut changed = Vec::new();
        for place in std::mem::take(&mut self.dirty) {
            match self.pending.get(&place) {
                Some(row) => {
                    self.stored.insert(place);
                    changed.push((place, Some(row)));
                }
                None if self.stored.remove(&place) => changed.push((place, None)),
                None => {}
            }
        }
        changed
    }

    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }

    pub(super) fn locks(&self) -> &LockTable {
        &self.locks
    }

    pub(super) fn place_of(&self, request: &RequestId) -> Option<Place> {
        first_place(&self.by_request, request.key())
    }

    fn place_of_txn(&self, txn: TxnId) -> Option<Place> {
        first_place(&self.by_txn, txn)
    }

    pub(super) fn oldest_sequenced(&self) -> Option<Epoch> {
        let splits = self.pending.values().find_map(|row| match &row.work {
            Work::Split(work) => Some(work.epoch),
            _ => None,
        });
        let first = self.by_txn.first().map(|(txn, _)| txn.epoch);
        match (splits, first) {
            (Some(split), Some(first)) => Some(split.min(first)),
            (one, other) => one.or(other),
        }
    }

    pub(super) fn sequenced(&self, txn: TxnId) -> Option<&SequencedWork> {
        match &self.pending.get(&self.place_of_txn(txn)?)?.work {
            Work::Sequenced(work) => Some(work),
            Work::Direct(_) | Work::Split(_) => None,
        }
    }

    pub(super) fn granted(&self, txn: TxnId) -> Option<&Contribution> {
        self.pending.get(&self.place_of_txn(txn)?)?.granted.as_ref()
    }

    pub(super) fn awaiting_inputs(&self) -> impl Iterator<Item = &SequencedWork> {
        self.by_txn.iter().filter_map(|(_, place)| match self.pending.get(place) {
            Some(PendingRow { work: Work::Sequenced(work), granted: Some(_), .. }) => Some(work),
            _ => None,
        })
    }
}

/// Where the first pending entry of that name stands.
fn first_place<N: Copy + Ord>(index: &BTreeSet<(N, Place)>, name: N) -> Option<Place> {
    let (found, place) = index.range((name, Place { index: 0, position: 0 })..).next()?;
    (*found == name).then_some(*place)
}

impl ShardMachine {
    /// Runs everything that may run until nothing more may, in log order.
    pub(super) fn settle(&mut self, store: &dyn Store, writes: &mut WriteSet) -> Result<(), Halt> {
        while let Some(place) = self.gate.ready.pop_first() {
            let Some(mut row) = self.gate.pending.remove(&place) else { continue };
            if self.step(store, writes, &mut row)? {
                self.gate.leave(place, &row.work);
            } else {
                self.gate.pending.insert(place, row);
                self.gate.dirty.insert(place);
                if planted!(LockReleasedEarly) {
                    self.gate.ready.extend(self.gate.locks.release(place));
                }
            }
        }
        Ok(())
    }

    /// One granted piece of work; true when it is finished here.
    fn step(
        &mut self,
        store: &dyn Store,
        writes: &mut WriteSet,
        row: &mut PendingRow,
    ) -> Result<bool, Halt> {
        let PendingRow { work, granted, inputs } = row;
        match work {
            Work::Direct(work) => {
                self.run_direct(store, writes, work)?;
                Ok(true)
            }
            Work::Split(work) => {
                self.fork(writes, work);
                Ok(true)
            }
            Work::Sequenced(work) => {
                if granted.is_none() {
                    *granted = Some(self.grant(store, writes, work)?);
                }
                let own = granted.as_ref().unwrap_or(&EMPTY_CONTRIBUTION);
                let finished = self.run_sequenced(writes, work, own, inputs.as_ref());
                if finished {
                    self.events.push_back(Event::Finished(work.id()));
                }
                Ok(finished)
            }
        }
    }

    fn run_direct(
        &mut self,
        store: &dyn Store,
        writes: &mut WriteSet,
        work: &DirectWork,
    ) -> Result<(), Halt> {
        // Ownership was decided when it entered the gate. A split accepted
        // since has shrunk the range already but waits for it, so that what it
        // still does to departing keys travels with them.
        let range = KeyRange::all();
        let waited_millis = self.header.clock_millis.saturating_sub(work.time_millis);
        sometimes!("a command waits a second for its locks", waited_millis >= 1_000);
        let own = self.contribute(store, writes, &work.call, &range, DIRECT_READ_BYTES_MAX)?;
        let outcome = decide_on(
            &*self.procedures,
            &work.call,
            std::iter::once(&own),
            work.time_millis,
            work.seed,
        );
        let verdict = self.execute(writes, &work.call.footprint, outcome, &range);
        self.decide(writes, &work.request, &work.call, self.header.cursor, verdict);
        Ok(())
    }

    /// Rule 8: at the grant, what this shard read goes to the outbox if
    /// anyone else needs it.
    fn grant(
        &mut self,
        store: &dyn Store,
        writes: &mut WriteSet,
        work: &SequencedWork,
    ) -> Result<Contribution, Halt> {
        let bytes_max = contribution_bytes_max(&work.txn);
        let own = self.contribute(store, writes, &work.txn.call, &work.range, bytes_max)?;
        let needed_by = needed_by(&work.txn, self.shard);
        let answers_from_others = work.txn.home == self.shard
            && !has_writer(&work.txn)
            && work.txn.participants.len() > 1;
        if !needed_by.is_empty() || answers_from_others {
            let answers = answers_from_others.then(|| work.clone());
            let row = OutboxRow { contribution: own.clone(), answers };
            writes.put_system(outbox_key(work.id()), seal(&row));
            self.outbox.insert(work.id(), row);
        }
        self.events.push_back(Event::Granted { txn: work.id(), needed_by });
        Ok(own)
    }

    fn run_sequenced(
        &mut self,
        writes: &mut WriteSet,
        work: &SequencedWork,
        own: &Contribution,
        inputs: Option<&TxnInputs>,
    ) -> bool {
        let txn = &work.txn;
        let needs_remote = needs_remote_inputs(txn, self.shard);
        let is_active = is_active(txn, self.shard);
        if !is_active && (needs_remote || txn.home != self.shard || has_writer(txn)) {
            return true; // Read-only here: the contribution is all it owes.
        }
        let contributions: Vec<&Contribution> = match inputs {
            _ if !needs_remote => vec![own],
            None => return false,
            Some(inputs) => inputs.contributions.iter().map(|c| &c.contribution).collect(),
        };
        let outcome = decide_on(
            &*self.procedures,
            &txn.call,
            contributions.into_iter(),
            work.time_millis,
            work.seed,
        );
        if planted!(EarlyReplyChain) {
            self.note_writer(&txn.call.footprint, work.epoch);
        }
        let verdict = self.execute(writes, &txn.call.footprint, outcome, &work.range);
        if txn.home == self.shard {
            self.decide(writes, &txn.request, &txn.call, work.epoch, verdict);
        }
        true
    }

    fn decide(
        &mut self,
        writes: &mut WriteSet,
        request: &RequestId,
        call: &Call,
        position: Epoch,
        verdict: Verdict,
    ) {
        let home = call.footprint.home_key().cloned().unwrap_or_default();
        self.remember(writes, request, home, position, verdict.clone());
        self.events.push_back(Event::Decided { request: *request, verdict, position });
    }

    /// Reads this shard's share of a call's inputs, in a logged transaction:
    /// a value found expired is deleted, so that the expiry is in the log.
    fn contribute(
        &mut self,
        store: &dyn Store,
        writes: &mut WriteSet,
        call: &Call,
        local: &KeyRange,
        bytes_max: usize,
    ) -> Result<Contribution, Halt> {
        let view = View::new(store, writes);
        let (contribution, expired) = self.collect(&view, call, local, bytes_max)?;
        for key in expired {
            self.header.version += 1;
            self.header_dirty = true;
            writes.write_data(key.clone(), None);
            self.bury(writes, key);
        }
        Ok(contribution)
    }

    /// A call's local inputs as of now, or only the note that they are more
    /// than `bytes_max`, and the keys found expired.
    pub(super) fn collect(
        &self,
        view: &View<'_>,
        call: &Call,
        local: &KeyRange,
        bytes_max: usize,
    ) -> Result<(Contribution, Vec<Blob>), Halt> {
        let mut contribution = Contribution::default();
        let mut expired = Vec::new();
        let mut bytes = 0;
        let keys: BTreeSet<&Blob> =
            call.footprint.reads.iter().filter(|key| local.contains(key)).collect();
        for key in keys {
            let (read, is_expired) = self.read_key(view, key)?;
            if is_expired {
                expired.push(key.clone());
            }
            bytes += read.payload_bytes();
            if bytes > bytes_max {
                return Ok((Contribution::too_large(), expired));
            }
            contribution.reads.push(read);
        }
        for (number, access) in call.footprint.ranges.iter().enumerate() {
            if access.access == Access::Write {
                continue;
            }
            if let Some(part) = intersection(&access.range, local) {
                let condensed = self.scan_part(view, call, &part)?;
                let range = u32::try_from(number).unwrap_or(u32::MAX);
                contribution.scans.push(ScanPart { range, start: part.start, condensed });
            }
        }
        Ok((contribution.bounded(bytes_max), expired))
    }

    fn read_key(&self, view: &View<'_>, key: &Blob) -> Result<(Read, bool), Halt> {
        let Some(stored) = view.data(key)? else {
            let version = self.tombstones.version(key, self.header.tombstone_floor);
            let read = Read { key: key.clone(), version, value: None, expires_millis: None };
            return Ok((read, false));
        };
        let row = self.data_row(&stored)?;
        if row.is_expired(self.header.clock_millis) {
            let version = row.version | EXPIRED_VERSION_BIT;
            let read = Read { key: key.clone(), version, value: None, expires_millis: None };
            return Ok((read, true));
        }
        let DataRow { version, expires_millis, value } = row;
        Ok((Read { key: key.clone(), version, value: Some(value), expires_millis }, false))
    }

    pub(super) fn data_row(&self, stored: &Blob) -> Result<DataRow, Halt> {
        DataRow::from_blob(stored).map_err(|source| Halt::Format {
            shard: self.shard,
            what: "a data row",
            source,
        })
    }

    /// Materializes the live rows of a range and lets the procedure condense
    /// them.
    fn scan_part(&self, view: &View<'_>, call: &Call, part: &KeyRange) -> Result<Blob, Halt> {
        let mut rows = Vec::new();
        let mut failure = None;
        view.visit_data(part, |key, stored| match self.data_row(&stored) {
            Ok(row) if row.is_expired(self.header.clock_millis) => {}
            Ok(row) => rows.push((key, row.value)),
            Err(halt) => failure = Some(halt),
        })?;
        if let Some(halt) = failure {
            return Err(halt);
        }
        let scanned = contain(|| self.procedures.scan(call, part, &mut rows.into_iter()));
        let scanned = scanned.inspect_err(report).ok();
        Ok(scanned.unwrap_or_default())
    }

    /// Writes an outcome's local part and turns it into a verdict. An outcome
    /// that leaves its footprint is an abort, on every participant alike.
    fn execute(
        &mut self,
        writes: &mut WriteSet,
        footprint: &Footprint,
        outcome: Result<Outcome, &'static str>,
        local: &KeyRange,
    ) -> Verdict {
        let outcome = match outcome {
            Ok(outcome) if outcome.result.len() > RESULT_BYTES_MAX => {
                return aborted("the result is too large to be remembered");
            }
            Ok(outcome) => outcome,
            Err(reason) => return aborted(reason),
        };
        debug_assert!(leaves_footprint(footprint, &outcome).is_none(), "decided before");
        let clears: Vec<KeyRange> =
            outcome.clears.iter().filter_map(|range| intersection(range, local)).collect();
        let local_writes: Vec<Write> =
            outcome.writes.into_iter().filter(|write| local.contains(&write.key)).collect();
        if !clears.is_empty() || !local_writes.is_empty() {
            self.header.version += 1;
            self.header_dirty = true;
        }
        for range in clears {
            self.tombstones.split_off(writes, &range);
            self.header.tombstone_floor = self.header.version;
            writes.clear_data(range);
        }
        for write in local_writes {
            self.write(writes, write);
        }
        Verdict::Done(outcome.result)
    }

    fn write(&mut self, writes: &mut WriteSet, write: Write) {
        let Write { key, value, expires_millis } = write;
        match value {
            Some(value) => {
                let row = DataRow { version: self.header.version, expires_millis, value };
                self.tombstones.unbury(writes, &key);
                writes.write_data(key, Some(row.to_blob()));
            }
            None => {
                writes.write_data(key.clone(), None);
                self.bury(writes, key);
            }
        }
    }

    fn bury(&mut self, writes: &mut WriteSet, key: Blob) {
        if let Some(floor) = self.tombstones.bury(writes, key, self.header.version) {
            self.header.tombstone_floor = self.header.tombstone_floor.max(floor);
        }
    }
}

static EMPTY_CONTRIBUTION: Contribution = Contribution {
    reads: quorate_types::Seq::new(),
    scans: quorate_types::Seq::new(),
    is_too_large: false,
};

pub(super) fn aborted(reason: &'static str) -> Verdict {
    Verdict::Aborted(Blob::from_static(reason.as_bytes()))
}

/// What one participant may read: its share of what the logged inputs may
/// hold. Without a writer nothing is logged, and more fits.
fn contribution_bytes_max(txn: &SequencedTxn) -> usize {
    if has_writer(txn) {
        INPUTS_BYTES_MAX.checked_div(contributors(txn).len()).unwrap_or(INPUTS_BYTES_MAX)
    } else {
        READ_BYTES_MAX
    }
}

/// A call's outcome from everyone's contributions, or why it is an abort: the
/// same on every participant and every replica.
pub(super) fn decide_on<'a>(
    procedures: &dyn Procedures,
    call: &Call,
    contributions: impl Iterator<Item = &'a Contribution> + Clone,
    time_millis: u64,
    seed: u64,
) -> Result<Outcome, &'static str> {
    if contributions.clone().any(|contribution| contribution.is_too_large) {
        return Err("the transaction reads too much");
    }
    let inputs = assemble(contributions);
    let outcome = run(procedures, call, &inputs, time_millis, seed);
    let outcome = outcome.ok_or("the procedure panicked")?;
    match leaves_footprint(&call.footprint, &outcome) {
        Some(reason) => Err(reason),
        None => Ok(outcome),
    }
}

fn lock_set(work: &Work) -> LockSet {
    let mut locks = LockSet::default();
    let mut add = |footprint: &Footprint, local: &KeyRange| {
        let mut add_keys = |keys: &[Blob], access| {
            for key in keys.iter().filter(|key| local.contains(key)) {
                locks.add(key.clone(), access);
            }
        };
        add_keys(&footprint.reads, Access::Read);
        add_keys(&footprint.writes, Access::Write);
        for access in footprint.ranges.iter().filter(|access| access.range.overlaps(local)) {
            locks.add_whole(access.access);
        }
    };
    match work {
        Work::Direct(work) => add(&work.call.footprint, &KeyRange::all()),
        Work::Sequenced(work) => add(&work.txn.call.footprint, &work.range),
        Work::Split(_) => locks.add_whole(Access::Write),
    }
    locks
}

fn participant(txn: &SequencedTxn, shard: ShardId) -> Option<&Participant> {
    txn.participants.iter().find(|participant| participant.shard == shard)
}

fn is_active(txn: &SequencedTxn, shard: ShardId) -> bool {
    participant(txn, shard).is_some_and(|participant| participant.writes)
}

/// Whether the transaction writes anywhere.
pub(super) fn has_writer(txn: &SequencedTxn) -> bool {
    txn.participants.iter().any(|participant| participant.writes)
}

/// Whether another shard's reads are among the transaction's inputs.
pub(super) fn needs_remote_inputs(txn: &SequencedTxn, shard: ShardId) -> bool {
    txn.participants.iter().any(|other| other.shard != shard && other.reads)
}

/// The shards that need this one's reads: those that write, or the home that
/// answers a transaction without writes.
fn needed_by(txn: &SequencedTxn, shard: ShardId) -> Vec<ShardId> {
    if !participant(txn, shard).is_some_and(|participant| participant.reads) {
        return Vec::new();
    }
    let needs = |other: &&Participant| {
        other.shard != shard && if has_writer(txn) { other.writes } else { other.shard == txn.home }
    };
    txn.participants.iter().filter(needs).map(|other| other.shard).collect()
}

/// Puts contributions together in the order of the shards' keys.
fn assemble<'a>(contributions: impl Iterator<Item = &'a Contribution>) -> Inputs {
    let mut inputs = Inputs::default();
    let mut scans = BTreeMap::new();
    for contribution in contributions {
        for read in &contribution.reads {
            inputs.reads.insert(read.key.clone(), read.clone());
        }
        for part in &contribution.scans {
            scans.insert((part.range, part.start.clone()), part.condensed.clone());
        }
    }
    inputs.scans = scans.into_values().collect();
    inputs
}

/// The shards whose contributions `shard` must have before the transaction can
/// run or be answered there, itself included.
pub(super) fn contributors(txn: &SequencedTxn) -> BTreeSet<ShardId> {
    txn.participants
        .iter()
        .filter(|participant| participant.reads)
        .map(|participant| participant.shard)
        .collect()
}

fn report(Panicked(message): &Panicked) {
    tracing::error!(message, "a procedure panicked");
}

/// Runs a procedure; `None` when it panicked, on every replica alike.
fn run(
    procedures: &dyn Procedures,
    call: &Call,
    inputs: &Inputs,
    time_millis: u64,
    seed: u64,
) -> Option<Outcome> {
    contain(|| procedures.run(call, inputs, time_millis, seed)).inspect_err(report).ok()
}

fn leaves_footprint(footprint: &Footprint, outcome: &Outcome) -> Option<&'static str> {
    let writable = |range: &KeyRange| {
        footprint
            .ranges
            .iter()
            .any(|access| access.access == Access::Write && access.range.covers(range))
    };
    let declared: BTreeSet<&Blob> = footprint.writes.iter().collect();
    let key_declared = |key: &Blob| {
        declared.contains(key)
            || footprint
                .ranges
                .iter()
                .any(|access| access.access == Access::Write && access.range.contains(key))
    };
    if !outcome.clears.iter().all(writable) {
        return Some("the procedure cleared a range outside its footprint");
    }
    if !outcome.writes.iter().all(|write| key_declared(&write.key)) {
        return Some("the procedure wrote a key outside its footprint");
    }
    let is_too_large = |write: &Write| {
        write.key.len() > KEY_BYTES_MAX
            || write.value.as_ref().is_some_and(|value| value.len() > VALUE_BYTES_MAX)
    };
    if outcome.writes.iter().any(is_too_large) {
        return Some("the procedure wrote a key or value that is too large");
    }
    None
}

/// The part of `range` inside `local`, if there is any.
pub(super) fn intersection(range: &KeyRange, local: &KeyRange) -> Option<KeyRange> {
    let start = range.start.clone().max(local.start.clone());
    let end = match (&range.end, &local.end) {
        (Some(a), Some(b)) => Some(a.min(b).clone()),
        (one, other) => one.as_ref().or(other.as_ref()).cloned(),
    };
    let part = KeyRange { start, end };
    (!part.is_empty()).then_some(part)
}

/// The verdict and inputs of a transaction whose contributions are complete,
/// computed ahead of its logged inputs (rule 9: the outcome is a function of
/// committed logs, so the home may answer early).
pub(super) fn foresee(
    procedures: &dyn Procedures,
    work: &SequencedWork,
    contributions: &[ShardContribution],
) -> Verdict {
    let contributions = contributions.iter().map(|c| &c.contribution);
    let (time_millis, seed) = (work.time_millis, work.seed);
    match decide_on(procedures, &work.txn.call, contributions, time_millis, seed) {
        Err(reason) => aborted(reason),
        Ok(outcome) if has_writer(&work.txn) && outcome.result.len() > RESULT_BYTES_MAX => {
            aborted("the result is too large to be remembered")
        }
        // Nobody remembers it, but somebody has to send it.
        Ok(outcome) if outcome.result.len() > READ_RESULT_BYTES_MAX => {
            aborted("the result is too large")
        }
        Ok(outcome) => Verdict::Done(outcome.result),
    }
}
