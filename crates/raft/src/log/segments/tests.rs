#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

mod crowd;
mod damage;
mod full_disk;
mod growth;
mod indexes;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use quorate_testkit::disk::{CrashDisk, Faults, SweepOptions, SweepReport, SyncFault, sweep};
use quorate_testkit::sim;
use quorate_types::disk::Disk;
use quorate_types::env::{Rng, SplitMix};
use quorate_types::owner::Owner;
use quorate_types::{DiskId, GroupId, ReplicaId};

use super::super::{
    DurableLog, LogConfig, LogEngine, LogEntry, LogError, LogMedium, LogPosition, LogState, Place,
    Vote,
};
use super::format::{FRAMES_AT, FrameHeader, Head, Header};
use super::{SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
use crate::consensus::tests::support::{REDB, SEGMENTS, small_log};

const GROUP: GroupId = GroupId(1);
const REPLICA: ReplicaId = ReplicaId(11);

fn config() -> LogConfig {
    LogConfig { medium: SEGMENTS, ..small_log() }
}

fn open(disk: &CrashDisk) -> Result<DurableLog, LogError> {
    open_with(disk, SEGMENT_BYTES_MIN)
}

fn open_with(disk: &CrashDisk, segment_bytes: u64) -> Result<DurableLog, LogError> {
    let config = LogConfig { medium: LogMedium::Segments { segment_bytes }, ..small_log() };
    DurableLog::open(Arc::new(disk.clone()), "log", config)
}

fn run<T>(work: impl AsyncFnOnce() -> T) -> T {
    sim::run(1, |_| work()).unwrap().value
}

fn entry(term: u64, index: u64, bytes: usize) -> LogEntry {
    let payload = [&index.to_be_bytes()[..], &vec![0x5a; bytes]].concat();
    LogEntry { position: LogPosition { term, index }, payload: payload.into() }
}

async fn append(log: &DurableLog, group: GroupId, entries: Vec<LogEntry>) -> Result<(), LogError> {
    let (done, durable) = tokio::sync::oneshot::channel();
    log.append(group, entries, Box::new(move |result| drop(done.send(result)))).await?;
    durable.await.unwrap()
}

/// The bytes of a file of a closed log.
fn bytes_of(disk: &CrashDisk, name: &str) -> Vec<u8> {
    let file = disk.open(name).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read(0, &mut bytes).unwrap();
    bytes
}

/// The files of segments, in use or not.
fn files(disk: &CrashDisk) -> Vec<String> {
    let names = disk.list().unwrap();
    names.into_iter().filter(|name| super::format::slot_of("log", name).is_some()).collect()
}

fn flip(disk: &CrashDisk, name: &str, at: u64) {
    assert!(disk.damage(name, |bytes| bytes[usize::try_from(at).unwrap()] ^= 4));
}

/// The files of a log by the number of their segment.
fn segments(disk: &CrashDisk) -> BTreeMap<u64, (String, Header)> {
    let names = disk.list().unwrap().into_iter();
    let segments = names.filter_map(|name| {
        match Header::decode(bytes_of(disk, &name).get(..super::format::HEADER_BYTES)?) {
            Head::Segment(header) => Some((header.number, (name, header))),
            _ => None,
        }
    });
    segments.collect()
}

/// Where the frames of a segment begin.
fn frames(disk: &CrashDisk, name: &str, header: &Header) -> Vec<u64> {
    let (bytes, seed) = (bytes_of(disk, name), header.seed());
    let mut offsets = vec![FRAMES_AT];
    let frame = |offset: u64| FrameHeader::decode(seed, offset, &bytes[offset as usize..]);
    while let Some(header) = offsets.last().and_then(|offset| frame(*offset)) {
        offsets.push(header.end(*offsets.last().unwrap()));
    }
    offsets.pop();
    offsets
}

/// What is done with a log.
#[derive(Clone, Copy)]
enum Story {
    Any,
    Slow,
    /// As any, in segments that grow.
    Growing,
    /// Hardly anything is let go of.
    Long,
}

impl Story {
    const fn segment_bytes(self) -> u64 {
        match self {
            Self::Any | Self::Slow | Self::Long => SEGMENT_BYTES_MIN,
            Self::Growing => SEGMENT_BYTES_MIN * 16,
        }
    }
}

/// What a replica asks of its log.
#[derive(Clone, Debug)]
enum Act {
    Admit(ReplicaId),
    Append(Vec<LogEntry>),
    Vote(Vote),
    Truncate(u64),
    Purge(LogPosition),
    Forget(ReplicaId),
}

/// What a log should hold of a group.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Held {
    replica: ReplicaId,
    state: LogState,
    entries: Vec<LogEntry>,
}

#[derive(Clone, Default, PartialEq, Eq, Debug)]
struct Model(BTreeMap<GroupId, Held>);

impl Model {
    /// What a log holds.
    async fn of(log: &DurableLog) -> Result<Self, LogError> {
        let mut groups = BTreeMap::new();
        for (group, replica) in log.groups() {
            let state = log.admit(group, replica).await?;
            let entries = log.read(group, 0..u64::MAX, usize::MAX)?;
            groups.insert(group, Held { replica, state, entries });
        }
        Ok(Self(groups))
    }

    /// Something that makes sense.
    fn choose(&self, story: Story, chance: &mut SplitMix, step: u64) -> (GroupId, Act) {
        match story {
            Story::Any => self.choose_any(chance, step, 1_500),
            Story::Growing => self.choose_any(chance, step, 9_000),
            Story::Slow => self.choose_slow(chance, step),
            Story::Long => self.choose_long(chance, step),
        }
    }

    /// One group lets go of nearly nothing that it has now and then, and another
    /// of all that it has all the time.
    fn choose_slow(&self, chance: &mut SplitMix, step: u64) -> (GroupId, Act) {
        let group = GroupId(if chance.below(8) == 0 { 1 } else { 2 });
        let Some(held) = self.0.get(&group) else {
            return (group, Act::Admit(ReplicaId(group.0 * 1000 + step)));
        };
        let next = held.state.last.map_or(0, |last| last.index + 1);
        let act = match (group.0, held.entries.last().map(|last| last.position)) {
            (1, Some(last)) if chance.below(9) == 0 => Act::Truncate(last.index),
            (1, Some(_)) if chance.below(9) == 0 => Act::Purge(held.entries[0].position),
            (1, _) => Act::Append(vec![entry(next, next, 100)]),
            (_, Some(last)) if held.entries.len() > 9 => Act::Purge(last),
            _ => Act::Append((next..next + 3).map(|index| entry(1, index, 5_000)).collect()),
        };
        (group, act)
    }

    /// Two groups cut off their ends at times, or purge their beginnings.
    fn choose_long(&self, chance: &mut SplitMix, step: u64) -> (GroupId, Act) {
        let group = GroupId(1 + chance.below(2));
        let Some(held) = self.0.get(&group) else {
            return (group, Act::Admit(ReplicaId(group.0 * 1000 + step)));
        };
        let next = held.state.last.map_or(0, |last| last.index + 1);
        let act = match (chance.below(20), held.entries.first(), held.entries.last()) {
            (0, _, Some(last)) => Act::Truncate(last.position.index),
            (1, Some(first), _) => Act::Purge(first.position),
            _ => Act::Append((next..next + 2).map(|index| entry(next, index, 1_200)).collect()),
        };
        (group, act)
    }

    fn choose_any(&self, chance: &mut SplitMix, step: u64, entry_bytes_max: u64) -> (GroupId, Act) {
        let group = GroupId(1 + chance.below(4));
        let Some(held) = self.0.get(&group) else {
            return (group, Act::Admit(ReplicaId(group.0 * 1000 + step)));
        };
        let next = held.state.last.map_or(0, |last| last.index + 1);
        let term = held.state.last.map_or(1, |last| last.term) + chance.below(2);
        let some = (!held.entries.is_empty()).then(|| {
            held.entries[usize::try_from(chance.below(held.entries.len() as u64)).unwrap()].position
        });
        let act = match (chance.below(20), some) {
            (12..14, _) => Act::Vote(Vote { term, candidate: held.replica, committed: false }),
            (14..16, Some(at)) => Act::Truncate(at.index),
            (16..19, Some(at)) => Act::Purge(at),
            (19, _) if chance.below(4) == 0 => Act::Forget(held.replica),
            _ => {
                let size = |_| usize::try_from(chance.below(entry_bytes_max)).unwrap();
                let sizes: Vec<usize> = (0..4).map(size).collect();
                let count = 1 + usize::try_from(step % 4).unwrap();
                let entries = (next..).zip(&sizes[..count]);
                Act::Append(entries.map(|(index, bytes)| entry(term, index, *bytes)).collect())
            }
        };
        (group, act)
    }

    fn apply(&mut self, group: GroupId, act: &Act) {
        if let Act::Admit(replica) = act {
            let (state, entries) = (LogState::default(), Vec::new());
            self.0.insert(group, Held { replica: *replica, state, entries });
        }
        let held = self.0.get_mut(&group).unwrap();
        match act {
            Act::Append(entries) => held.entries.extend(entries.iter().cloned()),
            Act::Vote(vote) => held.state.vote = Some(*vote),
            Act::Truncate(from) => held.entries.retain(|it| it.position.index < *from),
            Act::Purge(upto) => {
                held.entries.retain(|it| it.position.index > upto.index);
                held.state.purged = Some(*upto);
            }
            Act::Admit(_) | Act::Forget(_) => {}
        }
        held.state.last = held.entries.last().map(|it| it.position).or(held.state.purged);
        if let Act::Forget(_) = act {
            self.0.remove(&group);
        }
    }
}

async fn perform(log: &DurableLog, group: GroupId, act: Act) -> Result<(), LogError> {
    match act {
        Act::Admit(replica) => log.admit(group, replica).await.map(drop),
        Act::Append(entries) => append(log, group, entries).await,
        Act::Vote(vote) => log.save_vote(group, vote).await,
        Act::Truncate(from) => log.truncate(group, from).await,
        Act::Purge(upto) => log.purge(group, upto).await,
        Act::Forget(replica) => log.forget(group, replica).await,
    }
}

/// The states of a log one after the other, the last perhaps not reached, and
/// how many of them are known to be on disk.
#[derive(Clone, Default)]
struct Ledger {
    states: Vec<Model>,
    durable: usize,
}

impl Ledger {
    fn last(&self) -> Model {
        self.states.last().cloned().unwrap_or_default()
    }
}

/// Steps of a life.
const STEPS: u64 = 250;

/// Lives with a log for some steps and closes it. Says how much was rewritten.
async fn live(
    disk: &CrashDisk,
    story: Story,
    seed: u64,
    steps: u64,
    ledger: &mut Ledger,
) -> Result<u64, LogError> {
    let log = open_with(disk, story.segment_bytes())?;
    let found = Model::of(&log).await?;
    assert!(ledger.states.is_empty() || ledger.states[ledger.durable..].contains(&found));
    *ledger = Ledger { states: vec![found], durable: 0 };
    live_with(&log, story, seed, steps, ledger).await?;
    log.close().await?;
    ledger.durable = ledger.states.len() - 1;
    Ok(log.stats().rewritten_bytes)
}

async fn live_with(
    log: &DurableLog,
    story: Story,
    seed: u64,
    steps: u64,
    ledger: &mut Ledger,
) -> Result<(), LogError> {
    let mut chance = SplitMix::new(seed);
    for step in 0..steps {
        let mut model = ledger.last();
        let (group, act) = model.choose(story, &mut chance, seed * 1_000_000 + step);
        model.apply(group, &act);
        ledger.states.push(model);
        let is_lazy = matches!(act, Act::Purge(_));
        perform(log, group, act).await?;
        assert!(Model::of(log).await? == ledger.last());
        if !is_lazy {
            ledger.durable = ledger.states.len() - 1;
        }
    }
    Ok(())
}

/// A ledger that survives what it is lent to.
fn live_on(
    disk: &CrashDisk,
    story: Story,
    seed: u64,
    steps: u64,
    ledger: &mut Ledger,
) -> Result<u64, LogError> {
    let shared = Arc::new(parking_lot::Mutex::new(std::mem::take(ledger)));
    let (disk, kept) = (disk.clone(), Arc::clone(&shared));
    let lived = sim::run(1, |_| async move {
        let mut ledger = std::mem::take(&mut *kept.lock());
        let lived = live(&disk, story, seed, steps, &mut ledger).await;
        *kept.lock() = ledger;
        lived
    });
    let lived = lived.unwrap().value;
    *ledger = std::mem::take(&mut *shared.lock());
    lived
}

/// Lets the disk of a life lose power at so many points, and lives on after each.
fn survives(story: Story, points_max: u64) -> SweepReport {
    let options = SweepOptions { points_max, ..SweepOptions::default() };
    let report = sweep(
        options,
        |disk, ledger: &mut Ledger| live_on(disk, story, 1, STEPS, ledger).map(drop),
        |disk, ledger| {
            let mut ledger = ledger.clone();
            live_on(disk, story, 2, 20, &mut ledger)?;
            live_on(disk, Story::Any, 3, 0, &mut ledger).map(drop)
        },
    );
    report.unwrap()
}

/// Through five segments and their next uses. What was durable is there after
/// each crash, in one of the states that came after it, and the log lives on.
#[test]
fn nothing_that_was_acknowledged_is_lost_in_any_crash() {
    let report = survives(Story::Any, 1_500);
    assert!(report.crashes_unsynced > 100 && report.writes_torn > 20, "{report}");
}

/// As above while entries of one group are written again and again, since they
/// would keep every segment of the other.
#[test]
fn nothing_is_lost_in_any_crash_while_entries_are_rewritten() {
    let (disk, mut ledger) = (CrashDisk::new(1), Ledger::default());
    let rewritten = live_on(&disk, Story::Slow, 1, STEPS, &mut ledger).unwrap();
    assert!(rewritten > 1_000, "{rewritten}");
    let report = survives(Story::Slow, 400);
    assert!(report.crashes_unsynced > 20, "{report}");
}

/// One entry in each segment is needed for good.
#[test]
fn a_slow_group_does_not_keep_every_segment() {
    const SLOW: GroupId = GroupId(2);
    let disk = CrashDisk::new(1);
    let kept = disk.clone();
    let (rewritten, payload) = run(async move || {
        let log = open(&disk).unwrap();
        log.admit(GROUP, REPLICA).await.unwrap();
        log.admit(SLOW, ReplicaId(12)).await.unwrap();
        for index in 0..3_000 {
            append(&log, GROUP, vec![entry(1, index, 1_000)]).await.unwrap();
            if index % 20 == 19 {
                append(&log, SLOW, vec![entry(1, index / 20, 10)]).await.unwrap();
                log.purge(GROUP, LogPosition { term: 1, index: index - 10 }).await.unwrap();
            }
        }
        log.close().await.unwrap();
        (log.stats().rewritten_bytes, log.stats().payload_bytes)
    });
    assert!(rewritten > 0 && rewritten < payload / 20, "{rewritten} of {payload}");
    let files = files(&kept);
    assert!(files.len() <= 12, "3 MB in segments of 64 KiB: {files:?}");
    let found = run(async move || Model::of(&open(&kept).unwrap()).await.unwrap());
    let slow = &found.0[&SLOW].entries;
    assert_eq!(*slow, (0..150).map(|index| entry(1, index, 10)).collect::<Vec<_>>());
}

/// As above with crashes during the start that follows a crash.
#[test]
fn a_crash_while_a_crash_is_repaired_loses_nothing() {
    for seed in 0..20 {
        let disk = CrashDisk::new(seed);
        let mut ledger = Ledger::default();
        disk.arm(30 + seed * 12, seed);
        assert!(live_on(&disk, Story::Any, seed, STEPS, &mut ledger).is_err());
        let image = disk.image();
        for operation in 1..8 {
            let disk = CrashDisk::from_image(&image, seed);
            disk.arm(operation, seed ^ operation);
            let mut ledger = ledger.clone();
            if live_on(&disk, Story::Any, 9, 3, &mut ledger).is_ok() {
                break;
            }
            live_on(&disk.reboot(), Story::Any, 10, 30, &mut ledger).unwrap();
        }
    }
}

/// The files of segments of which nothing is needed are used again.
#[test]
fn a_log_that_is_purged_stays_small() {
    let disk = CrashDisk::new(1);
    let kept = disk.clone();
    run(async move || {
        let log = open(&disk).unwrap();
        log.admit(GROUP, REPLICA).await.unwrap();
        for index in 0..2_000 {
            append(&log, GROUP, vec![entry(1, index, 1_000)]).await.unwrap();
            if index % 20 == 19 {
                log.purge(GROUP, LogPosition { term: 1, index: index - 10 }).await.unwrap();
            }
        }
        log.close().await.unwrap();
    });
    let files = files(&kept);
    assert!(files.len() <= 4, "2 MB in segments of 64 KiB: {files:?}");
    assert!(*segments(&kept).keys().next_back().unwrap() > 30);
    let log = kept.clone();
    let found = run(async move || Model::of(&open(&log).unwrap()).await.unwrap());
    assert_eq!(found.0[&GROUP].entries.first().unwrap().position.index, 1_990);
}

/// One that is purged late has many files, and removes them when it can.
#[test]
fn files_that_are_too_many_are_removed() {
    let disk = CrashDisk::new(1);
    let kept = disk.clone();
    let most = run(async move || {
        let log = open(&disk).unwrap();
        log.admit(GROUP, REPLICA).await.unwrap();
        let mut index = 0;
        let mut fill = async |count: u64| {
            for _ in 0..count {
                append(&log, GROUP, vec![entry(1, index, 1_000)]).await.unwrap();
                index += 1;
            }
            index
        };
        fill(1_000).await;
        let most = files(&disk).len();
        let next = fill(1).await;
        log.purge(GROUP, LogPosition { term: 1, index: next - 1 }).await.unwrap();
        fill(200).await;
        log.close().await.unwrap();
        most
    });
    assert!(most > 15);
    let files = files(&kept);
    assert!(files.len() <= 10, "{files:?}");
}

/// More waits than fits into a commit all the time.
#[test]
fn a_log_that_is_purged_under_load_stays_small() {
    let disk = CrashDisk::new(1);
    let kept = disk.clone();
    run(async move || {
        let config = LogConfig { queued_bytes_max: 64 << 10, ..config() };
        let log = DurableLog::open(Arc::new(disk.clone()), "log", config).unwrap();
        log.admit(GROUP, REPLICA).await.unwrap();
        for round in 0..300 {
            let entries = (round * 10..round * 10 + 10).map(|index| entry(1, index, 1_000));
            log.append(GROUP, entries.collect(), Box::new(drop)).await.unwrap();
            if round > 5 {
                let upto = LogPosition { term: 1, index: (round - 5) * 10 };
                log.purge(GROUP, upto).await.unwrap();
            }
            tokio::time::sleep(std::time::Duration::from_micros(200)).await;
        }
        assert!(disk.list().unwrap().len() < 16, "3 MB: {:?}", disk.list());
        log.close().await.unwrap();
    });
    assert!(segments(&kept).keys().next_back().unwrap() > &30);
}

/// The system takes for written what a failed sync has lost.
#[test]
fn what_is_found_after_a_failed_sync_is_there_for_good() {
    let disk = CrashDisk::new(3);
    let first = disk.clone();
    run(async move || {
        let log = open(&first).unwrap();
        log.admit(GROUP, REPLICA).await.unwrap();
        append(&log, GROUP, vec![entry(1, 0, 900)]).await.unwrap();
        let sync = Some((first.counters().syncs + 1, SyncFault::Once));
        first.set_faults(Faults { sync, ..Faults::default() });
        assert!(append(&log, GROUP, vec![entry(1, 1, 900)]).await.is_err());
        log.close().await.unwrap_err();
    });
    disk.clear_faults();
    let disk = disk.reboot();
    let found = reopened(&disk).unwrap();
    assert_eq!(found.0[&GROUP].entries.len(), 2, "the cache still has it");
    disk.crash(5);
    assert!(reopened(&disk.reboot()).unwrap() == found);
}

/// A crash came before the segment that is not the newest any more got its end.
#[test]
fn a_missing_end_is_written_when_the_log_is_opened() {
    let (disk, model) = filled(1);
    let all = segments(&disk);
    let (newest, (file, _)) = all.last_key_value().unwrap();
    let (name, header) = &all[&(newest - 1)];
    let end = usize::try_from(frames(&disk, name, header).pop().unwrap()).unwrap();
    assert!(disk.damage(name, |bytes| bytes[end..end + 32].fill(0)));
    assert!(reopened(&disk).unwrap() == model);
    disk.remove(file).unwrap();
    let error = reopened(&disk).map(|model| model.0.len()).unwrap_err().to_string();
    assert!(error.contains(&format!("segment {newest}")), "{error}");
}

/// A crash came before the first checkpoint of a log. Were another file begun with
/// its number, nobody could tell the two apart.
#[test]
fn a_file_that_was_begun_is_used_before_blank_ones() {
    let disk = CrashDisk::new(1);
    let mark = Bytes::new();
    let begun = Header { number: 1, replaced: 0, capacity: SEGMENT_BYTES_MIN, salt: 3, mark };
    for (name, head) in [("log.000001", vec![0; 512]), ("log.000002", begun.encode())] {
        let file = disk.open(name).unwrap();
        file.write(0, &head).unwrap();
        file.set_len(16 * SEGMENT_BYTES_MIN).unwrap();
        file.sync().unwrap();
    }
    for _ in 0..2 {
        run(async || open(&disk).unwrap().close().await.unwrap());
        assert_eq!(
            segments(&disk).into_values().map(|(name, _)| name).collect::<Vec<_>>(),
            ["log.000002"]
        );
    }
}

/// Nobody waited until a file was filled, and the next process finds it whole.
#[test]
fn a_file_that_is_not_known_to_be_filled_is_filled_again() {
    let disk = CrashDisk::new(2);
    let blank = disk.open("log.000009").unwrap();
    blank.write(0, &vec![0; usize::try_from(SEGMENT_BYTES_MIN).unwrap()]).unwrap();
    drop(blank);
    let model = run({
        let disk = disk.clone();
        async move || {
            let log = open(&disk).unwrap();
            log.admit(GROUP, REPLICA).await.unwrap();
            append(&log, GROUP, vec![entry(1, 0, 900)]).await.unwrap();
            let model = Model::of(&log).await.unwrap();
            log.close().await.unwrap();
            model
        }
    });
    for seed in 0..8 {
        let disk = CrashDisk::from_image(&disk.image(), seed);
        assert!(reopened(&disk).unwrap() == model);
    }
}

/// A log of several segments, closed, with a group that needs all of them.
fn filled(seed: u64) -> (CrashDisk, Model) {
    let disk = CrashDisk::new(seed);
    let kept = disk.clone();
    let model = run(async move || {
        let log = open(&disk).unwrap();
        log.admit(GROUP, REPLICA).await.unwrap();
        for index in 0..200 {
            append(&log, GROUP, vec![entry(1, index, 1_000)]).await.unwrap();
        }
        let model = Model::of(&log).await.unwrap();
        log.close().await.unwrap();
        model
    });
    (kept, model)
}

fn reopened(disk: &CrashDisk) -> Result<Model, LogError> {
    let disk = disk.clone();
    run(async move || Model::of(&open(&disk)?).await)
}

/// That a log is refused, at a place of a file.
fn is_refused(disk: &CrashDisk, name: &str, at: u64) {
    let opened = reopened(disk).map(|model| model.0[&GROUP].entries.len());
    let error = opened.unwrap_err();
    let LogError::Damaged { file, place, .. } = &error else { panic!("{error}") };
    assert_eq!((&**file, *place), (name, Place::Offset(at)), "{error}");
}

/// Of segments that are read; see `indexes` for others.
#[test]
fn a_flipped_bit_is_found_wherever_it_stands() {
    let (disk, model) = filled(1);
    assert!(reopened(&disk).unwrap() == model);
    let segments = segments(&disk);
    for (name, _) in segments.values() {
        super::index::remove(&disk, name).unwrap();
    }
    assert!(segments.len() > 3);
    for (place, (name, header)) in segments.values().enumerate() {
        let is_newest = place + 1 == segments.len();
        let flipped = |at: u64| {
            let disk = CrashDisk::from_image(&disk.image(), 1);
            flip(&disk, name, at);
            disk
        };
        for at in [0, 8, 20, 60] {
            is_refused(&flipped(at), name, 0);
        }
        let mut frames = frames(&disk, name, header);
        if !is_newest {
            // Its end is needed only while its successor is the newest.
            assert!(reopened(&flipped(frames.pop().unwrap() + 9)).unwrap() == model);
        }
        let (first, last) = (frames[0], frames[frames.len() - 1]);
        let middle = frames[frames.len() / 2];
        for (frame, within) in [(first, 1), (first, 22), (middle, 9), (middle, 500)] {
            is_refused(&flipped(frame + within), name, frame);
        }
        // What a crash leaves of the last commit looks like this, too.
        if is_newest {
            let found = reopened(&flipped(last + 500)).unwrap();
            assert_eq!(found.0[&GROUP].entries.len(), model.0[&GROUP].entries.len() - 1);
        } else {
            is_refused(&flipped(last + 500), name, last);
        }
    }
}

#[test]
fn an_entry_damaged_while_the_log_is_open_is_never_served() {
    let (disk, _) = filled(1);
    let (name, header) = segments(&disk)[&2].clone();
    let frame = frames(&disk, &name, &header)[5];
    run(async move || {
        let log = open(&disk).unwrap();
        log.admit(GROUP, REPLICA).await.unwrap();
        let damaged = disk.open(&name);
        assert!(damaged.is_err(), "the log holds its files");
        flip(&disk, &name, frame + 300);
        let error = log.read(GROUP, 0..u64::MAX, usize::MAX).unwrap_err();
        assert!(matches!(&error, LogError::Damaged { file, .. } if **file == *name), "{error}");
    });
}

#[test]
fn a_file_that_is_gone_or_cut_off_is_missed() {
    let (disk, _) = filled(1);
    let segments = segments(&disk);
    for (number, (name, _)) in &segments {
        let gone = CrashDisk::from_image(&disk.image(), 1);
        gone.remove(name).unwrap();
        let error = reopened(&gone).map(|model| model.0[&GROUP].entries.len());
        let error = error.unwrap_err().to_string();
        assert!(error.contains(&format!("segment {number}")), "{error}");
        let cut = CrashDisk::from_image(&disk.image(), 1);
        cut.open(name).unwrap().set_len(FRAMES_AT + 5_000).unwrap();
        assert!(matches!(reopened(&cut), Err(LogError::Damaged { .. })));
    }
}

#[test]
fn what_another_medium_or_directory_wrote_is_refused() {
    for (ours, theirs, file) in [(SEGMENTS, REDB, "log.000001"), (REDB, SEGMENTS, "log.redb")] {
        let disk = CrashDisk::new(1);
        run(async move || {
            let open = |medium| {
                let config = LogConfig { medium, ..small_log() };
                DurableLog::open(Arc::new(disk.clone()), "log", config)
            };
            open(ours).unwrap().close().await.unwrap();
            let refused = open(theirs).unwrap_err().to_string();
            assert!(refused.contains(file) && refused.contains("configure"), "{refused}");
            open(ours).unwrap().close().await.unwrap();
        });
    }
    let disk = CrashDisk::new(1);
    run(async move || {
        let (ours, theirs) = (DiskId::random(), DiskId::random());
        let open = |id, has_store| {
            let owner = Some(Owner { disk: id, has_store });
            DurableLog::open(Arc::new(disk.clone()), "log", LogConfig { owner, ..config() })
        };
        for has_store in [false, true] {
            open(ours, has_store).unwrap().close().await.unwrap();
            assert!(matches!(open(theirs, has_store), Err(LogError::Owner { .. })));
        }
        for name in disk.list().unwrap() {
            disk.remove(&name).unwrap();
        }
        assert!(matches!(open(ours, true), Err(LogError::Owner { .. })));
        assert_eq!(disk.list().unwrap(), [] as [&str; 0]);
    });
}

#[test]
fn sizes_that_no_segment_has_are_refused() {
    for segment_bytes in [0, SEGMENT_BYTES_MIN - 1, SEGMENT_BYTES_MAX + 1, u64::MAX] {
        let disk = CrashDisk::new(1);
        let medium = LogMedium::Segments { segment_bytes };
        let config = LogConfig { medium, ..small_log() };
        let opened = run(async move || DurableLog::open(Arc::new(disk), "log", config).map(drop));
        assert!(opened.unwrap_err().to_string().contains("they may have 65536 to"));
    }
}

#[test]
fn a_large_append_takes_several_commits_and_a_large_entry_is_refused() {
    let disk = CrashDisk::new(1);
    run(async move || {
        let log = open(&disk).unwrap();
        log.admit(GROUP, REPLICA).await.unwrap();
        let many: Vec<LogEntry> = (0..100).map(|index| entry(1, index, 1_000)).collect();
        append(&log, GROUP, many.clone()).await.unwrap();
        assert!(log.stats().commits > 6);
        let refused = append(&log, GROUP, vec![entry(1, 100, 20_000)]).await.unwrap_err();
        assert!(matches!(refused, LogError::TooLarge { bytes: 20_008, .. }), "{refused}");
        append(&log, GROUP, vec![entry(1, 100, 16_000)]).await.unwrap();
        log.close().await.unwrap();
        let model = Model::of(&open(&disk).unwrap()).await.unwrap();
        assert!(model.0[&GROUP].entries[..100] == many);
        assert_eq!(model.0[&GROUP].entries.len(), 101);
    });
}

/// The bytes of an earlier use stand behind the frames of a segment, and so
/// does whatever clients wrote.
#[test]
fn what_looks_like_a_frame_in_a_payload_is_none() {
    let (disk, _) = filled(1);
    let (name, header) = segments(&disk)[&2].clone();
    let frame = frames(&disk, &name, &header)[3];
    let stolen = bytes_of(&disk, &name)[usize::try_from(frame).unwrap()..][..2_000].to_vec();
    let disk = CrashDisk::new(2);
    let kept = disk.clone();
    run(async move || {
        let log = open(&disk).unwrap();
        log.admit(GROUP, REPLICA).await.unwrap();
        for index in 0..100 {
            let payload = Bytes::from(stolen.clone());
            let position = LogPosition { term: 1, index };
            append(&log, GROUP, vec![LogEntry { position, payload }]).await.unwrap();
        }
        log.close().await.unwrap();
    });
    assert_eq!(reopened(&kept).unwrap().0[&GROUP].entries.len(), 100);
}
